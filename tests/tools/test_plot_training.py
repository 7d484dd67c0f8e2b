"""Tests of tools/plot_training.py."""

import contextlib
import doctest
import importlib.util
import io
import json
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))

import plot_training  # noqa: E402


def step_line(step):
    return {"step": step, "positions": 100 * step, "loss": 3 / step, "learning_rate": 1e-3,
            "gradient_norm": 0.5, "seconds": 2.0 * step}


def evaluation_line(step, **more):
    return {"step": step, "positions": 100 * step,
            "evaluation": {"loss": 2 / step, "acceptance": [0.5, 0.25],
                           "tokens_per_step": {"1": 1.5, "2": 1.75, "4": 2, "8": 2.25}, **more}}


class PlotTraining(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = pathlib.Path(scratch.name)
        self.log = self.scratch / "training_log.jsonl"

    def write(self, *lines, end="\n"):
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        self.log.write_text("\n".join(texts) + end)

    def run_main(self, *words):
        """(exit status, standard output, standard error)"""
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            status = plot_training.main([str(word) for word in words])
        return status, output.getvalue(), errors.getvalue()

    def test_steps_and_evaluations_are_told_apart(self):
        self.write(step_line(1), evaluation_line(1), step_line(2),
                   evaluation_line(2, shapes={"1x5": 1.6, "8x4": 2.1}))
        steps, evaluations = plot_training.read_log(self.log)
        self.assertEqual([entry["step"] for entry in steps], [1, 2])
        accepted = plot_training.curves_of(evaluations, plot_training.acceptance)
        self.assertEqual(accepted, {"depth 1": ([100, 200], [0.5, 0.5]),
                                    "depth 2": ([100, 200], [0.25, 0.25])})
        tokens = plot_training.curves_of(evaluations, plot_training.tokens_per_step)
        self.assertEqual(list(tokens), ["1 token tried", "2 tried", "4 tried", "8 tried",
                                        "tree 1x5", "tree 8x4"])
        self.assertEqual(tokens["8 tried"], ([100, 200], [2.25, 2.25]))
        self.assertEqual(tokens["tree 8x4"], ([200], [2.1]))

    def test_a_torn_last_line_is_left_out(self):
        self.write(step_line(1), '{"step": 2, "posi', end="")
        self.assertEqual(plot_training.read_log(self.log), ([step_line(1)], []))

    def test_a_line_that_is_no_logs_is_named(self):
        for bad in ("{", "[]", "{}", {**step_line(2), "loss": "low"},
                    {"step": 2, "positions": 5, "evaluation": {}},
                    evaluation_line(2, acceptance=0.5), evaluation_line(2, shapes={"1x5": None})):
            self.write(step_line(1), bad)
            status, _, errors = self.run_main(self.log)
            self.assertEqual(status, 2)
            self.assertIn("training_log.jsonl line 2: is not a line of a training's log", errors)

    def test_an_empty_or_missing_log_is_named(self):
        self.assertIn("No such file", self.run_main(self.scratch)[2])
        self.log.touch()
        self.assertIn("has no whole line yet", self.run_main(self.scratch)[2])

    def test_without_matplotlib_it_says_what_to_install(self):
        self.write(step_line(1))
        with mock.patch.dict(sys.modules, {"matplotlib": None, "matplotlib.figure": None,
                                           "matplotlib.backends.backend_agg": None}):
            status, _, errors = self.run_main(self.log)
        self.assertEqual((status, errors.strip()), (2, plot_training.NEEDS_MATPLOTLIB))

    @unittest.skipUnless(importlib.util.find_spec("matplotlib"), "matplotlib is not installed")
    def test_pictures_are_drawn(self):
        picture = self.scratch / "curves.png"
        for lines in ([step_line(1)], [evaluation_line(1)],
                      [step_line(step) for step in range(1, 500)] +
                      [evaluation_line(499, shapes={"8x4": 2.1})]):
            self.write(*lines)
            status, output, errors = self.run_main(self.scratch, "-o", picture)
            self.assertEqual((status, errors), (0, ""))
            self.assertIn("curves.png: ", output)
            self.assertEqual(picture.read_bytes()[:4], b"\x89PNG")
            picture.unlink()
        status, _, errors = self.run_main(self.log, "-o", self.scratch / "none" / "curves.png")
        self.assertEqual(status, 2)
        self.assertIn("none/curves.png", errors)


def load_tests(loader, tests, pattern):
    tests.addTests(doctest.DocTestSuite(plot_training))
    return tests


if __name__ == "__main__":
    unittest.main()
