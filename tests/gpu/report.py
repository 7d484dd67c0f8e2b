"""What `run` found out, as one JSON file that is written anew after every suite."""

import dataclasses
import datetime
import json
import os
import pathlib
import time

SCHEMA = 1


class Failed(Exception):
    """A suite found something wrong; `figures` is what it found out until then."""

    def __init__(self, reason, figures=None):
        super().__init__(reason)
        self.figures = figures or {}


class Skipped(Exception):
    """A suite cannot run here, or has no time left."""


@dataclasses.dataclass
class Outcome:
    """How a suite ended."""

    name: str
    status: str  # passed, failed, skipped
    seconds: float
    limit_seconds: float
    reason: str
    figures: dict


class Budget:
    """The time of the whole run, dealt out to its suites."""

    def __init__(self, seconds, now=time.monotonic):
        self.now = now
        self.end = now() + seconds

    def left(self):
        return self.end - self.now()

    def limit(self, seconds):
        """What a suite that asks for so many seconds may have: no more than is left.

        >>> budget = Budget(100, now=lambda: 0)
        >>> budget.limit(30), budget.limit(130)
        (30, 100)
        """
        return min(seconds, self.left())


class Report:
    """The outcomes so far, kept in a file from the first one on."""

    LEAST_SECONDS = 5  # with less there is no use in starting a suite

    def __init__(self, path, commit, quick, budget):
        self.path = pathlib.Path(path)
        self.budget = budget
        self.outcomes = []
        self.head = {"schema": SCHEMA, "commit": commit,
                     "date": datetime.datetime.now(datetime.timezone.utc).isoformat("T", "seconds"),
                     "quick": quick, "device": None}

    def run(self, name, seconds, suite):
        """Runs suite(limit in seconds), which returns its figures, and keeps how it ended."""
        begin = self.budget.now()
        limit = self.budget.limit(seconds)
        status, reason, figures = "passed", "", {}
        try:
            if limit < self.LEAST_SECONDS:
                raise Skipped("no time left")
            figures = suite(limit)
        except Failed as failure:
            status, reason, figures = "failed", str(failure), failure.figures
        except Skipped as skipped:
            status, reason = "skipped", str(skipped)
        except Exception as error:  # whatever it is, the other suites still run
            status, reason = "failed", f"{type(error).__name__}: {error}"
        outcome = Outcome(name, status, round(self.budget.now() - begin, 1), round(limit, 1),
                          reason, figures)
        self.outcomes.append(outcome)
        self.write()
        return outcome

    def document(self):
        """The whole report."""
        return {**self.head, "passed": self.count("passed"), "failed": self.count("failed"),
                "skipped": self.count("skipped"),
                "suites": [dataclasses.asdict(outcome) for outcome in self.outcomes]}

    def count(self, status):
        return sum(outcome.status == status for outcome in self.outcomes)

    def write(self):
        """Whole or not at all, so that whoever ends the run finds a report."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_name(self.path.name + ".writing")
        scratch.write_text(json.dumps(self.document(), indent=1) + "\n", encoding="utf-8")
        os.replace(scratch, self.path)
