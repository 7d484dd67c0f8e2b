"""Commands that install and measure peers."""

import os
import pathlib
import subprocess
import sys

from . import Refused


def run(words, what, **variables):
    """Standard output of a command; raises Refused with the end of its messages if it fails."""
    words = [str(word) for word in words]
    done = subprocess.run(words, env={**os.environ, **variables}, text=True, check=False,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
    if done.returncode != 0:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise Refused(f"{what} failed with status {done.returncode}: {' '.join(words)}\n{tail}")
    return done.stdout


def note(text):
    """A line for the user on standard error."""
    print(f"bench_peers: {text}", file=sys.stderr, flush=True)


def environment(cache, name, requirements):
    """The Python of a virtual environment that holds the requirements, made once per set."""
    folder = pathlib.Path(cache) / f"venv-{name}"
    python = folder / "bin" / "python"
    done = folder / "requirements.txt"
    wanted = "\n".join(requirements) + "\n"
    if done.exists() and done.read_text(encoding="utf-8") == wanted:
        return python
    note(f"installing {', '.join(requirements)} into {folder}")
    run([sys.executable, "-m", "venv", "--clear", folder], f"making {folder}")
    run([python, "-m", "pip", "install", "--quiet", *requirements], f"installing {name}")
    done.write_text(wanted, encoding="utf-8")
    return python
