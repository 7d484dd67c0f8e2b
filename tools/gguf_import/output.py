"""The model directory as a whole: it is there complete, or not at all.

An import is written into a hidden directory beside the output and renamed at the end. The record
`paceline_import.json`, written last, says what the import was made from, so that a second run can
skip it and so that nothing but an earlier import is ever replaced.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil

from . import Refused

RECORD = "paceline_import.json"

# Part of the record: raise it when the importer's output for the same input changes.
IMPORTER_VERSION = 1


def write_json(path, value):
    """Writes `value` as indented UTF-8 JSON with a final newline."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")


def read_record(output):
    """The record of the import in `output`; None if there is no such directory or it is empty.

    Raises Refused if `output` holds anything that an import did not write.
    """
    output = pathlib.Path(output)
    if not output.exists():
        return None
    if not output.is_dir():
        raise Refused(f"--output: {output} is not a directory")
    present = {entry.name for entry in output.iterdir()}
    if not present:
        return None
    try:
        record = json.loads((output / RECORD).read_text(encoding="utf-8"))
        written = set(record["files"]) | {RECORD}
    except (OSError, ValueError, KeyError, TypeError):
        raise Refused(f"--output: {output} is not empty and is not an earlier import "
                      f"(no readable {RECORD} in it)") from None
    if foreign := sorted(present - written):
        raise Refused(f"--output: {output} holds '{foreign[0]}', which the import did not write; "
                      "move it away or choose another directory")
    return record


def is_up_to_date(output, record, sha256, weights):
    """Whether `output` holds, complete, what an import of these options would write."""
    if record is None or sha256 is None:
        return False
    wanted = {"importer_version": IMPORTER_VERSION, "source_sha256": sha256, "weights": weights}
    if any(record.get(key) != value for key, value in wanted.items()):
        return False
    sizes = {name: path.stat().st_size for name in record["files"]
             if (path := pathlib.Path(output) / name).is_file()}
    return sizes == record["files"]


@contextlib.contextmanager
def new_directory(output):
    """Gives a scratch directory that becomes `output` when the block ends without an exception.

    One import at a time may write an output: the scratch directory is locked, and what a killed
    import left in it is removed first.
    """
    output = pathlib.Path(output).resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = output.parent / f".{output.name}.importing"
    scratch.mkdir(exist_ok=True)
    lock = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"--output: another import into {output} is running") from None
        _clear(scratch)
        try:
            yield scratch
            _replace(scratch, output)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    finally:
        os.close(lock)


def write_record(directory, source, sha256, weights):
    """Writes the record of a finished import, with the size of each of its files."""
    files = {path.name: path.stat().st_size for path in sorted(directory.iterdir())}
    write_json(directory / RECORD, {
        "importer_version": IMPORTER_VERSION,
        "source": source,
        "source_sha256": sha256,
        "weights": weights,
        "files": files,
    })


def _clear(directory):
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _replace(scratch, output):
    replaced = output.parent / f".{output.name}.replaced"
    shutil.rmtree(replaced, ignore_errors=True)
    if output.exists():
        output.rename(replaced)
    scratch.rename(output)
    shutil.rmtree(replaced, ignore_errors=True)
