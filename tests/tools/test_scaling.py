"""Tests of tools/scaling.py: what it counts, by hand, and that docs/scaling.md says the same."""

import contextlib
import dataclasses
import io
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import scaling  # noqa: E402
from scaling_model import inputs, shards, step, tables  # noqa: E402

TINY = inputs.Shape("tiny", vocab=48, hidden=64, ffn=96, layers=2, heads=4, kv_heads=2, head_dim=16)


def setup_of(tp=1, weights="bf16", shape=TINY, **costs):
    """A setup on H100s."""
    return step.Setup(shape, inputs.FORMATS[weights], inputs.GPUS["H100"], tp,
                      dataclasses.replace(inputs.ASKED, **costs))


class Shards(unittest.TestCase):
    def test_examples_of_parallel_shards_h(self):
        self.assertEqual(shards.deal(9, 1, 8), [(0, 2), *[(i, i + 1) for i in range(2, 9)]])
        self.assertEqual(shards.deal(40, 16, 4), [(0, 16), (16, 32), (32, 40), (40, 40)])
        self.assertEqual(shards.kv_heads_for((2, 4), 9, 3), (0, 2))
        self.assertEqual(shards.inner_nodes(0, 7),
                         [(0, 2), (2, 4), (0, 4), (4, 6), (4, 7), (0, 7)])
        self.assertEqual(shards.subtree_counts(8, 3), [1, 2, 2])
        self.assertEqual(shards.subtree_counts(8, 8), [1] * 8)

    def test_five_to_seven_ranks_carry_the_load_of_four(self):
        shape = inputs.SHAPES["Llama-3-8B"]
        sizes = [step.largest_read(setup_of(tp, shape=shape)) for tp in range(4, 9)]
        self.assertEqual(sizes[:4], [sizes[0]] * 4)
        self.assertLess(sizes[4], sizes[0])

    def test_a_kv_head_is_kept_by_every_rank_that_needs_it(self):
        parts = shards.rank_parts(TINY, 0, 4)
        self.assertEqual([part.query_heads for part in parts], [2, 2, 0, 0])
        wide = dataclasses.replace(TINY, heads=8)
        self.assertEqual([part.kv_heads for part in shards.rank_parts(wide, 0, 8)], [1] * 8)


class Bytes(unittest.TestCase):
    def test_a_model_by_hand(self):
        # A layer: q 64, k and v 32 rows each, o 64 x 64, gate, up and down 96 each; norms in fp32.
        layer = (128 * 64 + 64 * 64 + 3 * 96 * 64) * 2
        norms = 5 * 64 * 4
        table = 48 * 64 * 2
        part = shards.rank_parts(TINY, 0, 1)[0]
        self.assertEqual(step.weight_bytes_read(setup_of(), part), 2 * layer + norms + table)
        self.assertEqual(step.weight_bytes(setup_of(), part), 2 * layer + norms + 2 * table)

    def test_a_tied_table_is_kept_once(self):
        setup = setup_of(shape=dataclasses.replace(TINY, tied=True))
        self.assertEqual(step.weight_bytes(setup, setup.parts[0]),
                         step.weight_bytes_read(setup, setup.parts[0]))

    def test_the_formats(self):
        self.assertEqual({name: fmt.bytes(10, 64) for name, fmt in inputs.FORMATS.items()},
                         {"bf16": 1280, "fp8": 680, "int8": 680, "int8g32": 680, "int4": 400})

    def test_the_parameters_of_llama_3_8b(self):
        setup = setup_of(shape=inputs.SHAPES["Llama-3-8B"])
        norms = 65 * 4096
        self.assertEqual(step.weight_bytes(setup, setup.parts[0]) - 2 * norms, 2 * 8030261248)

    def test_ranks_share_all_but_the_norms(self):
        shape = inputs.SHAPES["Llama-3-8B"]
        whole = step.largest_read(setup_of(shape=shape))
        setup = setup_of(8, shape=shape)
        norms = 65 * 4096 * 4
        self.assertEqual(sum(step.weight_bytes_read(setup, part) for part in setup.parts),
                         whole + 7 * norms)

    def test_the_cache_of_a_position(self):
        setup = setup_of()
        part = setup.parts[0]
        self.assertEqual(step.kv_bytes_per_position(setup, part, "bf16"), 2 * 2 * 16 * 2)
        self.assertEqual(step.kv_bytes_per_position(setup, part, "int8"), 2 * 2 * (16 + 4))
        self.assertEqual(step.kv_bytes(setup, inputs.Load(3, 10)), 2 * 3 * 10 * 128)

    def test_the_first_depth_of_a_draft_has_no_state(self):
        drafter = inputs.Drafter(vocab=8, layers=1)
        self.assertEqual(step.drafter_products(TINY, drafter),
                         [(64, 64), (64, 64), (128, 128), (8, 128)])
        self.assertEqual(len(step.drafter_products(TINY, drafter, first=True)), 3)


class Time(unittest.TestCase):
    def test_a_product_takes_the_longer_of_reading_and_computing(self):
        setup = setup_of(product_ramp=0)
        fmt = inputs.FORMATS["bf16"]
        read = 4096 * 4096 * 2 / (3350e3 * 0.92 * 0.95)
        self.assertAlmostEqual(step.product_time(setup, fmt, 4096, 4096, 1), read)
        compute = 2 * 4096 * 4096 * 4096 / (989e6 * 0.5)
        self.assertAlmostEqual(step.product_time(setup, fmt, 4096, 4096, 4096), compute)

    def test_exchanges_by_hand(self):
        setup = setup_of(4, exchange_latency=10, all_reduce_latency=20, link_bandwidth_share=1,
                         read_share=1e9)  # adding takes no time
        times = step.exchange_times(setup, 90, 1250)  # 450 kB: 1 us of a link
        self.assertAlmostEqual(times["gather"], 10 + 3, places=6)
        self.assertAlmostEqual(times["scatter"], 20 + 2 * 0.75, places=6)
        self.assertAlmostEqual(times["all-reduce"], 20 + 2 * 0.75, places=6)

    def test_a_rank_with_two_subtrees_sends_both(self):
        costs = {"exchange_latency": 0, "link_bandwidth_share": 1, "read_share": 1e9}
        times = step.exchange_times(setup_of(3, **costs), 90, 1250)
        self.assertAlmostEqual(times["gather"], 4, places=6)

    def test_the_ways_cross_where_the_page_says(self):
        setup = setup_of(8, shape=inputs.SHAPES["Llama-3-70B"])
        rows = step.crossover_rows(setup, 8192)
        before, at = (step.exchange_times(setup, count, 8192) for count in (rows - 1, rows))
        self.assertLessEqual(before["gather"], before["scatter"])
        self.assertLess(at["scatter"], at["gather"])

    def test_one_rank_exchanges_nothing(self):
        load = inputs.Load(4)
        self.assertEqual(step.step_time(setup_of(), load).exchanges, 0)
        # Two a layer, the embedding, the choices of the ranks.
        setup = setup_of(2, link_bandwidth_share=1e9, read_share=1e9)
        self.assertAlmostEqual(step.step_time(setup, load).exchanges, 6 * 7.4, places=4)

    def test_a_draft_looks_tokens_up_at_every_depth(self):
        drafter = inputs.Drafter(depth=3)
        slow, fast = (step.draft_time(setup_of(2, exchange_latency=us), inputs.Load(), drafter)
                      for us in (11, 1))
        self.assertAlmostEqual(slow - fast, 3 * 10)

    def test_a_draft_pays_from_the_ratio_of_the_steps_on(self):
        setup, load = setup_of(shape=inputs.SHAPES["Llama-3-8B"]), inputs.Load()
        least = step.break_even(setup, load, inputs.Drafter())
        drafter = inputs.Drafter(tokens_per_step=least)
        self.assertAlmostEqual(step.tokens_per_second(setup, load, drafter),
                               step.tokens_per_second(setup, load))

    def test_no_step_is_faster_than_its_bytes(self):
        for model in tables.MODELS:
            for tp in tables.TPS:
                for requests in (1, 64):
                    setup, load = setup_of(tp, shape=inputs.SHAPES[model]), inputs.Load(requests)
                    self.assertLess(step.tokens_per_second(setup, load), step.bound(setup, load))

    def test_70b_in_bf16_does_not_fit_one_gpu(self):
        shape = inputs.SHAPES["Llama-3-70B"]
        self.assertFalse(step.fits(setup_of(1, shape=shape), inputs.Load()))
        self.assertTrue(step.fits(setup_of(4, shape=shape), inputs.Load()))

    def test_requests_are_dealt_to_replicas(self):
        case = ("Llama-3-8B", "bf16", "H200")
        one = step.tokens_per_second(tables.setup_of(*case, 4), inputs.Load(2))
        two = step.tokens_per_second(tables.setup_of(*case, 4), inputs.Load(1))
        self.assertAlmostEqual(tables.layout_speed(*case, 4, 3, inputs.ASKED), one + two)


class Command(unittest.TestCase):
    def run_command(self, *arguments):
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
            status = scaling.main(list(arguments))
        return status, output.getvalue(), errors.getvalue()

    def test_the_page_says_what_the_model_says(self):
        page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
        self.assertEqual(scaling.with_tables(page), page,
                         "run tools/scaling.py --update docs/scaling.md")
        for name in tables.TABLES:
            self.assertIn(f"<!-- table: {name} -->", page)

    def test_a_case(self):
        status, output, _ = self.run_command("--model", "Llama-3-8B", "--requests", "4", "--draft")
        self.assertEqual(status, 0)
        self.assertEqual(output.count("| TP"), 8)

    def test_a_measured_cost_replaces_an_assumed_one(self):
        arguments = ("--model", "Llama-3-8B", "--cost", "exchange_latency=3")
        self.assertNotEqual(self.run_command(*arguments)[1], self.run_command(*arguments[:2])[1])

    def test_refusals(self):
        for arguments, words in ((("--cost", "speed=1"), "expected one of"),
                                 (("--cost", "read_share"), "expected a number"),
                                 (("--cost", "read_share=0"), "out of range"),
                                 (("--requests", "0"), "positive")):
            status, _, errors = self.run_command("--model", "Llama-3-8B", *arguments)
            self.assertEqual(status, 1)
            self.assertIn(words, errors)

    def test_a_page_with_an_unknown_table_is_left_as_it_is(self):
        with tempfile.TemporaryDirectory() as folder:
            page = pathlib.Path(folder) / "page.md"
            page.write_text("<!-- table: speeds -->\n<!-- end -->\n", encoding="utf-8")
            status, _, errors = self.run_command("--update", str(page))
            self.assertEqual(status, 1)
            self.assertIn("no table 'speeds", errors)
            self.assertEqual(page.read_text(encoding="utf-8").count("\n"), 2)

    def test_pictures_need_matplotlib(self):
        with mock.patch("importlib.util.find_spec", return_value=None):
            status, _, errors = self.run_command("--pictures", "x")
        self.assertEqual(status, 1)
        self.assertIn("matplotlib", errors)


if __name__ == "__main__":
    unittest.main()
