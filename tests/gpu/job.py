"""Commands of `run`: each has a log of its own and a time limit, and leaves no process behind."""

import os
import pathlib
import shlex
import signal
import subprocess
import time

from report import Failed

TAIL = 15  # lines of a log that go into the report


def tail(text, lines=TAIL):
    """The last lines of a text.

    >>> tail("a\\nb\\nc\\n", 2)
    'b\\nc'
    """
    return "\n".join(text.rstrip().splitlines()[-lines:])


def descendants(process_id):
    """Ids of a process and of all that it started, by way of others too, in whatever session."""
    children = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # After the name, in brackets: the state and the parent.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has ended
            children.setdefault(parent, []).append(int(entry.name))
    found = [process_id]
    for one in found:
        found += children.get(one, [])
    return found


def end(process):
    """Ends a command and all that it started, first gently: mpirun cleans up behind its ranks."""
    for number, patience in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        for one in descendants(process.pid):
            try:
                os.kill(one, number)
            except ProcessLookupError:
                pass
        try:
            process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            pass


class Job:
    """Where commands run and write."""

    def __init__(self, repository, logs, variables):
        self.repository = pathlib.Path(repository)
        self.logs = pathlib.Path(logs)
        self.variables = dict(variables)

    def run(self, name, words, seconds):
        """(exit status, None if the time was up; the log's text). The log is `name`.log."""
        path = self.logs / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        words = [str(word) for word in words]
        with open(path, "w", encoding="utf-8") as log:
            log.write(f"$ {shlex.join(words)}\n")
            log.flush()
            try:
                with subprocess.Popen(words, cwd=self.repository, env=self.variables, stdout=log,
                                      stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                      start_new_session=True) as process:
                    try:
                        status = process.wait(timeout=max(0, seconds))
                    except subprocess.TimeoutExpired:
                        status = None
                        end(process)
                    except BaseException:
                        end(process)
                        raise
            except OSError as error:
                raise Failed(f"{words[0]} cannot be run: {error}") from None
        return status, path.read_text(encoding="utf-8", errors="replace")

    def checked(self, name, words, seconds):
        """The log of a command that has to succeed."""
        begin = time.monotonic()
        status, text = self.run(name, words, seconds)
        if status is None:
            raise Failed(f"{name}: not done after {time.monotonic() - begin:.0f} s\n{tail(text)}")
        if status != 0:
            raise Failed(f"{name}: exit status {status}\n{tail(text)}")
        return text
