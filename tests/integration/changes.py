"""Packs and sets change in one coordinator while it serves, by the command line: streams that are pinned to the base give the tokens that
they gave alone, whatever happens to the default set; and what was changed gives what a server gives that has it from the start.

Run by ctest: changes.py CONCLAVE COORDINATOR REPOSITORY"""
import json
import os
import sys
import threading
import unittest

from coordinator import Coordinator
from pack_case import PackCase, run

CONCLAVE, COORDINATOR, ROOT = sys.argv[1:4]
MODEL = os.path.join(ROOT, "tests", "vectors", "olmoe-gqa")
IDS = ",".join(str((7 * i) % 60) for i in range(1, 25))
CYCLES, STREAMS = 3, 3


class Changes(PackCase):
    def make(self, out, *args):
        path = os.path.join(self.folder, out)
        done = run("/usr/bin/python3", "-B", os.path.join(ROOT, "tools", "make_pack.py"), "random", path, "--model", MODEL, "--conclave",
                   CONCLAVE, *args)
        self.assertEqual(done.returncode, 0, done.stderr)
        return path

    def broken(self):
        """A pack whose manifest is no JSON."""
        path = self.make("broken")
        with open(os.path.join(path, "pack.json"), "w", encoding="utf-8") as f:
            f.write("{")
        return path

    def serve(self, *args):
        server = Coordinator(COORDINATOR, MODEL, "--dtype", "f32", "--threads", "1", "--cache-dir", "", *args)
        self.addCleanup(server.stop)
        return server

    def ask(self, *args, code=0):
        done = run(CONCLAVE, *args[:1], "--server", self.server.address, *args[1:])
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stdout if code == 0 else done.stderr

    def change(self, *args):
        """The result of a change."""
        return json.loads(self.ask(*args, "--json", "--why", "a test", "--by", "tester").splitlines()[-1])["result"]

    def score(self, server, *args):
        done = run(CONCLAVE, "score", "--server", server.address, "--tokens", IDS, "--experts", "--json", *args)
        self.assertEqual(done.returncode, 0, done.stderr)
        reply = json.loads(done.stdout.splitlines()[-1])
        return json.dumps(reply["tokens"]), reply["set_id"]

    def stream(self, *args):
        done = run(CONCLAVE, "generate", "--server", self.server.address, "--tokens", IDS, "--max-tokens", "48", "--ignore-eos", "--seed", "3",
                   "--json", *args)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [t for line in done.stdout.splitlines() for t in json.loads(line).get("token_ids", [])]

    def test_pinned_streams_do_not_notice(self):
        german, better = self.make("german", "--experts", "2", "--name", "german"), self.make("better", "--experts", "1", "--seed", "5", "--name", "german",
                                                                                              "--version", "2")
        with_german, with_better = (self.score(self.serve("--pack", p))[0] for p in (german, better))
        self.server = self.serve("--pack-dir", self.folder)
        base, base_id = self.score(self.server)
        alone, going, wrong = self.stream("--set", "base"), threading.Event(), []
        self.assertEqual(len(alone), 48)

        def pinned():
            while not going.is_set():
                if self.stream("--set", "base") != alone:
                    wrong.append("another token")

        threads = [threading.Thread(target=pinned) for _ in range(STREAMS)]
        for t in threads:
            t.start()
        try:
            for cycle in range(CYCLES):
                added = self.change("packs", "add", german if cycle == 0 else "german@" + json.loads(self.ask("packs", "--json"))["packs"][0]["version"])
                self.assertEqual(added["set_before"], base_id)
                self.assertEqual(self.score(self.server), (with_german, added["set_after"]))
                self.assertEqual(self.score(self.server, "--set-exclude", "german"), (base, base_id))
                self.change("packs", "update", "german", better if cycle == 0 else "german@2")
                if cycle == 0:
                    self.assertNotEqual(self.score(self.server)[0], with_german)
                pruned = self.change("experts", "prune", "0:1,1:0-1")
                self.assertEqual([l["ids"] for l in pruned["removed"]], [[1], [0, 1]])
                self.assertEqual(self.score(self.server)[1], pruned["set_after"])
                self.change("experts", "restore", "--all")
                self.change("sets", "define", "plain", "--exclude", "german") if cycle == 0 else None
                self.assertEqual(self.change("sets", "use", "plain")["set_after"], base_id)
                self.assertEqual(self.score(self.server), (base, base_id))
                self.change("packs", "rollback")
                self.assertEqual(self.change("packs", "remove", "german")["set_after"], base_id)
                self.assertEqual(self.score(self.server), (base, base_id))
        finally:
            going.set()
            for t in threads:
                t.join()
        self.assertEqual(wrong, [])
        self.assertNotEqual(with_better, base)
        log = json.loads(self.ask("sets", "log", "--json"))["entries"]
        self.assertEqual({(e["who"], e["why"]) for e in log}, {("tester", "a test")})
        self.assertFalse([e for e in log if e.get("undone")])

    def test_a_pack_that_replaces_and_what_cannot_be(self):
        pack, other = self.make("fix", "--kind", "replace", "--experts", "1", "--name", "fix"), self.make("new", "--experts", "2", "--name", "new")
        with_fix = self.score(self.serve("--pack", pack))[0]
        self.server = self.serve("--pack-dir", self.folder)
        base = self.score(self.server)
        self.assertIn("would be", self.ask("packs", "add", pack, "--dry-run"))
        self.assertEqual(self.score(self.server), base)
        self.assertEqual(self.change("packs", "add", pack)["what"].split()[:2], ["add", "fix"])
        self.assertEqual(self.score(self.server)[0], with_fix)
        with open(os.path.join(other, "model.safetensors"), "r+b") as f:
            f.seek(-1, os.SEEK_END)
            f.write(b"\x55")
        for words, says in ((("packs", "add", other), "SHA-256"), (("packs", "add", other), "INVALID_ARGUMENT: pack"), (("packs", "add", self.broken()), "INVALID_ARGUMENT: pack"),
                            (("packs", "add", "nobody"), "nobody"), (("packs", "add", "/etc/"), "--pack-dir"), (("packs", "add", self.folder + "/../x"), "--pack-dir"), (("packs", "add", "fix"), "nothing would change"),
                            (("packs", "remove", "new"), "new"), (("packs", "update", "fix", other), "SHA-256"),
                            (("experts", "prune", "0:0-99"), "expert"), (("sets", "use", "nobody"), "nobody")):
            self.assertIn(says, self.ask(*words, code=1), words)
        for words in (("packs", "dance"), ("packs", "add"), ("experts", "prune"), ("experts", "prune", "0:1", "--below", "1%"), ("experts", "prune", "0-1"),
                      ("experts", "restore"), ("sets", "diff", "base")):
            self.ask(*words, code=2)
        self.assertEqual(self.score(self.server)[0], with_fix)
        self.assertEqual(len(json.loads(self.ask("sets", "log", "--json"))["entries"]), 1)
        for by, names in (("pack", {"base", "fix"}), ("layer", {"0", "1"}), ("set", {"default"})):
            told = json.loads(self.ask("experts", "stats", "--by", by, "--json"))
            self.assertEqual({g["name"] for g in told["groups"]}, names)
            if by != "set":
                self.assertAlmostEqual(sum(g["share"] for g in told["groups"]), 1, 6)
        self.change("packs", "remove", "fix")
        self.assertEqual(self.score(self.server), base)
        pruned = self.change("experts", "prune", "--below", "99.9%", "--keep-at-least", "3", "--pack", "base")
        self.assertEqual({len(l["ids"]) for l in pruned["removed"]}, {5})
        self.change("experts", "restore", "--all")
        self.assertEqual(self.score(self.server), base)
        for words, says in ((("packs",), "fix 1"), (("sets",), "default"), (("sets", "list", "base"), "layer 0: experts 0-"), (("sets", "log"), "remove fix"),
                            (("sets", "diff", "base", "default"), "the same"), (("experts", "stats", "--all"), "base"), (("experts",), "epoch")):
            self.assertIn(says, self.ask(*words), words)

    def profile(self, *lines):
        path = os.path.join(self.folder, "profile.jsonl")
        with open(path, "w", encoding="utf-8") as f:
            f.write("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
        return path

    def used(self, lines):
        """Of each layer: the rows of each expert that has any, and the mean log-probability."""
        rows, logprobs = {}, []
        for line in lines:
            done = run(CONCLAVE, "score", "--server", self.server.address, "--tokens", ",".join(map(str, line["token_ids"])), "--experts", "--json")
            for token in json.loads(done.stdout)["tokens"]:
                logprobs += [token["logprob"]] if "logprob" in token else []
                for layer in token["experts"]:
                    for i in layer["ids"]:
                        rows.setdefault(layer["layer"], {}).setdefault(i, 0)
                        rows[layer["layer"]][i] += 1
        return rows, sum(logprobs) / len(logprobs)

    def test_experts_that_a_file_does_not_need_are_pruned(self):
        self.server = self.serve()
        lines = [{"token_ids": [1, 2, 3], "note": ["not ours"]}, {"token_ids": [9, 9, 4, 1]}]
        path = self.profile(lines[0], "", lines[1], " ")
        base, (rows, before) = self.score(self.server), self.used(lines)
        n = json.loads(self.ask("model", "--json"))["n_experts"]
        unused = {l: [i for i in range(n[l]) if i not in rows[l]] for l in range(len(n))}
        self.assertTrue(any(unused.values()))
        plan = [json.loads(line) for line in self.ask("experts", "prune", "--profile", path, "--dry-run", "--json").splitlines()]
        self.assertEqual({l["layer"]: l["ids"] for l in plan[0]["result"]["removed"]}, {l: ids for l, ids in unused.items() if ids})
        self.assertTrue(plan[0]["result"]["dry_run"])
        told = plan[1]["profile"]
        self.assertEqual((told["texts"], told["tokens"], len(plan)), (2, 5, 2))
        self.assertAlmostEqual(told["mean_logprob_before"], before, 6)
        self.assertEqual(self.score(self.server), base)
        self.assertNotIn("entries", {k: v for k, v in json.loads(self.ask("sets", "log", "--json")).items() if v})
        said = self.ask("experts", "prune", "--profile", path, "--below", "20%", "--keep-at-least", "3", "--why", "a test").splitlines()
        kept = [json.loads(self.ask("model", "--json"))["n_experts"][l] for l in range(len(n))]
        self.assertTrue(any(f"layer {l}: {n[l]} -> {kept[l]} experts, without expert" in line for l in range(len(n)) for line in said), said)
        self.assertTrue(min(kept) >= 3 and sum(kept) < sum(n))
        mean = next(line for line in said if line.startswith("5 tokens of 2 texts: mean log-probability"))
        was, is_ = (float(x.strip(",")) for x in (mean.split()[7], mean.split()[9]))
        self.assertAlmostEqual(was, before, 5)
        self.assertAlmostEqual(is_, self.used(lines)[1], 5)  # what was told before is what it is now
        self.assertIn("prune ", said[next(i for i, line in enumerate(said) if line == mean) + 1])
        self.assertEqual([(e["what"].split()[0], e["why"]) for e in json.loads(self.ask("sets", "log", "--json"))["entries"]], [("prune", "a test")])

    def test_a_file_that_is_no_profile_is_refused(self):
        self.server = self.serve()
        good = {"token_ids": [1, 2]}
        for lines, says in (([good, "{"], "line 2: "), ([good, {}], "line 2: must have either text or token_ids"), ([good, [1]], "line 2: must be an object"),
                            ([{"text": "a", "token_ids": [1]}], "line 1: must have either"), ([{"token_ids": ["1"]}], "line 1: token_ids[0]: is no whole number"),
                            ([{"token_ids": {}}], "line 1: token_ids: is no list"), ([], "no text of two tokens"), ([{"token_ids": [1]}], "no text of two tokens")):
            self.assertIn(says, self.ask("experts", "prune", "--profile", self.profile(*lines), code=2))
        self.assertIn("line 2: INVALID_ARGUMENT", self.ask("experts", "prune", "--profile", self.profile(good, {"token_ids": [1 << 30]}), code=1))
        self.ask("experts", "prune", "0:1", "--profile", self.profile(good), code=2)
        self.assertIn("absent.jsonl", self.ask("experts", "prune", "--profile", os.path.join(self.folder, "absent.jsonl"), code=1))

    def test_unused_experts_go_and_come_back(self):
        pack = self.make("german", "--experts", "2", "--name", "german")
        with_german = self.score(self.serve("--pack", pack))[0]
        self.server = self.serve("--keep-unused-ms", "0", "--pack-dir", self.folder)
        held = lambda: json.loads(self.ask("nodes", "--json"))["nodes"][0]["n_experts"]
        first = held()
        for _ in range(3):
            self.change("packs", "add", pack)
            self.assertGreater(held(), first)
            self.assertEqual(self.score(self.server)[0], with_german)
            self.change("packs", "remove", "german")
            for _ in range(200):
                if held() == first:
                    break
            self.assertEqual(held(), first)
            self.assertIn("need not be loaded", run(CONCLAVE, "score", "--server", self.server.address, "--tokens", IDS, "--set-include", "german").stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[4:])
