"""What all cases share: the program, a directory, undisturbed runs, the tally of kill points."""

import collections
import random
import re
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

    def directory(self):
        """A fresh one."""
        self._count += 1
        path = self._root / str(self._count)
        path.mkdir()
        return path

    def rng(self, name):
        """Random choices that depend on the case alone, so that --only repeats them."""
        return random.Random(f"{self.seed} {name}")

    def generate(self, model, source, output, *more, ranks=0):
        """Starts `paceline generate`."""
        directory = Path(source).parent
        return Job(self.paceline, self.words(model, source, output, *more), ranks, directory)

    def words(self, model, source, output, *more):
        """The command line behind the program's name. One thread, as ranks share few cores."""
        words = ["generate", "--model", model, "--input", source, "--output", output]
        return [*words, "--threads", "1", *more]

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

    def run(self, cases, only):
        for function in cases:
            name = function.__name__
            if only and not re.search(only, name):
                continue
            begin = time.monotonic()
            wrong = None
            try:
                function(self)
            except Failure as failure:
                wrong = str(failure)
            except Exception:  # pylint: disable=broad-except  # of the suite itself
                wrong = traceback.format_exc()
            seconds = time.monotonic() - begin
            if wrong is None:
                self.passed += 1
                print(f"passed  {name} ({seconds:.1f} s)", flush=True)
            else:
                self.failed += 1
                print(f"FAILED  {name} ({seconds:.1f} s): {wrong}", flush=True)
