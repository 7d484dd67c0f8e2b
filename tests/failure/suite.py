"""What all cases share: the program, a directory, undisturbed runs, the tally of kill points."""

import collections
import concurrent.futures
import random
import threading
import time
import traceback
from pathlib import Path

from answers import Reference
from job import Failure, Job, expect


class Suite:
    def __init__(self, paceline, models, directory, seed, full, real_model):
        self.paceline = paceline
        self.models = Path(models)  # of tests/data
        self.full = full
        self.real_model = real_model  # None: no kill points with a real one
        self.seed = seed
        self.phases = collections.Counter()  # of every kill point, as the job named it
        self.passed = self.failed = 0
        self._root = Path(directory)
        self._count = 0
        self._lock = threading.Lock()

    def directory(self):
        """A fresh one."""
        with self._lock:
            self._count += 1
            path = self._root / str(self._count)
        path.mkdir()
        return path

    def count_kill(self, phase):
        with self._lock:
            self.phases[phase] += 1

    def rng(self, name):
        """Random choices that depend on the case alone, so that --only repeats them."""
        return random.Random(f"{self.seed} {name}")

    def generate(self, model, source, output, *more, ranks=0):
        """Starts `paceline generate`."""
        directory = Path(source).parent
        return Job(self.paceline, self.words(model, source, output, *more), ranks, directory)

    def words(self, model, source, output, *more):
        """The command line behind the program's name. One thread unless told otherwise, as ranks
        share few cores."""
        words = ["generate", "--model", model, "--input", source, "--output", output, *more]
        return words if "--threads" in more else [*words, "--threads", "1"]

    def reference(self, model, source, *more, ranks=0):
        """The answers of an undisturbed run."""
        output = Path(source).parent / "undisturbed.jsonl"
        with self.generate(model, source, output, *more, ranks=ranks) as job:
            code = job.wait_done()
            expect(code == 0, f"exit code {code} of an undisturbed run", job)
            expect(job.checksum() is not None, "no checksum in the summary", job)
            return Reference(output, job.checksum())

    def resume(self, reference, model, source, output, *more, ranks=0):
        """Resumes to the end and compares with the undisturbed run."""
        with self.generate(model, source, output, "--resume", *more, ranks=ranks) as job:
            before = reference.check_partial(output)
            code = job.wait_done()
            expect(code == 0, f"exit code {code} of a resumed run", job)
            expect(not job.complaints(), "complaints of a resumed run", job)
            reference.check_complete(output)
            expect(job.checksum() == reference.checksum, "another checksum than undisturbed", job)
            answered, failed, resumed, requests = job.request_counts()
            expect(resumed == before, f"{before} lines were there, the summary says {resumed}", job)
            expect(answered + failed + resumed == requests, "the summary does not add up", job)

    def run(self, cases, jobs):
        """Runs cases, `jobs` at a time: most of their time they wait for mpirun."""
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            list(pool.map(self._run_case, cases))

    def _run_case(self, function):
        begin = time.monotonic()
        wrong = None
        try:
            function(self)
        except Failure as failure:
            wrong = str(failure)
        except Exception:  # pylint: disable=broad-except  # of the suite itself
            wrong = traceback.format_exc()
        seconds = time.monotonic() - begin
        with self._lock:
            self.passed += wrong is None
            self.failed += wrong is not None
            text = "passed " if wrong is None else "FAILED "
            detail = "" if wrong is None else f": {wrong}"
            print(f"{text} {function.__name__} ({seconds:.1f} s){detail}", flush=True)
