"""tools/configure.sh goes on when the tree is somewhere else than where it was configured.

Usage: configure.py SOURCE_DIR [unittest arguments]
"""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

SCRIPT = os.path.join(sys.argv[1], "tools", "configure.sh")
WAIT_S = 120
CMAKE_LISTS = "cmake_minimum_required(VERSION 3.25)\nproject(small LANGUAGES NONE)\n"
PRESETS = '{"version": 6, "configurePresets": [{"name": "release", "generator": "Unix Makefiles", "binaryDir": "${sourceDir}/build/release"}]}'


class MovedTree(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.old, self.new = (os.path.join(folder.name, name) for name in ("old", "new"))
        os.makedirs(os.path.join(self.old, "tools"))
        shutil.copy(SCRIPT, os.path.join(self.old, "tools"))
        for name, text in (("CMakeLists.txt", CMAKE_LISTS), ("CMakePresets.json", PRESETS)):
            with open(os.path.join(self.old, name), "w", encoding="utf-8") as file:
                file.write(text)

    def configure(self, tree, *args):
        done = subprocess.run([os.path.join(tree, "tools", "configure.sh"), "release", *args], capture_output=True, encoding="utf-8", timeout=WAIT_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stderr

    def test_a_tree_that_was_moved_is_configured_again_and_says_so(self):
        self.assertEqual(self.configure(self.old), "")
        os.rename(self.old, self.new)
        self.assertIn(f"was made for {self.old}: configuring it again", self.configure(self.new))
        self.assertEqual(self.configure(self.new), "")

    def test_a_link_to_the_tree_is_the_same_tree(self):
        self.configure(self.old)
        os.symlink(self.old, self.new)
        self.assertEqual(self.configure(self.new), "")

    def test_what_cmake_says_is_shown_when_it_fails(self):
        with open(os.path.join(self.old, "CMakeLists.txt"), "a", encoding="utf-8") as file:
            file.write('message(FATAL_ERROR "no compiler for you")\n')
        done = subprocess.run([os.path.join(self.old, "tools", "configure.sh"), "release"], capture_output=True, encoding="utf-8", timeout=WAIT_S)
        self.assertEqual(done.returncode, 1)
        self.assertIn("no compiler for you", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
