"""Tests of what decides equal or not: python3 -m unittest discover -s tests/equality"""

import doctest
import importlib.machinery
import importlib.util
import json
import pathlib
import struct
import tempfile
import unittest

import cases
import command
import suite
import twins


def load_script(name):
    """A script of this folder as a module."""
    path = pathlib.Path(__file__).resolve().parent / name
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


class Compare(unittest.TestCase):
    REPORT = {"numerics_id": "cpu,w=fp32", "checksum": "aa"}

    def job(self, answers, **report):
        return answers, {**self.REPORT, **report}, ["paceline", "generate"]

    def compare(self, answers, same_input=True, **report):
        expected = self.job({"a": [1, 2, 3], "b": [4, 5]})
        suite.compare(expected, self.job(answers, **report), same_input)

    def test_the_same_tokens_pass_and_so_do_some_of_the_requests(self):
        self.compare({"a": [1, 2, 3], "b": [4, 5]})
        self.compare({"b": [4, 5]}, same_input=False, checksum="bb")

    def test_another_token_is_named(self):
        with self.assertRaisesRegex(command.RunFailed, "b: token 1 is 6, expected 5"):
            self.compare({"a": [1, 2, 3], "b": [4, 6]})

    def test_an_answer_that_is_too_short_or_too_long_is_named(self):
        with self.assertRaisesRegex(command.RunFailed, "a: token 2 is None, expected 3"):
            self.compare({"a": [1, 2]})
        with self.assertRaisesRegex(command.RunFailed, "b: token 2 is 7, expected None"):
            self.compare({"b": [4, 5, 7]})

    def test_other_numerics_or_another_checksum_are_named(self):
        with self.assertRaisesRegex(command.RunFailed, "numerics_id is cpu,w=bf16"):
            self.compare({"a": [1, 2, 3]}, same_input=False, numerics_id="cpu,w=bf16")
        with self.assertRaisesRegex(command.RunFailed, "checksum is bb, expected aa"):
            self.compare({"a": [1, 2, 3], "b": [4, 5]}, checksum="bb")

    def test_answers_of_another_device_equal_but_for_the_backends_name(self):
        expected = self.job({"a": [1, 2]})
        actual = self.job({"a": [1, 2]}, numerics_id="cuda,w=fp32")
        suite.compare(expected, actual, same_input=True, same_device=False)
        with self.assertRaisesRegex(command.RunFailed, "numerics_id is cuda,w=fp32"):
            suite.compare(expected, actual, same_input=True)
        actual = self.job({"a": [1, 2]}, numerics_id="cuda,w=bf16")
        with self.assertRaisesRegex(command.RunFailed, "numerics_id is w=bf16, expected w=fp32"):
            suite.compare(expected, actual, same_input=True, same_device=False)


class Rows(unittest.TestCase):
    def setUp(self):
        self.run = load_script("run")

    def test_a_gpus_runs_take_every_draft_and_number_of_ranks(self):
        rows = self.run.pairwise_rows(["avx2"], "cuda")
        self.assertEqual({row["tp"] for row in rows}, {1, 2, 4, 8})
        self.assertEqual({row["draft"] for row in rows}, set(suite.DRAFTS))
        self.assertEqual({row["device"] for row in rows}, {"cuda"})
        words = suite.options_of(rows[0], str)
        self.assertEqual(words[words.index("--device") + 1], "cuda")

    def test_both_kinds_of_attention_are_run_on_a_gpu_in_several_ways(self):
        rows = [row for row in self.run.pairwise_rows(["avx2"], "cuda")
                if row["case"].weights == "bf16"]
        for attention in ("auto", "fp32"):
            some = [row for row in rows if row["case"].attention == attention]
            self.assertEqual({row["tp"] for row in some}, {1, 2, 4, 8})
            self.assertEqual({row["draft"] for row in some}, set(suite.DRAFTS))
            words = suite.options_of(some[0], str)
            self.assertEqual(words[words.index("--attention") + 1], attention)
        for row in self.run.pairwise_rows(["avx2"], "cpu"):
            self.assertEqual(row["case"].attention, "auto")

    def test_attention_in_bf16_has_its_reference_on_the_gpu(self):
        case = cases.Case("llama_mqa", "int8", attention="bf16")
        self.assertEqual(suite.reference_device(case, "cuda"), "cuda")

    def test_graphs_are_off_in_some_of_a_gpus_runs_and_nowhere_else(self):
        def without(device):
            rows = self.run.pairwise_rows(["avx2"], device)
            return [row for row in rows if "--no-graphs" in suite.options_of(row, str)]
        alone = [row for row in without("cuda") if row["tp"] == 1]
        self.assertTrue(any(row["draft"] != "none" for row in alone))
        self.assertEqual(without("cpu"), [])


class SmallPool(unittest.TestCase):
    def check(self, *replicas):
        report = {"replicas": [{"preemptions": preemptions, "peak_kv_pages": pages}
                               for preemptions, pages in replicas]}
        suite.check_pool(report, ["paceline"])

    def test_one_replica_that_preempts_is_enough(self):
        self.check((0, 5), (2, 6))

    def test_no_preemption_or_too_many_pages_fail(self):
        with self.assertRaisesRegex(command.RunFailed, "no preemption"):
            self.check((0, 6), (0, 5))
        with self.assertRaisesRegex(command.RunFailed, "7 KV pages were used of 6"):
            self.check((1, 7))

    def test_memory_follows_the_fullest_rank(self):
        """9 heads in atoms of one on 8 shards: shard 0 has heads 0 and 1, shard i head i + 1. On 8
        ranks each reads one KV head of 32 columns: 6 pages of 2 layers x K and V x 64 x 32 x 4."""
        self.assertEqual(cases.Case("uneven", "fp32").kv_memory(8), 6 * 2 * 2 * 64 * 32 * 4)
        self.assertEqual(cases.Case("uneven", "fp32").kv_memory(1), 3 * 6 * 2 * 2 * 64 * 32 * 4)
        # 3 ranks: heads 0-2, 3-5, 6-8, one KV head each; bf16 halves it.
        self.assertEqual(cases.Case("uneven", "bf16").kv_memory(3), 6 * 2 * 2 * 64 * 32 * 2)
        self.assertEqual(cases.Case("uneven", "fp32", "int8").kv_memory(3),
                         6 * 2 * 2 * 64 * (32 + 4))


class Twins(unittest.TestCase):
    def test_a_pair_differs_by_signs_of_tiny_weights(self):
        matrix = [[1.0] * 8, [2.0] * 8, [3.0] * 8]
        twins.make_twins(matrix, "seed")
        self.assertEqual([abs(weight) for weight in matrix[0]],
                         [abs(weight) for weight in matrix[1]])
        differing = [i for i in range(8) if matrix[0][i] != matrix[1][i]]
        self.assertEqual(len(differing), twins.TINY_COLUMNS)
        self.assertTrue(all(abs(matrix[0][i]) == twins.TINY for i in differing))
        self.assertEqual(matrix[2], [3.0] * 8)  # it has no twin

    def test_int8_rows_are_scaled_and_the_rest_of_the_file_is_kept(self):
        tensors = {"lm_head.qweight": ("I8", [1, 4], struct.pack("<4b", 2, -4, 6, 8)),
                   "lm_head.scales": ("F16", [1, 2], struct.pack("<2e", 0.5, 0.25)),
                   "model.norm.weight": ("F32", [1], struct.pack("<f", 1.5))}
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "model.safetensors"
            twins.write_safetensors(path, tensors)
            read = twins.read_safetensors(path)
        self.assertEqual(read, tensors)
        self.assertEqual(twins.vocabulary_matrix(read, "lm_head"), [[1.0, -2.0, 1.5, 2.0]])
        self.assertEqual(list(read), ["model.norm.weight"])


class TeacherForced(unittest.TestCase):
    CASES = [{"ids": [9], "greedy": [1, 2, 3], "margins": [1.0, 0.0001, 1.0]}]

    def setUp(self):
        self.follow = load_script("teacher_forced").follow
        self.asked = []

    def run_with(self, *answers):
        replies = iter(answers)

        def answer(requests):
            self.asked += [(request["prompt"], request["max_tokens"]) for request in requests]
            return {"chat-0": next(replies)}

        return self.follow(self.CASES, answer)

    def test_a_run_that_never_differs_is_one_request(self):
        self.assertEqual(self.run_with([1, 2, 3]), (3, [], []))
        self.assertEqual(self.asked, [([9], 3)])

    def test_a_near_tie_may_fall_either_way_and_the_rest_follows_the_fixture(self):
        compared, ties, failures = self.run_with([1, 7, 8], [3])
        self.assertEqual((compared, len(ties), failures), (3, 1, []))
        self.assertEqual(self.asked, [([9], 3), ([9, 1, 2], 1)])

    def test_a_choice_that_was_clear_may_not_differ(self):
        compared, ties, failures = self.run_with([5, 2, 3], [2, 3])
        self.assertEqual((compared, ties), (3, []))
        self.assertIn("chat-0, token 0: 5, where transformers chose 1", failures[0])

    def test_an_answer_that_ends_early_differs_there(self):
        compared, _, failures = self.run_with([1, 2], [])
        self.assertEqual(compared, 3)
        self.assertIn("token 2: None, where transformers chose 3", failures[0])


class Requests(unittest.TestCase):
    def test_they_are_the_same_every_time_half_of_them_greedy(self):
        requests = cases.CASES[0].requests()
        self.assertEqual(json.dumps(requests), json.dumps(cases.CASES[0].requests()))
        self.assertEqual(len({request["custom_id"] for request in requests}), 16)
        self.assertEqual(sum("temperature" not in request for request in requests), 8)
        self.assertTrue(any("temperature" in request and "seed" not in request
                            for request in requests))

    def test_every_run_samples_at_every_temperature(self):
        temperatures = {request.get("temperature", 0) for request in cases.CASES[0].requests()}
        self.assertEqual(temperatures, {0, 0.3, 0.7, 1, 1.5})


class RealModel(unittest.TestCase):
    def setUp(self):
        self.script = load_script("real_model")

    def test_chats_differ_and_temperatures_take_turns(self):
        requests = self.script.requests_of(100, 128, every_temperature=False)
        self.assertEqual(len({request["messages"][0]["content"] for request in requests}), 100)
        temperatures = [request["temperature"] for request in requests]
        self.assertEqual([temperatures.count(level) for level in (0, 0.7, 1.0)], [34, 33, 33])
        whole = self.script.requests_of(100, 128, every_temperature=True)
        self.assertEqual(len({request["custom_id"] for request in whole}), 300)

    def test_every_draft_runs_and_every_number_of_ranks(self):
        for drafts in (["none", "lookup"], list(self.script.DRAFTS)):
            rows = self.script.rows_of(drafts, full=False)
            self.assertEqual([draft for draft, _, _ in rows], drafts)
            self.assertIn(3, [ranks for _, ranks, _ in rows])
            full = self.script.rows_of(drafts, full=True)
            self.assertEqual({(draft, ranks) for draft, ranks, _ in full},
                             {(draft, ranks) for draft in drafts for ranks in (1, 2, 3)})


def load_tests(loader, tests, pattern):
    for module in (command, suite, load_script("run")):
        tests.addTests(doctest.DocTestSuite(module))
    return tests


if __name__ == "__main__":
    unittest.main()
