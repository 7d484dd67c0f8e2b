"""Tests of tools/plot_bench.py: what it takes out of reports, and what it refuses."""

import contextlib
import importlib.util
import io
import json
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))

import plot_bench  # noqa: E402


def entry(draft="off", concurrency=1, output=100.0, tpot=10.0, tasks=(), **more):
    """A test of a report with one run."""
    return {"setting": 0, "name": f"mt+tg64 @ c{concurrency}", "input": "mt",
            "prompt_tokens": None, "new_tokens": 64, "concurrency": concurrency,
            "request_rate": None, "draft": draft, "draft_nodes": 0,
            "output_throughput": {"mean": output}, "tpot_ms": {"mean": tpot},
            "acceptance_by_depth": [], **more,
            "tasks": [{"name": name, "tpot_ms": ms} for name, ms in tasks]}


def report(tests, tp=1, step_cost=()):
    """A report of one setting."""
    return {"schema": 1, "commit": "abc", "simulated_tokens_per_step": None,
            "model": {"name": "Tiny"}, "machine": {"cpu": "Test CPU"},
            "settings": [{"weights": "int4", "threads": 2, "tp": tp, "numerics_id": "cpu",
                          "drafter": "head"}],
            "tests": list(tests), "step_cost": list(step_cost)}


class Collect(unittest.TestCase):
    def test_speedups_pair_tests_that_differ_in_their_draft_only(self):
        tests = [entry(tasks=[("maths", 10.0), ("code", 12.0)]),
                 entry("4x4", output=150.0, tpot=5.0, tasks=[("maths", 4.0), ("code", 8.0)],
                            acceptance_by_depth=[0.5, 0.25]),
                 entry("4x4", concurrency=8, output=300.0)]
        reports = [report(tests)]
        self.assertEqual(plot_bench.speedup_by_task(reports),
                         {"head 4x4": {"maths": 2.5, "code": 1.5, "all": 2.0}})
        # The one with 8 requests in flight has nothing to be compared with.
        self.assertEqual(plot_bench.speedup_by_batch(reports), {"head 4x4, mt": [(1, 1.5)]})
        reports.append(report([entry(concurrency=8, output=400.0)]))
        self.assertEqual(plot_bench.speedup_by_batch(reports),
                         {"head 4x4, mt": [(1, 1.5), (8, 0.75)]})
        self.assertEqual(plot_bench.acceptance(reports), {"head 4x4: mt+tg64 @ c1": [0.5, 0.25]})

    def test_step_costs_go_by_rows(self):
        costs = [{"setting": 0, "rows": rows,
                  "step_ms": {"median": rows / 2, "min": 1.0, "p90": 9.0}} for rows in (8, 1)]
        self.assertEqual(plot_bench.step_costs([report([], step_cost=costs)]),
                         {"int4, 2 threads": [(1, 0.5, 1.0, 9.0), (8, 4.0, 1.0, 9.0)]})

    def test_scaling_is_over_the_fewest_ranks(self):
        reports = [report([entry(decode_tokens_per_s={"mean": speed})], tp=tp)
                   for tp, speed in ((4, 300.0), (1, 100.0), (2, 180.0))]
        self.assertEqual(plot_bench.scaling(reports),
                         {"decode, int4, mt+tg64 @ c1": [(1, 1.0), (2, 1.8), (4, 3.0)]})
        self.assertEqual(plot_bench.scaling(reports[:1]), {})


class Command(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)

    def write(self, content):
        path = self.folder / "bench.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return str(path)

    def run_command(self, *arguments):
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            status = plot_bench.main([*arguments, "--output", str(self.folder)])
        return status, errors.getvalue()

    def test_other_files_and_schemas_are_refused(self):
        status, errors = self.run_command(self.write({"schema": 1}))
        self.assertEqual((status, "not a report" in errors), (1, True))
        status, errors = self.run_command(self.write({**report([]), "schema": 99}))
        self.assertEqual((status, "schema 99, expected 1" in errors), (1, True))
        self.assertEqual(self.run_command(str(self.folder / "missing"))[0], 1)

    def test_without_matplotlib_it_says_what_to_install(self):
        with mock.patch("importlib.util.find_spec", return_value=None):
            status, errors = self.run_command(self.write(report([entry()])))
        self.assertEqual(status, 1)
        self.assertIn("needs matplotlib; install it", errors)

    @unittest.skipUnless(importlib.util.find_spec("matplotlib"), "draws with matplotlib")
    def test_draws_what_there_are_figures_for(self):
        tests = [entry(tasks=[("maths", 10.0), ("code", 12.0)]),
                 entry("4x4", tasks=[("maths", 4.0), ("code", 8.0)],
                            acceptance_by_depth=[0.5])]
        status, errors = self.run_command(self.write(report(tests)), "--format", "png")
        self.assertEqual(status, 0)
        self.assertEqual({path.name for path in self.folder.glob("*.png")},
                         {"speedup_tasks.png", "speedup_batch.png", "acceptance.png"})
        self.assertIn("no figures for scaling", errors)


if __name__ == "__main__":
    unittest.main()
