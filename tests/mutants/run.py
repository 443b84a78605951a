#!/usr/bin/python3
"""Plants bugs, one at a time, and says which test finds each.

    run.py [NAME...]    of the table's bugs all, or those named; in a copy of the tree under build/mutants
    run.py --check      whether every entry of the table still applies, and has a row in docs/mutants.md; takes no compiler

A test that no bug can fail proves nothing. The table (bugs.txt, which says how it is written) holds mistakes that somebody
could make, and the tests that must find them. A survivor is a missing test.

Exit code: 0 when all of the chosen bugs but MAY_SURVIVE of the whole table are found; 1 when more survive, an entry does not
apply or does not compile, or a test fails on the sound tree."""

import argparse
import fcntl
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TABLE, PAGE = HERE / "bugs.txt", ROOT / "docs" / "mutants.md"
MAY_SURVIVE = 2  # of the whole table
LEAST_S, FACTOR = 60, 10  # a test hangs when it takes so many times as long as on the sound tree, and so many seconds


class Bug:
    def __init__(self, name):
        self.name, self.file, self.breaks, self.tests, self.hunks = name, None, None, [], []

    def add_line(self, line):
        if line.startswith("@@") or not self.hunks:
            self.hunks.append(([], []))
        old, new = self.hunks[-1]
        if line[0] in "- ":
            old.append(line[1:])
        if line[0] in "+ ":
            new.append(line[1:])

    def plant(self, text):
        """The text with the bug in it. Raises ValueError."""
        for old, new in (("\n".join(lines) for lines in hunk) for hunk in self.hunks):
            n = text.count(old)
            if n != 1 or old == new:
                raise ValueError(f"{self.file}: found {n} times, must be once: {old.strip()}")
            text = text.replace(old, new)
        return text

    def check(self, root):
        """What is wrong with the entry, or None."""
        if not (self.file and self.breaks and self.tests and self.hunks):
            return "file, breaks, tests and a change are needed"
        for test in self.tests:
            if not list(root.glob(f"tests/*/{target_of(test)}.c")):
                return f"there is no test {target_of(test)}"
        try:
            self.plant((root / self.file).read_text())
        except (OSError, ValueError) as e:
            return str(e)
        return None


def read_table(path):
    bugs = []
    for number, line in enumerate(path.read_text().split("\n"), 1):
        field = re.fullmatch(r"(file|breaks|tests) +(.*)", line)
        if line.startswith("[") and line.endswith("]"):
            bugs.append(Bug(line[1:-1]))
        elif bugs and field and field[1] == "tests":
            bugs[-1].tests.append(field[2])
        elif bugs and field:
            setattr(bugs[-1], field[1], field[2])
        elif bugs and line[:1] in ("-", "+", " ", "@") and line:
            bugs[-1].add_line(line)
        elif line and not line.startswith("#"):
            sys.exit(f"{path}:{number}: not understood: {line}")
    return bugs


def target_of(test):
    return test.split()[-1]


# ---------------------------------------------------------------------------------------------------------------- the copy
def copy_tree(to):
    """What is not there, or differs, is written; so a second run builds little."""
    listed = subprocess.run(["git", "ls-files", "-zco", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True)
    wanted = {name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()}
    for name in wanted:
        source, copy = ROOT / name, to / name
        if not copy.is_file() or copy.read_bytes() != source.read_bytes():
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.read_bytes())
            copy.chmod(source.stat().st_mode)
    for path in to.rglob("*"):
        name = str(path.relative_to(to))
        if path.is_file() and not name.startswith("build") and name not in wanted:
            path.unlink()


def build(tree, tests, jobs):
    """The output of a build that failed, or None."""
    command = ["ninja", "-C", "build/release", "-j", str(jobs), *sorted({f"bin/{target_of(t)}" for t in tests})]
    done = subprocess.run(command, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return None if done.returncode == 0 else done.stdout


def run_test(tree, test, limit_s=None):
    """How the test failed, or None."""
    *settings, target = test.split()
    with tempfile.TemporaryDirectory() as folder:  # a test that is killed leaves its own there
        env = os.environ | {"UCX_MEM_EVENTS": "n", "UCX_NET_DEVICES": "lo", "TMPDIR": folder} | dict(s.split("=", 1) for s in settings)
        try:
            done = subprocess.run([tree / "build/release/bin" / target], cwd=tree, env=env, timeout=limit_s, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace")
        except subprocess.TimeoutExpired:
            return "does not end"
    if done.returncode == 0:
        return None
    failed = re.search(r"^\[  FAILED  \] (?:\S+: )?([a-z]\w+)", done.stdout, re.M)
    running = re.findall(r"^\[ RUN      \] (\w+)", done.stdout, re.M)
    how = "" if done.returncode > 0 else f"ends by signal {-done.returncode} in "
    return how + (failed[1] if failed else running[-1] if running else f"exit code {done.returncode}")


# ------------------------------------------------------------------------------------------------------------------- a run
def try_bug(tree, bug, took_s, jobs):
    """(found, by what); found is None when that cannot be told."""
    path = tree / bug.file
    sound = path.read_text()
    path.write_text(bug.plant(sound))
    try:
        trouble = build(tree, bug.tests, jobs)
        if trouble is not None:
            return None, "does not compile: " + next((s for s in trouble.splitlines() if "error:" in s), trouble[-300:])
        for test in bug.tests:
            how = run_test(tree, test, max(LEAST_S, FACTOR * took_s[test]))
            if how is not None:
                return True, f"{target_of(test)}: {how}"
        return False, "by none of " + ", ".join(target_of(t) for t in bug.tests)
    finally:
        path.write_text(sound)


def check(bugs, page):
    """Whether all entries apply, and are those of the page (None: there is none)."""
    wrong = [(b.name, b.check(ROOT)) for b in bugs]
    wrong = [f"{name}: {what}" for name, what in wrong if what is not None]
    names = sorted(b.name for b in bugs)
    rows = names
    if page is not None:
        rows = re.findall(r"^\| `([a-z-]+)` \|", page.read_text().split("## The bugs")[-1], re.M)
    wrong += [f"{name}: stands twice" for name in {n for n in names if names.count(n) > 1}]
    wrong += [f"{name}: in the table or in {page.name}, not in both" for name in sorted(set(rows) ^ set(names))]
    for what in wrong:
        print(what, file=sys.stderr)
    return not wrong


def run_sound(tree, bugs, jobs):
    """How many seconds each test takes without a bug. Ends the program where one fails."""
    took_s = {}
    tests = sorted({t for b in bugs for t in b.tests})
    trouble = build(tree, tests, jobs)
    if trouble is not None:
        sys.exit(f"the sound tree does not build:\n{trouble[-2000:]}")
    for test in tests:
        begin = time.monotonic()
        how = run_test(tree, test)
        took_s[test] = time.monotonic() - begin
        if how is not None:
            sys.exit(f"on the sound tree {test} fails: {how}")
    return took_s


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--table", type=pathlib.Path, default=TABLE)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    bugs = read_table(args.table)

    if not check(bugs, PAGE if args.table == TABLE else None):
        return 1
    if args.check:
        print(f"{len(bugs)} entries apply")
        return 0
    unknown = set(args.names) - {b.name for b in bugs}
    if unknown:
        sys.exit(f"not in the table: {', '.join(sorted(unknown))}")
    chosen = [b for b in bugs if not args.names or b.name in args.names]
    tree = ROOT / "build" / "mutants"
    tree.mkdir(parents=True, exist_ok=True)
    lock = open(tree / "build.lock", "w")  # held to the end
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"{tree} is used by another run")
    copy_tree(tree)
    subprocess.run(["tools/configure.sh", "release"], cwd=tree, check=True)
    took_s = run_sound(tree, chosen, args.jobs)
    results = []
    for bug in chosen:
        begin = time.monotonic()
        found, how = try_bug(tree, bug, took_s, args.jobs)
        word = "NO BUILD" if found is None else "found" if found else "SURVIVED"
        results.append((bug, found, f"{word:8}  {bug.name:38} {how}"))
        print(f"{results[-1][2]}  ({time.monotonic() - begin:.0f} s)", flush=True)
    print("\n" + "\n".join(line for _, _, line in results))
    n_found = sum(found is True for _, found, _ in results)
    print(f"{n_found} of {len(chosen)} planted bugs are found")
    broken = any(found is None for _, found, _ in results)
    return 0 if not broken and len(chosen) - n_found <= (0 if args.names else MAY_SURVIVE) else 1


if __name__ == "__main__":
    sys.exit(main())
