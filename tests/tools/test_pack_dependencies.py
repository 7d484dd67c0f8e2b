"""Tests of tools/pack_dependencies.py: what goes into the archive, and that it can stand anywhere."""

import contextlib
import doctest
import io
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))

import pack_dependencies as pack  # noqa: E402


class Archive(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name).resolve()

    def packed(self):
        """An archive of a header, a pkg-config file and a link to a library."""
        (self.folder / "x.h").write_text("int x;\n", encoding="utf-8")
        (self.folder / "x.pc").write_text("prefix=/usr\n", encoding="utf-8")
        packing = pack.Packing()
        packing.add("include/x.h", self.folder / "x.h")
        packing.add("lib/x86_64-linux-gnu/pkgconfig/x.pc", self.folder / "x.pc")
        packing.links["lib/libx.so"] = "lib/x86_64-linux-gnu/libx.so.1"
        archive = self.folder / "kept" / "packed.tar.xz"
        packing.write(archive)
        return archive

    def test_unpacks_to_where_it_is_wanted(self):
        archive = self.packed()
        unpacked = self.folder / "unpacked"
        pack.unpack(archive, unpacked)
        self.assertEqual((unpacked / "include" / "x.h").read_text(encoding="utf-8"), "int x;\n")
        self.assertEqual((unpacked / "lib" / "libx.so").readlink(),
                         pathlib.Path("x86_64-linux-gnu/libx.so.1"))
        text = (unpacked / "lib/x86_64-linux-gnu/pkgconfig/x.pc").read_text(encoding="utf-8")
        self.assertEqual(text, "prefix=${pcfiledir}/../../..\n")

    def test_unpacks_once_for_each_archive(self):
        archive = self.packed()
        unpacked = self.folder / "unpacked"
        pack.unpack(archive, unpacked)
        header = unpacked / "include" / "x.h"
        header.unlink()
        pack.unpack(archive, unpacked)
        self.assertFalse(header.exists())
        archive.touch()
        pack.unpack(archive, unpacked)
        self.assertTrue(header.exists())

    def test_the_same_files_give_the_same_archive(self):
        first = self.packed().read_bytes()
        self.assertEqual(first, self.packed().read_bytes())

    def test_packages_that_are_not_installed_are_named(self):
        errors = io.StringIO()
        with mock.patch.object(pack, "PACKAGES", ["no-such-package-dev"]), \
                contextlib.redirect_stderr(errors):
            self.assertEqual(pack.main(["--output", str(self.folder / "packed.tar.xz")]), 1)
        self.assertIn("no-such-package-dev", errors.getvalue())
        self.assertIn("tools/install_packages", errors.getvalue())


class Environment(unittest.TestCase):
    def test_what_is_set_already_comes_behind(self):
        used = pack.environment(pathlib.Path("/x"), {"LD_LIBRARY_PATH": "/own", "HOME": "/h"})
        self.assertEqual(used["LD_LIBRARY_PATH"],
                         "/x/lib/x86_64-linux-gnu:/x/lib/x86_64-linux-gnu/pmix2/lib:/own")
        self.assertEqual(used["HOME"], "/h")


def load_tests(loader, tests, pattern):
    tests.addTests(doctest.DocTestSuite(pack))
    return tests


if __name__ == "__main__":
    unittest.main()
