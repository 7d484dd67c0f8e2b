"""Tests of tools/make_synthetic_model.py."""

import json
import math
import pathlib
import struct
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))

import make_synthetic_model as synthetic  # noqa: E402


def header_of(path):
    """The safetensors header of a file, and how many bytes of data follow it."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8:8 + length]), len(data) - 8 - length


class SyntheticModel(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)

    def make(self, name, *options):
        self.assertEqual(synthetic.main(["--shape", "tiny", "--output", str(self.folder / name),
                                         *options]), 0)
        return self.folder / name

    def test_files_are_whole(self):
        model = self.make("model")
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        self.assertEqual(config["quantization_config"]["group_size"], 32)
        for folder in (model, model / "drafter"):
            header, size = header_of(folder / "model.safetensors")
            self.assertEqual(max(entry["data_offsets"][1] for entry in header.values()), size)
        header, _ = header_of(model / "model.safetensors")
        self.assertEqual(header["model.layers.1.mlp.down_proj.qweight"]["shape"], [64, 64])
        self.assertEqual(header["model.layers.1.mlp.down_proj.scales"]["shape"], [64, 4])
        self.assertNotIn("lm_head.qweight", header)

    def test_a_seed_gives_the_same_weights(self):
        first, second, other = (self.make(name, "--seed", seed) / "model.safetensors"
                                for name, seed in (("a", "1"), ("b", "1"), ("c", "2")))
        self.assertEqual(first.read_bytes(), second.read_bytes())
        self.assertNotEqual(first.read_bytes(), other.read_bytes())

    def test_bf16_weights_are_spread_as_a_models(self):
        model = self.make("model", "--weights", "bf16")
        header, size = header_of(model / "model.safetensors")
        self.assertEqual(max(entry["data_offsets"][1] for entry in header.values()), size)
        entry = header["model.layers.0.mlp.down_proj.weight"]
        self.assertEqual((entry["dtype"], entry["shape"]), ("BF16", [64, 128]))
        begin, end = entry["data_offsets"]
        data = (model / "model.safetensors").read_bytes()[-size:][begin:end]
        values = [struct.unpack("<f", b"\0\0" + data[i:i + 2])[0] for i in range(0, len(data), 2)]
        deviation = (sum(value**2 for value in values) / len(values))**0.5
        self.assertAlmostEqual(deviation, 128**-0.5, delta=0.003)
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        self.assertNotIn("quantization_config", config)

    def test_sizes_are_those_of_the_models(self):
        for shape, billions in (("llama-2-7b", 6.74), ("llama-2-13b", 13.02),
                                ("llama-3.1-8b", 8.03), ("llama-3.1-70b", 70.55)):
            tensors = synthetic.model_tensors(synthetic.SHAPES[shape], "bf16")
            parameters = sum(math.prod(dimensions) for _, _, dimensions, _ in tensors)
            self.assertAlmostEqual(parameters / 1e9, billions, places=2)

    def test_a_large_vocabulary_is_drafted_in_part(self):
        tensors = {name: dimensions for name, _, dimensions, _ in
                   synthetic.drafter_tensors(synthetic.SHAPES["llama-3.2-1b"])}
        self.assertEqual(tensors["lm_head.1.qweight"], [8192, 4096])

    def test_an_output_that_is_there_is_left_alone(self):
        self.make("model")
        self.assertEqual(synthetic.main(["--shape", "tiny", "--output",
                                         str(self.folder / "model")]), 1)


if __name__ == "__main__":
    unittest.main()
