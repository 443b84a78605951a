"""What run.py takes for an entry that applies: one that plants nothing would be found by nobody, and one that does not build by
everybody."""
import os
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import run  # noqa: E402

ENTRY = """# A comment.
[bug]
file    router/plan.c
breaks  Nothing.
tests   SEED=1 test_plan
tests   test_more
-one = 1
+one = 2
@@
     int two;
+    int three;
"""


class Table(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = pathlib.Path(self.folder.name)
        for name in ("test_plan", "test_more"):
            self.put(f"tests/unit/{name}.c", "")
        self.put("router/plan.c", "int one = 1;\n    int two;\n")

    def put(self, name, text):
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def read(self, text=ENTRY):
        self.put("bugs.txt", text)
        (bug,) = run.read_table(self.root / "bugs.txt")
        return bug

    def test_an_entry_is_planted(self):
        bug = self.read()
        self.assertIsNone(bug.check(self.root))
        self.assertEqual(bug.tests, ["SEED=1 test_plan", "test_more"])
        self.assertEqual(bug.plant("int one = 1;\n    int two;\n"), "int one = 2;\n    int two;\n    int three;\n")

    def test_a_test_that_is_killed_leaves_nothing_behind(self):
        left = self.root / "tmp"
        left.mkdir()
        self.put("build/release/bin/test_plan", "#!/bin/sh\nmktemp -d >/dev/null\nexec sleep 60\n")
        (self.root / "build/release/bin/test_plan").chmod(0o755)
        with mock.patch.dict(os.environ, TMPDIR=str(left)), mock.patch.object(tempfile, "tempdir", str(left)):
            self.assertEqual(run.run_test(self.root, "test_plan", 0.5), "does not end")
        self.assertEqual(list(left.iterdir()), [])

    def test_what_has_changed_is_noticed(self):
        self.put("router/plan.c", "int one = 1;\n")
        self.assertIn("found 0 times", self.read().check(self.root))

    def test_what_stands_twice_is_noticed(self):
        self.put("router/plan.c", "int one = 1;\n    int two;\nint another_one = 1;\n")
        self.assertIn("found 2 times", self.read().check(self.root))

    def test_a_change_that_changes_nothing_is_noticed(self):
        self.assertIn("must be once", self.read(ENTRY.replace("one = 2", "one = 1")).check(self.root))

    def test_a_test_that_is_not_there_is_noticed(self):
        self.assertIn("test_lost", self.read(ENTRY.replace("test_more", "test_lost")).check(self.root))

    def test_an_entry_without_a_test_is_noticed(self):
        self.assertIn("tests", self.read(ENTRY.replace("tests ", "# ")).check(self.root))


if __name__ == "__main__":
    unittest.main()
