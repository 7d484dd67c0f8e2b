"""Tests of tools/bench_peers.py: what is asked of each engine, and how answers are read."""

import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))

import bench_peers  # noqa: E402
from peers import Refused, command, llama_cpp  # noqa: E402
from peers.load import Load  # noqa: E402

LOAD = Load(prompt_tokens=512, new_tokens=128, batches=(1, 16), threads=2)


class Counter:
    """An engine whose speeds are 1, 2, 3, ... times a factor."""

    def __init__(self, name, factor):
        self.name = name
        self.factor = factor
        self.rounds = 0

    def measure(self, load):
        self.rounds += 1
        return {figure: self.factor * self.rounds for figure in load.figures()}


class Loads(unittest.TestCase):
    def test_figures_are_named_for_tokens_and_batch(self):
        self.assertEqual(LOAD.figures(), ["pp512 @ c1", "tg128 @ c1", "pp512 @ c16", "tg128 @ c16"])
        self.assertEqual(LOAD.named({16: (100.0, 20.0)}), {"pp512 @ c16": 100.0,
                                                           "tg128 @ c16": 20.0})

    def test_paceline_is_read_from_its_report(self):
        tests = [{"concurrency": batch, "prefill_tokens_per_s": {"mean": 10.0 * batch},
                  "decode_tokens_per_s": {"mean": 1.0 * batch}} for batch in (1, 16)]
        self.assertEqual(bench_peers.read_paceline(LOAD, {"tests": tests}),
                         {"pp512 @ c1": 10.0, "tg128 @ c1": 1.0, "pp512 @ c16": 160.0,
                          "tg128 @ c16": 16.0})


class Rounds(unittest.TestCase):
    def test_engines_take_turns_and_ratios_are_of_one_round(self):
        with contextlib.redirect_stderr(io.StringIO()):
            speeds = bench_peers.measure_all([Counter("paceline", 30), Counter("other", 10)], LOAD,
                                             3)
        self.assertEqual(speeds["other"]["tg128 @ c1"], [10, 20, 30])
        self.assertEqual(bench_peers.ratios(speeds["paceline"]["tg128 @ c1"],
                                            speeds["other"]["tg128 @ c1"]), [3.0, 3.0, 3.0])
        written = bench_peers.as_json(speeds, LOAD, "paceline 1")
        self.assertEqual(written["engines"][0]["ratio"], None)
        self.assertEqual(written["engines"][1]["ratio"]["tg128 @ c1"], [3.0, 3.0, 3.0])
        self.assertIn("| tg128 @ c16 | other | 20.0 | 3.00 | 3.00 | 3.00 |",
                      bench_peers.table(speeds))

    def test_of_two_builds_the_better_counts_figure_by_figure(self):
        speeds = {"paceline": {"pp": [1, 1, 1], "tg": [1, 1, 1]},
                  "llama.cpp native": {"pp": [9, 8, 7], "tg": [1, 9, 1]},
                  "llama.cpp no-amx": {"pp": [5, 5, 5], "tg": [2, 2, 2]},
                  "transformers bf16": {"pp": [1, 1, 1], "tg": [1, 1, 1]}}
        self.assertEqual(bench_peers.better_builds(speeds)["llama.cpp best"],
                         {"pp": [9, 8, 7], "tg": [2, 2, 2]})
        self.assertNotIn("transformers best", bench_peers.better_builds(speeds))


class LlamaCpp(unittest.TestCase):
    def test_a_second_build_only_where_there_is_amx(self):
        self.assertEqual(list(llama_cpp.builds({"avx2", "fma"})), ["native"])
        found = llama_cpp.builds({"avx", "avx2", "fma", "f16c", "bmi2", "amx_int8", "amx_tile"})
        self.assertEqual(list(found), ["native", "no-amx"])
        self.assertIn("-DGGML_NATIVE=OFF", found["no-amx"])
        self.assertIn("-DGGML_AVX2=ON", found["no-amx"])
        self.assertIn("-DGGML_AVX512=OFF", found["no-amx"])
        self.assertFalse(any("AMX" in option for option in found["no-amx"]))

    def test_its_tools_are_asked_for_the_load(self):
        words = list(map(str, llama_cpp.batched_words(pathlib.Path("bin"), "m.gguf", LOAD)))
        for name, value in (("-c", "10240"), ("-npp", "512"), ("-ntg", "128"), ("-npl", "1,16"),
                            ("-t", "2")):
            self.assertEqual(words[words.index(name) + 1], value)
        prefill, decode = llama_cpp.bench_words(pathlib.Path("bin"), "m.gguf", LOAD)
        self.assertEqual(prefill[-4:], ["-p", 512, "-n", 0])
        self.assertEqual(decode[-6:], ["-p", 0, "-n", 128, "-d", 512])

    def test_the_better_of_both_tools_counts_for_a_single_request(self):
        batched = "\n".join(["loading", *(json.dumps({"pl": batch, "speed_pp": 100.0 * batch,
                                                      "speed_tg": 10.0 * batch})
                                          for batch in (1, 16))])
        answers = {"-npp": batched, "-n": json.dumps([{"avg_ts": 105.0}]),
                   "-d": json.dumps([{"avg_ts": 9.0}])}

        def run(words, _):
            return next(answer for option, answer in answers.items()
                        if option in words and ("-d" in words) == (option == "-d"))

        with mock.patch.object(llama_cpp, "run", run):
            figures = llama_cpp.LlamaCpp("native", pathlib.Path("bin"), "m.gguf").measure(LOAD)
        self.assertEqual(figures, {"pp512 @ c1": 105.0, "tg128 @ c1": 10.0, "pp512 @ c16": 1600.0,
                                   "tg128 @ c16": 160.0})

    def test_another_answer_is_refused(self):
        with self.assertRaisesRegex(Refused, "ran 2 tests"):
            llama_cpp.read_bench('[{"avg_ts": 1}, {"avg_ts": 2}]')


class CommandLine(unittest.TestCase):
    BASE = ["--paceline", "p", "--model", "m", "--gguf", "g"]

    def refused(self, *arguments):
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), self.assertRaises(SystemExit):
            bench_peers.parse_arguments([*self.BASE, *arguments])
        return errors.getvalue()

    def test_lists_and_names_are_checked(self):
        self.assertEqual(bench_peers.parse_arguments([*self.BASE, "--batches", "1,8"]).batches,
                         (1, 8))
        self.assertIn("expected positive numbers", self.refused("--batches", "1,0"))
        self.assertIn("is none of llama.cpp, ctranslate2", self.refused("--peers", "vllm"))
        self.assertIn("expected PEER=PYTHON", self.refused("--environment", "python"))
        self.assertIn("at least 1", self.refused("--repeat", "0"))

    def test_a_command_that_fails_is_shown_with_its_last_words(self):
        with self.assertRaisesRegex(Refused, "trying failed with status 3: sh -c .*\nno luck"):
            command.run(["sh", "-c", "echo no luck >&2; exit 3"], "trying")

    def test_a_missing_file_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            program = pathlib.Path(folder) / "paceline"
            program.write_text("#!/bin/sh\necho paceline 0\n", encoding="utf-8")
            program.chmod(0o755)
            errors = io.StringIO()
            with contextlib.redirect_stderr(errors):
                status = bench_peers.main(["--paceline", str(program), "--model", "m", "--gguf",
                                           f"{folder}/missing", "--cache", folder])
        self.assertEqual(status, 1)
        self.assertIn("there is no file", errors.getvalue())


if __name__ == "__main__":
    unittest.main()
