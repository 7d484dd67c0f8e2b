"""Tests of tools/compare_drafters.py, with a program in paceline's place that writes down how it
was called and reports made-up figures."""

import contextlib
import doctest
import io
import json
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))

import compare_drafters  # noqa: E402

# Speed is made of the shape's width, tokens per step of its depth; `spoilt` gives other answers.
FAKE = """#!{python}
import json, pathlib, sys
words = sys.argv[1:]
with open("{calls}", "a") as calls:
    calls.write(json.dumps(words) + "\\n")
value = lambda name: words[words.index(name) + 1] if name in words else None
if value("--drafter") == "missing":
    sys.exit("paceline: missing/config.json: cannot be opened")
width, depth = map(int, (value("--draft") or "0x0").split("x"))
drafts = {{"trees": 10, "tree_rows": 10 * width * depth, "rows_saved_by_merging": 30 * width,
          "non_finite": 0, "acceptance_by_depth": [0.5, 0.25]}}
if not width:
    drafts = {{"trees": 0, "tree_rows": 0, "rows_saved_by_merging": 0, "non_finite": 0,
              "acceptance_by_depth": []}}
pathlib.Path(value("--report")).write_text(json.dumps({{
    "checksum": "spoilt" if value("--drafter") == "spoilt" else "T" + str(value("--temperature")),
    "tokens_per_step": 1 + depth / 4, "tokens_per_second": 100 * (1 + width), "drafts": drafts}}))
"""


class CompareDrafters(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = pathlib.Path(scratch.name)
        self.paceline = self.scratch / "paceline"
        self.paceline.write_text(FAKE.format(python=sys.executable, calls=self.scratch / "calls"))
        self.paceline.chmod(0o755)

    def compare(self, *words):
        """(exit status, standard output, standard error)"""
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            status = compare_drafters.main(["--model", "m", "--input", "i.jsonl", "--paceline",
                                            str(self.paceline), *words])
        return status, output.getvalue(), errors.getvalue()

    def calls(self):
        """The options of every call that the comparison chose."""
        calls = [json.loads(line) for line in (self.scratch / "calls").read_text().splitlines()]
        for call in calls:
            self.assertEqual(call[:5], ["generate", "--model", "m", "--input", "i.jsonl"])
        return [" ".join(call[9:]) for call in calls]

    def test_every_drafter_is_run_in_every_shape_beside_none(self):
        status, table, _ = self.compare("--drafter", "a/heads", "--lookup", "--draft", "1x4",
                                        "--draft", "3x2/5", "--", "--max-tokens", "7")
        self.assertEqual(status, 0)
        drafters = ["--lookup", "--drafter a/heads", "--drafter a/heads --lookup"]
        self.assertEqual(self.calls(), ["--max-tokens 7"] + [
            f"{drafter} {shape} --max-tokens 7" for drafter in drafters
            for shape in ("--draft 1x4", "--draft 3x2 --draft-nodes 5")])
        lines = table.splitlines()
        self.assertEqual(len(lines), 2 + 7)
        self.assertEqual(lines[2], "| off |  |  |  | 1.000 |  |  |  | 100.0 | 1.00 | yes |")
        self.assertEqual(lines[-1], "| heads + lookup | 3x2/5 |  |  | 1.500 | 0.50 0.25 | 6.0 | "
                                    "60% | 400.0 | 4.00 | yes |")

    def test_noise_matters_to_drafters_at_temperatures_above_zero(self):
        self.compare("--drafter", "d", "--lookup", "--temperature", "0", "--temperature", "0.7",
                     "--draft-noise", "shared", "--draft-noise", "none")
        greedy = [f"--temperature 0{drafter} --draft 4x4" for drafter in
                  (" --lookup", " --drafter d", " --drafter d --lookup")]
        sampled = [f"--temperature 0.7{drafter} --draft 4x4" for drafter in
                   (" --lookup", " --drafter d --draft-noise shared",
                    " --drafter d --draft-noise none", " --drafter d --lookup --draft-noise shared",
                    " --drafter d --lookup --draft-noise none")]
        self.assertEqual(self.calls(),
                         ["--temperature 0", *greedy, "--temperature 0.7", *sampled])

    def test_rounds_take_turns(self):
        path = self.scratch / "figures.json"
        self.compare("--lookup", "--rounds", "2", "--json", str(path))
        self.assertEqual(self.calls(), ["", "--lookup --draft 4x4"] * 2)
        off, lookup = json.loads(path.read_text())
        self.assertEqual((off["drafter"], off["speed_against_off"]), ("off", 1))
        self.assertEqual(lookup, {
            "drafter": "lookup", "shape": "4x4", "temperature": "", "noise": "", "checksum": "TNone",
            "tokens_per_step": 2, "tokens_per_second": 500, "acceptance_by_depth": [0.5, 0.25],
            "rows_per_tree": 16, "saved_rows": 120 / 280, "speed_against_off": 5, "equal": True})

    def test_other_answers_are_a_failure(self):
        status, table, errors = self.compare("--drafter", "good", "--drafter", "spoilt")
        self.assertEqual(status, 1)
        self.assertTrue(table.splitlines()[3].endswith("| yes |"))
        self.assertTrue(table.splitlines()[4].endswith("| NO |"))
        self.assertIn("spoilt 4x4: other answers than without a drafter", errors)

    def test_a_run_that_fails_is_named_with_what_it_said(self):
        status, table, errors = self.compare("--drafter", "missing")
        self.assertEqual((status, table), (1, ""))
        self.assertIn("missing 4x4: exit status 1\npaceline: missing/config.json", errors)

    def test_what_makes_no_sense_is_refused(self):
        for words, message in ((["--draft", "4x4"], "nothing to compare"),
                               (["--lookup", "--rounds", "0"], "--rounds"),
                               (["--lookup", "--temperature", "hot"], "--temperature"),
                               (["--lookup", "--draft-noise", "loud"], "--draft-noise")):
            errors = io.StringIO()
            with self.assertRaises(SystemExit) as refused, contextlib.redirect_stderr(errors):
                compare_drafters.main(["--model", "m", "--input", "i", *words])
            self.assertEqual(refused.exception.code, 2)
            self.assertIn(message, errors.getvalue())


def load_tests(loader, tests, pattern):
    tests.addTests(doctest.DocTestSuite(compare_drafters))
    return tests


if __name__ == "__main__":
    unittest.main()
