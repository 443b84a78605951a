"""What the three programs have in common on the command line: names of variables, exit codes, help.

Usage: cli_options.py CONCLAVE COORDINATOR NODE SOURCE_DIR [unittest arguments]
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

CONCLAVE, COORDINATOR, NODE, SOURCE_DIR = sys.argv[1:5]
WAIT_S = 60


def run(argv, **variables):
    env = {**{k: v for k, v in os.environ.items() if not k.startswith("CONCLAVE_")}, **variables}
    return subprocess.run(argv, capture_output=True, encoding="utf-8", timeout=WAIT_S, env=env)


def commands():
    """A row of the list is two blanks, a name, its summary."""
    names = re.findall(r"^  ([a-z]+) ", run([CONCLAVE, "--help"]).stdout, re.MULTILINE)
    return [name for name in names if name not in ("help", "version")]


def options(argv):
    done = run([*argv, "--print-config"])
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout)) - {"_origin"}


def known_names():
    with open(os.path.join(SOURCE_DIR, "base", "option_names.c"), encoding="utf-8") as file:
        table = re.search(r"names\[\] = \{(.*?)\};", file.read(), re.DOTALL).group(1)
    return re.findall(r'"(\w+)"', table)


class Variables(unittest.TestCase):
    """base/option_names.c lists the options of every program, so that each tolerates the variables of the others."""

    @classmethod
    def setUpClass(cls):
        cls.programs = [[COORDINATOR], [NODE]] + [[CONCLAVE, command] for command in commands()]
        cls.options = [options(argv) for argv in cls.programs]

    def test_the_list_is_complete_and_in_order(self):
        listed = known_names()
        self.assertEqual(listed, sorted(set(listed)), "base/option_names.c: in the order of the alphabet, each once")
        self.assertEqual(set(listed), {"config"}.union(*self.options), "base/option_names.c and the tables of options differ")

    def test_an_option_is_one_option(self):
        for argv in self.programs:
            shown = [line.split()[0] for line in run([*argv, "--help"]).stdout.splitlines() if line.startswith("  --")]
            self.assertEqual(sorted(shown), sorted(set(shown)), argv)

    def test_variables_of_tests_and_tools_have_names_of_their_own(self):
        """A program that they start would refuse a CONCLAVE_* variable that is no option."""
        read = re.compile(r'''(?:getenv\(|environ\.get\(|environ\[)["']CONCLAVE_(\w+)|\$[{(]?CONCLAVE_(\w+)''')
        for folder in ("tests", "tools", "bench", "train", "examples", "clients"):
            for parent, _, files in os.walk(os.path.join(SOURCE_DIR, folder)):
                for path in (os.path.join(parent, name) for name in files if name.endswith((".c", ".py", ".sh"))):
                    with open(path, encoding="utf-8") as file:
                        found = {a or b for a, b in read.findall(file.read())}
                    self.assertLessEqual({name.lower() for name in found}, set(known_names()), path)

    def test_every_program_tolerates_the_variables_of_the_others(self):
        all_names = set().union(*self.options)
        for argv, own in zip(self.programs, self.options):
            done = run([*argv, "--print-config"], **{f"CONCLAVE_{name.upper()}": "no value of mine" for name in all_names - own})
            self.assertEqual((done.returncode, done.stderr), (0, ""), argv)

    def test_every_program_refuses_a_variable_that_is_nobodys(self):
        for argv in self.programs:
            done = run(argv, CONCLAVE_KV_MEMROY="1G")
            self.assertEqual(done.returncode, 2, argv)
            self.assertIn("CONCLAVE_KV_MEMROY (environment): no such option; did you mean CONCLAVE_KV_MEMORY?", done.stderr)


class ExitCodes(unittest.TestCase):
    """0 success, 1 failure, 2 the command line or the configuration is refused."""

    def test_what_is_refused_ends_with_two(self):
        with tempfile.TemporaryDirectory() as folder:
            wrong = os.path.join(folder, "wrong.json")
            with open(wrong, "w", encoding="utf-8") as file:
                file.write('{"thread": 1}')
            for argv in ([COORDINATOR], [NODE], [CONCLAVE], [COORDINATOR, "--modle", folder], [NODE, "--modle", folder], [CONCLAVE, "modle"],
                         [CONCLAVE, "model", "--sevrer", "x"], [COORDINATOR, "--config", wrong], [NODE, "--config", wrong],
                         [CONCLAVE, "model", "--config", wrong], [COORDINATOR, "--config", os.path.join(folder, "absent")],
                         [COORDINATOR, "--model", folder, "--threads", "x"], [COORDINATOR, "--model", folder, "--listen", "here"],
                         [COORDINATOR, "--model", folder, "--listen", "0.0.0.0:0"]):
                done = run(argv)
                self.assertEqual(done.returncode, 2, (argv, done.stderr))

    def test_what_may_work_another_time_ends_with_one(self):
        with tempfile.TemporaryDirectory() as folder:
            for argv in ([COORDINATOR, "--model", os.path.join(folder, "absent")], [CONCLAVE, "model", "--server", "127.0.0.1:1"]):
                done = run(argv)
                self.assertEqual(done.returncode, 1, (argv, done.stderr))

    def test_help_and_version_succeed_and_say_the_codes(self):
        for argv in ([COORDINATOR], [NODE], [CONCLAVE], [CONCLAVE, "model"]):
            for flag in ("-h", "--help"):
                done = run([*argv, flag])
                self.assertEqual((done.returncode, done.stderr), (0, ""), argv)
                self.assertIn("Exit code: 0 success; 2 the command line or the configuration is refused; 1 any other failure", done.stdout)
            self.assertEqual(run([*argv, "--version"]).returncode, 0)

    def test_a_full_device_is_a_failure_with_its_reason(self):
        for argv in ([COORDINATOR, "--help"], [NODE, "--print-config"], [CONCLAVE, "help"]):
            with open("/dev/full", "w", encoding="utf-8") as full:
                done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, encoding="utf-8", timeout=WAIT_S)
            self.assertEqual(done.returncode, 1, argv)
            self.assertIn("standard output: No space left on device", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[5:]])
