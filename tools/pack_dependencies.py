#!/usr/bin/env python3
"""Packs what building and running Paceline takes beyond a compiler, CMake and CUDA into one archive,
for a machine on which nothing can be installed.

    tools/pack_dependencies.py            # on Debian 12, after tools/install_packages --tests
    tests/gpu/run                         # there, with the working tree and .dependencies/

The archive holds headers, libraries, Open MPI's mpirun with its plugins, and pkg-config, as they are
in /usr; glibc and the compiler's own libraries stay out, so it runs on machines whose glibc is not older
than Debian 12's. It can be unpacked anywhere: nothing in it names /usr. `unpack` and `environment` are
what tests/gpu/run uses it with.
"""

import argparse
import io
import os
import pathlib
import re
import subprocess
import sys
import tarfile

PROJECT = pathlib.Path(__file__).resolve().parent.parent
ARCHIVE = PROJECT / ".dependencies" / "debian-12.tar.xz"

LIBRARIES = "lib/x86_64-linux-gnu"
# Their headers, links to libraries, CMake and pkg-config files. Boost is the emulator's only.
PACKAGES = ["libfmt-dev", "nlohmann-json3-dev", "libcli11-dev", "libpcre2-dev", "libutf8proc-dev",
            "libhwloc-dev", "libhwy-dev", "libdnnl-dev", "libssl-dev", "libgtest-dev",
            "libgmock-dev", "libopenmpi-dev", "openmpi-common", "libopenmpi3", "libpmix2"]
PROGRAMS = ["mpirun", "mpiexec", "orted", "mpicxx", "pkg-config"]

WANTED = re.compile(r"(.*/)?include/|.*\.so(\.[0-9.]+)?$|share/(cmake|openmpi|pkgconfig)/"
                    r"|.*/(cmake|pkgconfig|pmix)/|.*/lib(gtest|gmock)(_main)?\.a$")
# Other languages' bindings, libraries and tools that nothing here uses.
UNWANTED = re.compile(r".*(fortran|java|mpif|[op]shmem|include/shmem|ompitrace|pcre2-(16|32|posix)|hwy_(contrib|test)"
                      r"|libssl|monitoring|mca_common_(ucx|ofi|verbs)|\.mod$|\.la$|share/doc/|share/man/)")
# A machine that compiles has these.
SYSTEMS_OWN = re.compile(r"(ld-linux.*|linux-vdso|lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s|gomp|atomic|z))"
                         r"\.so.*")
# Plugins of Open MPI for networks that ranks of one machine do not need.
NETWORKS = re.compile(r"lib(ucp|uct|ucs|fabric|psm2|psm_infinipath|ibverbs|rdmacm|efa|oshmem"
                      r"|mca_common_(ucx|ofi|verbs|monitoring))\.so.*")


class Refused(Exception):
    """What is missing, and where it comes from."""


def wanted(path):
    """Whether a package's file, relative to /usr, is packed.

    >>> [wanted(path) for path in ("include/fmt/core.h", "lib/x/openmpi/include/mpi.h",
    ...                            "lib/x86_64-linux-gnu/libfmt.so")]
    [True, True, True]
    >>> wanted("lib/x86_64-linux-gnu/fortran/gfortran-mod-15/openmpi/mpi.h")
    False
    >>> [wanted(f"lib/openmpi3/mca_{name}.so") for name in ("shmem_mmap", "memheap_buddy")]
    [True, True]
    >>> [wanted(path) for path in ("lib/x86_64-linux-gnu/libcrypto.a", "share/man/man3/fmt.3")]
    [False, False]
    """
    return bool(WANTED.match(path)) and not UNWANTED.match(path)


def place_of(path):
    """Where a package's file goes: one folder of headers, as elsewhere compilers look into no other.

    >>> place_of("include/x86_64-linux-gnu/hwloc/autogen/config.h")
    'include/hwloc/autogen/config.h'
    """
    return path.replace("include/x86_64-linux-gnu/", "include/", 1)


def needed_libraries(output):
    """{name: path} of what `ldd` printed, without the system's own.

    >>> needed_libraries('''\\tlinux-vdso.so.1 (0x7)
    ... \\tlibfmt.so.9 => /lib/x86_64-linux-gnu/libfmt.so.9 (0x7)
    ... \\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7)''')
    {'libfmt.so.9': '/lib/x86_64-linux-gnu/libfmt.so.9'}
    """
    found = {}
    for name, path in re.findall(r"^\s*(\S+) => (/\S+)", output, re.MULTILINE):
        if not SYSTEMS_OWN.fullmatch(name):
            found[name] = path
    return found


def relocated(text):
    """A pkg-config file whose prefix follows from where it stands.

    >>> relocated("prefix=/usr\\nlibdir=${prefix}/lib/x86_64-linux-gnu\\n").splitlines()[0]
    'prefix=${pcfiledir}/../../..'
    """
    return re.sub(r"^prefix=/usr$", "prefix=${pcfiledir}/../../..", text, flags=re.MULTILINE)


def package_files():
    """Paths relative to /usr of what the packages hold and is wanted."""
    listed = subprocess.run(["dpkg", "-L", *PACKAGES], text=True, capture_output=True, check=False)
    if listed.returncode != 0:
        raise Refused(f"{listed.stderr.strip()}\nrun tools/install_packages --tests first")
    paths = (line.removeprefix("/usr/") for line in listed.stdout.splitlines()
             if line.startswith("/usr/"))
    return sorted({path for path in paths if not os.path.isdir(f"/usr/{path}") and wanted(path)})


def is_elf(path):
    """Whether a file is a program or library."""
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def soname_of(path):
    """The name by which programs ask for a library; None if it has none."""
    printed = subprocess.run(["objdump", "-p", path], text=True, capture_output=True, check=True)
    found = re.search(r"^\s*SONAME\s+(\S+)", printed.stdout, re.MULTILINE)
    return found.group(1) if found else None


class Packing:
    """What goes into the archive: files, and links to them, by their place in it."""

    def __init__(self):
        self.files = {}  # place: file
        self.links = {}  # place: the place it leads to

    def add(self, place, path):
        """A file with the libraries that it needs; a link leads straight to its file. A library is
        also there under the name by which programs ask for it."""
        if place in self.files or place in self.links:
            return
        real = os.path.realpath(path)
        if os.path.islink(path) and real.startswith("/usr/lib/"):
            self.links[place] = real.removeprefix("/usr/")
            self.add(self.links[place], real)
            return
        if is_elf(real):
            printed = subprocess.run(["ldd", real], text=True, capture_output=True, check=True)
            libraries = needed_libraries(printed.stdout)
            if "openmpi3/" in place and any(NETWORKS.fullmatch(name) for name in libraries):
                return
            for needed in libraries.values():
                folder, name = os.path.split(needed)
                self.add(f"{os.path.realpath(folder)}/{name}".removeprefix("/usr/"), needed)
            soname = soname_of(real)
            if soname and soname != os.path.basename(place):
                self.links[f"{os.path.dirname(place)}/{soname}"] = place
        self.files[place] = real

    def write(self, archive):
        """Writes a .tar.xz that depends on the files alone."""
        archive.parent.mkdir(parents=True, exist_ok=True)
        scratch = archive.with_suffix(".writing")
        with tarfile.open(scratch, "w:xz", preset=6) as tar:
            for place in sorted(self.files | self.links):
                entry = tarfile.TarInfo(place)
                entry.mode = 0o755
                if place in self.links:
                    entry.type = tarfile.SYMTYPE
                    entry.linkname = os.path.relpath(self.links[place], os.path.dirname(place))
                    tar.addfile(entry)
                    continue
                data = pathlib.Path(self.files[place]).read_bytes()
                if place.endswith(".pc"):
                    data = relocated(data.decode()).encode()
                entry.size = len(data)
                entry.mtime = int(os.stat(self.files[place]).st_mtime)
                with io.BytesIO(data) as file:
                    tar.addfile(entry, file)
        scratch.rename(archive)


def unpack(archive, folder):
    """Unpacks the archive unless `folder` holds this very one already."""
    stamp = folder / "unpacked"
    stat = archive.stat()
    text = f"{stat.st_size} {stat.st_mtime_ns}\n"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == text:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "r:xz") as tar:
        tar.extractall(folder)
    stamp.write_text(text, encoding="utf-8")


def environment(folder, variables):
    """`variables` with what makes CMake, pkg-config, Open MPI and the loader use `folder` first.

    >>> from pathlib import Path
    >>> used = environment(Path("/x"), {"PATH": "/bin"})
    >>> used["PATH"], used["OPAL_PREFIX"], used["CMAKE_PREFIX_PATH"]
    ('/x/bin:/bin', '/x', '/x')
    """
    libraries = folder / LIBRARIES
    first = {"PATH": [folder / "bin"],
             "CMAKE_PREFIX_PATH": [folder],
             "PKG_CONFIG_PATH": [libraries / "pkgconfig", folder / "share" / "pkgconfig"],
             "LD_LIBRARY_PATH": [libraries, libraries / "pmix2" / "lib"]}
    pmix = libraries / "pmix2"  # its own prefix is not all that counts for it
    used = dict(variables, OPAL_PREFIX=str(folder), PMIX_PREFIX=str(pmix),
                PMIX_PKGLIBDIR=str(pmix / "lib" / "pmix"),
                PMIX_PKGDATADIR=str(pmix / "share" / "pmix"),
                PKG_CONFIG=str(folder / "bin" / "pkg-config"))
    for name, paths in first.items():
        used[name] = ":".join([*map(str, paths), *filter(None, [variables.get(name)])])
    return used


def main(arguments=None):
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--output", type=pathlib.Path, default=ARCHIVE, metavar="FILE",
                        help="the archive to write (default: .dependencies/debian-12.tar.xz)")
    options = parser.parse_args(arguments)
    try:
        packing = Packing()
        for path in package_files():
            packing.add(place_of(path), f"/usr/{path}")
        for name in PROGRAMS:
            packing.add(f"bin/{name}", f"/usr/bin/{name}")
        packing.write(options.output)
    except (Refused, OSError, tarfile.TarError, subprocess.CalledProcessError) as error:
        print(f"pack_dependencies: {error}", file=sys.stderr)
        return 1
    size = options.output.stat().st_size / 2**20
    print(f"{options.output}: {len(packing.files)} files, {size:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
