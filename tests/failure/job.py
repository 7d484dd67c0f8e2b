"""One run of paceline under mpirun (or alone), watched from outside through /proc."""

import os
import re
import signal
import subprocess
import time
import uuid
from pathlib import Path

MARK = "PACELINE_FAILURE_TEST"
GONE_WITHIN = 10.0  # seconds that a job may take to disappear after a failure
DONE_WITHIN = 300.0  # a generous deadline for a run that should end by itself

DIED = re.compile(r"^paceline: rank (\d+) on (\S+) died in (\w+)$")
CHECKSUM = re.compile(r"^checksum\s+([0-9a-f]{64})$", re.MULTILINE)
REQUESTS = re.compile(
    r"^requests\s+(\d+) answered, (\d+) failed, (\d+) from an earlier run, of (\d+)$", re.MULTILINE
)


class Failure(Exception):
    """What a case found wrong."""


def expect(condition, message, job=None):
    """Fails the case unless `condition`; with a job, shows what that wrote."""
    if condition:
        return
    raise Failure(f"{message}\n{job.account()}" if job is not None else message)


def _read(path):
    try:
        return Path(path).read_bytes()
    except OSError:  # the process is gone, or not ours
        return b""


class Job:
    """A started run. `ranks` 0: without mpirun. Standard output and error go to files, so that
    nothing here can fill a pipe; the environment carries a mark by which every process that
    belongs to the run is found, whoever its parent is by then."""

    def __init__(self, paceline, arguments, ranks, directory, programs=None):
        """`programs`: instead of `arguments`, one argument list for each rank."""
        directory = Path(directory)
        self.mark = uuid.uuid4().hex
        self.ranks = max(ranks, 1)
        self._stdout_path = directory / f"{self.mark}.out"
        self._stderr_path = directory / f"{self.mark}.err"
        # Open MPI's own files go where the suite cleans up, even after kill -9 of mpirun.
        environment = dict(
            os.environ,
            TMPDIR=str(directory),
            OMPI_ALLOW_RUN_AS_ROOT="1",
            OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
        )
        environment[MARK] = self.mark
        if ranks == 0:
            command = [str(paceline), *arguments]
        else:
            command = ["mpirun", "--oversubscribe"]
            command += ["--mca", "btl_vader_backing_directory", str(directory)]
            if programs is None:
                command += ["-n", str(ranks), str(paceline), *arguments]
            for rank, own in enumerate(programs or []):
                command += [":"] if rank > 0 else []
                command += ["-n", "1", str(paceline), *own]
        self.command = [str(word) for word in command]
        with open(self._stdout_path, "wb") as out, open(self._stderr_path, "wb") as err:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
                start_new_session=True,
            )
        self.pid = self._process.pid  # mpirun's, or the only rank's

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in self.processes():
            self.send(signal.SIGKILL, pid)
        self._process.wait()

    def stdout(self):
        return _read(self._stdout_path).decode("utf-8", "replace")

    def stderr(self):
        return _read(self._stderr_path).decode("utf-8", "replace")

    def account(self):
        """What the run was and said, for a failure's message."""
        tail = "\n".join("    | " + line for line in self.stderr().splitlines()[-30:])
        return f"    $ {' '.join(self.command)}\n{tail}"

    def ended(self):
        """The started process is over; its children may not be."""
        return self._process.poll() is not None

    def exit_code(self):
        """As the shell has it."""
        code = self._process.returncode
        return 128 - code if code < 0 else code

    def processes(self):
        """Process ids that carry the mark. A zombie has no environment and does not count."""
        self._process.poll()
        mark = f"{MARK}={self.mark}".encode()
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and mark in _read(f"/proc/{entry}/environ").split(b"\0"):
                found.append(int(entry))
        return found

    def rank_pid(self, rank):
        """Waits until that rank's process is there; None if the run ended before."""
        if "mpirun" not in self.command[0]:
            return self.pid
        own = f"OMPI_COMM_WORLD_RANK={rank}".encode()

        def find():
            for pid in self.processes():
                if own in _read(f"/proc/{pid}/environ").split(b"\0"):
                    return pid
            return None

        return self.wait_until(find)

    def wait_until(self, condition, deadline=DONE_WITHIN, pause=0.002):
        """Polls; the condition's value once it is true, None if the run ended before."""
        end = time.monotonic() + deadline
        while True:
            ended = self.ended()
            value = condition()
            if value:
                return value
            if ended:
                return None
            expect(time.monotonic() < end, f"nothing came of {deadline:.0f} s of waiting", self)
            time.sleep(pause)

    def wait_for_loading(self):
        """Until rank 0 says that it loads; None if the run ended before."""
        return self.wait_until(lambda: re.search(r"^loading .*\n", self.stderr(), re.MULTILINE))

    def send(self, number, pid):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass

    def wait_done(self, deadline=DONE_WITHIN):
        """Until the started process is over. Returns its exit code."""
        try:
            self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            expect(False, f"still running after {deadline:.0f} s", self)
        return self.exit_code()

    def wait_gone_by_itself(self):
        """For a run that should end because of what it meets: first that, then as wait_gone."""
        self.wait_until(self.ended)
        return self.wait_gone()

    def wait_gone(self):
        """Until no process is left, within GONE_WITHIN. Returns the exit code."""
        end = time.monotonic() + GONE_WITHIN
        while left := self.processes():
            names = [_read(f"/proc/{pid}/comm").decode().strip() for pid in left]
            expect(time.monotonic() < end, f"after {GONE_WITHIN} s are left: {names}", self)
            time.sleep(0.02)
        return self.wait_done(1.0)

    def complaints(self):
        """Paceline's own lines on standard error (mpirun adds some of its own)."""
        return [line for line in self.stderr().splitlines() if "paceline:" in line]

    def checksum(self):
        found = CHECKSUM.search(self.stderr())
        return found.group(1) if found else None

    def request_counts(self):
        """(answered, failed, from an earlier run, all) of the summary."""
        found = REQUESTS.search(self.stderr())
        expect(found, "no summary", self)
        return tuple(int(number) for number in found.groups())
