"""Tests of what `run` decides and writes: python3 -m unittest discover -s tests/gpu"""

import doctest
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import benchmark  # noqa: E402
import device_tests  # noqa: E402
import job  # noqa: E402
import machine  # noqa: E402
import report  # noqa: E402


def load_run():
    """The script as a module."""
    path = pathlib.Path(__file__).resolve().parent / "run"
    loader = importlib.machinery.SourceFileLoader("run", str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("run", loader))
    loader.exec_module(module)
    return module


class Scratch(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)
        self.job = job.Job(self.folder, self.folder / "logs", os.environ)


class Reports(Scratch):
    def setUp(self):
        super().setUp()
        self.seconds = 0.0
        self.path = self.folder / "new" / "report.json"
        self.report = report.Report(self.path, "abc", True,
                                    report.Budget(100, now=lambda: self.seconds))

    def suite(self, seconds, outcome):
        def run(limit):
            self.seconds += min(seconds, limit)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        return run

    def written(self):
        return json.loads(self.path.read_text(encoding="utf-8"))

    def test_every_suite_is_written_when_it_ends(self):
        self.report.run("machine", 10, self.suite(2, {"gpus": []}))
        first = self.written()
        self.assertEqual((first["schema"], first["commit"], first["quick"]), (1, "abc", True))
        self.assertEqual([suite["name"] for suite in first["suites"]], ["machine"])
        self.report.run("build", 10, self.suite(3, report.Failed("no compiler", {"objects": 4})))
        self.report.run("tests", 10, self.suite(0, report.Skipped("it was not built")))
        self.assertEqual([(suite["status"], suite["reason"], suite["figures"], suite["seconds"])
                          for suite in self.written()["suites"]],
                         [("passed", "", {"gpus": []}, 2), ("failed", "no compiler", {"objects": 4}, 3),
                          ("skipped", "it was not built", {}, 0)])

    def test_an_error_in_a_suite_is_its_failure(self):
        outcome = self.report.run("bench", 10, self.suite(1, KeyError("tests")))
        self.assertEqual((outcome.status, outcome.reason), ("failed", "KeyError: 'tests'"))

    def test_what_has_no_time_left_is_said(self):
        self.report.run("build", 97, self.suite(97, {}))
        outcome = self.report.run("bench", 50, self.suite(1, {}))
        self.assertEqual((outcome.status, outcome.reason), ("skipped", "no time left"))
        self.assertEqual(self.written()["skipped"], 1)


class Jobs(Scratch):
    def test_a_log_holds_the_command_and_what_it_said(self):
        status, text = self.job.run("a/b", ["sh", "-c", "echo out; echo err >&2; exit 3"], 10)
        self.assertEqual(status, 3)
        self.assertEqual(text.splitlines()[1:], ["out", "err"])
        self.assertEqual((self.folder / "logs" / "a" / "b.log").read_text(encoding="utf-8"), text)

    def test_what_a_command_started_ends_with_its_time(self):
        # setsid: in a session of its own, as mpirun's ranks are.
        status, text = self.job.run("slow", ["sh", "-c", "setsid sleep 60 & echo $!; wait"], 0.5)
        self.assertIsNone(status)
        sleeper = pathlib.Path("/proc") / text.split()[-1]
        for _ in range(100):
            if not sleeper.exists() or " Z " in (sleeper / "stat").read_text():
                return
            time.sleep(0.05)
        self.fail("it still sleeps")

    def test_a_failure_shows_the_end_of_the_log(self):
        with self.assertRaisesRegex(report.Failed, "(?s)build: exit status 1.*what went wrong"):
            self.job.checked("build", ["sh", "-c", "echo what went wrong; false"], 10)
        with self.assertRaisesRegex(report.Failed, "no-such-program cannot be run"):
            self.job.run("none", ["no-such-program"], 10)


class DeviceTests(Scratch):
    # Two groups of tests; the second one's process dies in a test.
    PROGRAM = """#!/bin/sh
case "$1" in
  --gtest_list_tests) printf 'A.\\n  x\\n  y\\nP/B.\\n  z/0  # GetParam() = 1\\n  z/1\\n' ;;
  '--gtest_filter=A.*') printf '[ RUN      ] A.x\\n[       OK ] A.x (0 ms)\\n' ;;
  '--gtest_filter=P/B.*') printf '[ RUN      ] P/B.z/0\\n[       OK ] P/B.z/0, where x (0 ms)\\n'
    printf '[ RUN      ] P/B.z/1\\n'; exit 134 ;;
esac
"""

    def program(self, text):
        path = self.folder / "device_tests"
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path

    def test_a_group_that_dies_leaves_the_others_results(self):
        with self.assertRaises(report.Failed) as raised:
            device_tests.run_groups(self.job, self.program(self.PROGRAM), 30)
        figures = raised.exception.figures
        self.assertEqual((figures["tests_passed"], figures["tests_failed"]), (2, ["P/B.z/1"]))
        self.assertEqual([(entry["group"], entry["status"])
                          for entry in figures["groups_ended_badly"]], [("P/B", 134)])

    def test_all_that_pass_pass(self):
        text = self.PROGRAM.replace("exit 134", "printf '[       OK ] P/B.z/1 (0 ms)\\n'")
        figures = device_tests.run_groups(self.job, self.program(text), 30)
        self.assertEqual((figures["tests_passed"], figures["groups"]), (3, 2))

    def test_a_gpu_that_the_program_cannot_use_is_a_failure(self):
        program = self.program("#!/bin/sh\necho 'skipped: there is no GPU'\nexit 77\n")
        with self.assertRaisesRegex(report.Failed, "there is no GPU"):
            device_tests.run_groups(self.job, program, 30)

    def test_the_sanitizers_small_tests_are_some_that_exist(self):
        sources = pathlib.Path(__file__).resolve().parents[1] / "kernels" / "cuda"
        text = "".join(path.read_text(encoding="utf-8") for path in sources.glob("*_test.cc"))
        for pattern in ":".join(device_tests.SMALL.values()).split(":"):
            group, _, test = pattern.strip("*").partition(".")
            self.assertRegex(text, rf"TEST(_[FP])?\({group}, {test.strip('*')}", pattern)


class Machine(Scratch):
    def test_without_nvidia_smi_there_is_no_gpu(self):
        self.job.variables["PATH"] = str(self.folder)
        with self.assertRaisesRegex(report.Skipped, "no GPU"):
            machine.find_gpus(self.job, 10)

    def test_the_query_is_read_and_the_rest_logged(self):
        program = self.folder / "nvidia-smi"
        program.write_text("#!/bin/sh\ncase \"$1\" in\n -q) echo everything ;;\n *) echo "
                           "'NVIDIA H200, 580.1, 9.0, 143771, 1980, 3201, 700.00, GPU-1' ;;\nesac\n",
                           encoding="utf-8")
        program.chmod(0o755)
        self.job.variables["PATH"] = f"{self.folder}:{os.environ['PATH']}"
        gpus = machine.find_gpus(self.job, 10)
        self.assertEqual((gpus[0]["name"], gpus[0]["clocks.max.sm"]), ("NVIDIA H200", 1980))
        self.assertEqual(machine.architectures(gpus), "90")
        log = (self.folder / "logs" / "machine" / "nvidia-smi.log").read_text(encoding="utf-8")
        self.assertIn("everything", log)


class Benchmark(unittest.TestCase):
    @staticmethod
    def bench(draft="off", decode=100.0):
        return {"name": "pp8+tg64 @ c1", "draft": draft, "decode_tokens_per_s": {"mean": decode},
                "prefill_tokens_per_s": {"mean": 1.0}, "bandwidth_share": 0.8,
                "tokens_per_step": {"mean": 1.0}, "ranks": [{"read_bytes_per_s": 4e12}],
                **{f"{part}_ms": {"mean": 1.0}
                   for part in ("agree", "plan", "draft", "forward", "select", "accept")}}

    def figures(self, tests, cost=(), simulated=None):
        return benchmark.figures_of({
            "tests": tests, "simulated_tokens_per_step": simulated,
            "step_cost": [{"rows": rows, "step_ms": {"median": ms}} for rows, ms in cost],
            "settings": [{"numerics_id": "cuda", "backend": "H200", "weight_bytes": 1,
                          "load_seconds": 2, "threads": 1}]})

    def test_the_ratios_that_are_asked_for(self):
        figures = self.figures([self.bench(), self.bench("5x5", 290.0)], [(1, 2.0), (32, 2.2)], 3.5)
        self.assertAlmostEqual(figures["speed_up_simulated"], 2.9)
        self.assertAlmostEqual(figures["step_of_32_rows_over_one"], 1.1)
        self.assertEqual(figures["tests"][0]["read_gb_per_s"], 4000)
        self.assertIsNone(figures["tests"][0]["weight_gb_per_s"])

    def test_no_ratio_without_its_parts(self):
        figures = self.figures([self.bench()])
        self.assertNotIn("speed_up_simulated", figures)
        self.assertNotIn("step_of_32_rows_over_one", figures)

    def test_only_what_tensor_cores_attend_is_measured_without_them(self):
        folder = pathlib.Path("logs")
        for quick in (False, True):
            int4 = benchmark.commands("paceline", folder, "int4", folder, quick)
            bf16 = benchmark.commands("paceline", folder, "bf16", folder, quick)
            self.assertNotIn("long-fp32", int4)
            self.assertEqual(bf16["long-fp32"], [*bf16["long"][:-1], folder / "long-fp32.json",
                                                 "--attention", "fp32"])

    def test_only_what_cublaslt_multiplies_is_measured_with_it(self):
        folder = pathlib.Path("logs")
        plain = benchmark.commands("paceline", folder, "int4", folder, True)
        both = benchmark.commands("paceline", folder, "bf16", folder, True)
        self.assertNotIn("fast", plain)
        self.assertEqual(both["fast"], [*both["plain"][:-1], folder / "fast.json",
                                        "--numerics", "fast"])

    def test_every_model_can_be_made(self):
        tools = pathlib.Path(__file__).resolve().parents[2] / "tools"
        sys.path.insert(0, str(tools))
        import make_synthetic_model as synthetic
        sizes = {"U8": 1, "I8": 1, "F16": 2, "BF16": 2, "F32": 4}
        for model in benchmark.FULL:
            tensors = synthetic.model_tensors(synthetic.SHAPES[model.shape], model.weights)
            size = 0
            for _, dtype, shape, _ in tensors:
                count = sizes[dtype]
                for dimension in shape:
                    count *= dimension
                size += count
            self.assertLess(size / 1e9, model.gigabytes)
            self.assertGreater(size / 1e9, 0.8 * model.gigabytes)


def load_tests(loader, tests, pattern):
    for module in (report, job, machine, device_tests, load_run()):
        tests.addTests(doctest.DocTestSuite(module))
    return tests


if __name__ == "__main__":
    unittest.main()
