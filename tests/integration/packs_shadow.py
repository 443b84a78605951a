"""A pack on trial: the default set stays, and answers of the share are scored with the pack too. What is reported is what Score itself says of
the same tokens under both sets. In one process, and for all coordinators of a cluster.

Usage: packs_shadow.py CONCLAVE COORDINATOR NODE VECTORS [unittest arguments]"""
import base64
import json
import math
import os
import shutil
import subprocess
import sys
import unittest

from coordinator import WAIT_S, Coordinator, clean_env, wait_for
from members import Etcd, Process
from pack_case import PackCase, run

CONCLAVE, COORDINATOR, NODE, VECTORS = sys.argv[1:5]
MODEL, PACK = os.path.join(VECTORS, "olmoe-gqa"), os.path.join(VECTORS, "packs", "olmoe-gqa")
PROMPT = [(7 * i) % 60 for i in range(1, 12)]
MASK = (1 << 64) - 1


def is_of_share(request_id, share):
    """coordinator/shadow.c: which requests are scored follows from their ids alone."""
    h = 0xcbf29ce484222325
    for byte in request_id.encode():
        h = (h ^ byte) * 0x100000001b3 & MASK
    h = (h ^ h >> 33) * 0xff51afd7ed558ccd & MASK
    return (h ^ h >> 33) % 10000 < share * 10000


class Shadow(PackCase):
    def ask(self, server, command, *args, code=0):
        done = subprocess.run([CONCLAVE, command, "--server", server.address, "--json", *args], capture_output=True, encoding="utf-8",
                              timeout=WAIT_S, env=clean_env(), check=False)
        self.assertEqual(done.returncode, code, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()] if code == 0 else done.stderr

    def change(self, server, *args):
        return self.ask(server, *args, "--by", "tester")[-1]["result"]

    def generate(self, server, request_id, seed, *args):
        replies = self.ask(server, "generate", "--tokens", ",".join(map(str, PROMPT)), "--max-tokens", "12", "--ignore-eos", "--seed", str(seed),
                           "--request-id", request_id, *args)
        return [t for reply in replies for t in reply.get("token_ids", []) if not reply.get("index")], replies[0]["set_id"]

    def report(self, server):
        [pack] = self.ask(server, "packs")[0]["packs"]
        return pack.get("shadow")

    def compared(self, server, n):
        """What is told once n requests have been dealt with."""
        def look():
            told = self.report(server)
            return told if int(told["requests"]) + int(told["dropped"]) == n else None
        told = wait_for(look)
        self.assertEqual(int(told["dropped"]), 0)
        return told

    def logprobs(self, server, tokens, *args):
        reply = self.ask(server, "score", "--tokens", ",".join(map(str, PROMPT + tokens)), *args)[-1]
        return [t["logprob"] for t in reply["tokens"][len(PROMPT):]]

    def check_report(self, server, told, answers):
        pairs = [(sum(self.logprobs(server, a, "--set", told["set_id"])) - sum(self.logprobs(server, a)), len(a)) for a in answers]
        tokens = sum(n for _, n in pairs)
        mean = sum(d for d, _ in pairs) / tokens
        error = math.sqrt(sum((d - mean * n) ** 2 for d, n in pairs) * len(pairs) / (len(pairs) - 1)) / tokens
        self.assertEqual((int(told["requests"]), int(told["tokens"])), (len(pairs), tokens))
        self.assertNotEqual(mean, 0)
        self.assertAlmostEqual(told["mean_difference"], mean, delta=1e-6)
        self.assertAlmostEqual(told["standard_error"], error, delta=1e-6)

    def test_a_trial_tells_what_score_says(self):
        with Coordinator(COORDINATOR, MODEL, "--threads", "1", "--cache-dir", self.path("cache"), "--pack-dir", VECTORS,
                         "--http", "127.0.0.1:0") as server:
            before = [self.generate(server, f"before-{i}", i) for i in range(4)]
            base = before[0][1]
            self.assertIn('--shadow "x"', self.ask(server, "packs", "add", PACK, "--shadow", "x", code=2))
            self.assertIn("a share of [0, 1]", self.ask(server, "packs", "add", PACK, "--shadow", "101%", code=1))
            planned = self.change(server, "packs", "add", PACK, "--shadow", "100%", "--dry-run")
            self.assertTrue(planned["shadow"] and planned["added"] and planned["set_before"] == base)
            added = self.change(server, "packs", "add", PACK, "--shadow", "100%")
            self.assertEqual(added["set_after"], planned["set_after"])
            # What is answered stays as it was, to the token.
            self.assertEqual([self.generate(server, f"during-{i}", i) for i in range(4)], before)
            told = self.compared(server, 4)
            self.assertEqual((told["share"], told["set_id"], told["by"]), (1, added["set_after"], "tester"))
            self.check_report(server, told, [a for a, _ in before])
            metrics = server.metrics()
            self.assertEqual([metrics[f"conclave_shadow_{name}"] for name in ("requests_total", "tokens_total", "dropped_total")], [4, 48, 0])
            self.assertAlmostEqual(metrics["conclave_shadow_logprob_difference"], told["mean_difference"], delta=1e-6)
            self.assertIn("on trial", subprocess.run([CONCLAVE, "packs", "--server", server.address], capture_output=True, encoding="utf-8",
                                                     env=clean_env(), check=True).stdout)
            # Of other sets there is nothing to compare; of the share those that their ids say.
            self.generate(server, "pinned", 1, "--set", added["set_after"])
            self.change(server, "packs", "add", "olmoe-gqa", "--shadow", "0.5")
            ids = [f"half-{i}" for i in range(12)]
            taken = [i for i in ids if is_of_share(i, 0.5)]
            self.assertTrue(0 < len(taken) < len(ids))
            for i in ids:
                self.generate(server, i, 3)
            self.compared(server, 4 + len(taken))
            # The trial follows the default, and is of that pair of sets from then on.
            self.change(server, "experts", "prune", "0:1")
            self.assertEqual(int(self.report(server)["requests"]), 0)
            self.assertNotEqual(self.report(server)["set_id"], added["set_after"])
            self.change(server, "experts", "restore", "--all")
            sets = self.ask(server, "sets")[0]["sets"]
            self.assertEqual([s["id"] for s in sets if s.get("is_shadow")], [added["set_after"]])
            self.assertEqual(self.change(server, "packs", "promote", "olmoe-gqa")["set_after"], added["set_after"])
            self.assertIsNone(self.report(server))
            self.assertEqual(self.generate(server, "after", 1)[1], added["set_after"])
            self.change(server, "packs", "remove", "olmoe-gqa")
            self.change(server, "packs", "add", "olmoe-gqa", "--shadow", "0%")
            removed = self.change(server, "packs", "remove", "olmoe-gqa")
            self.assertTrue(removed["shadow"] and removed["set_before"] == added["set_after"] and not removed.get("set_after"))
            self.assertIsNone(self.report(server))
            self.assertIn("not on trial", self.ask(server, "packs", "promote", "olmoe-gqa", code=1))
            self.assertNotIn("conclave_shadow_requests_total", server.metrics())
            self.assertEqual(self.generate(server, "last", 0), before[0])

    def made(self):
        """A model that reads text, and a pack for it."""
        model = self.path("model")
        self.tool("make_checkpoint.py", model, "--dtype", "f32")
        return model, self.pack("made", model)

    def pack(self, name, model, *args):
        self.tool("make_pack.py", "random", self.path(name), "--model", model, "--conclave", CONCLAVE, *args)
        return self.path(name)

    def tool(self, name, *args):
        done = run("/usr/bin/python3", "-B", os.path.join(VECTORS, "..", "..", "tools", name), *args)
        self.assertEqual(done.returncode, 0, done.stderr)

    def bits_per_byte(self, server, text, *args):
        tokens = [t for t in self.ask(server, "score", text, *args)[-1]["tokens"] if "logprob" in t]
        return -sum(t["logprob"] for t in tokens) / math.log(2) / sum(len(base64.b64decode(t["token"])) for t in tokens)

    def test_a_text_says_what_a_pack_would_do(self):
        text, file = "one two\nthree é four\n", self.path("text")
        with open(file, "w", encoding="utf-8") as f:
            f.write(text)
        model, pack = self.made()
        with Coordinator(COORDINATOR, model, "--threads", "1", "--cache-dir", self.path("cache"), "--pack-dir", self.folder) as server:
            [told] = self.ask(server, "packs", "check", pack, "--text", file)
            self.assertEqual(told["pack"], "made")
            [shown] = self.ask(server, "packs")[0]["packs"]
            self.assertFalse(shown.get("active") or shown.get("shadow"))  # it was on trial, and is not
            before = self.ask(server, "sets", "log")[0]["entries"]
            self.assertEqual([e["what"] for e in before], ["shadow made 1 at 0%", "remove made 1 from the shadow"])
            self.change(server, "packs", "add", "made", "--shadow", "0%")
            [again] = self.ask(server, "packs", "check", "made", "--text", file)
            self.assertEqual(again, told)
            self.assertIsNotNone(self.report(server))  # whoever had it on trial still has
            self.assertAlmostEqual(told["bits_per_byte_without"], self.bits_per_byte(server, text), delta=1e-6)
            self.assertAlmostEqual(told["bits_per_byte_with"], self.bits_per_byte(server, text, "--set", told["set_with"]), delta=1e-6)
            self.assertNotEqual(told["bits_per_byte_with"], told["bits_per_byte_without"])
            picks = [[e for t in self.ask(server, "score", text, "--set", told["set_with"], "--experts")[-1]["tokens"]
                      for e in t["experts"][layer]["ids"]] for layer in range(len(told["layers"]))]
            first = {l["layer"]: l["first_id"] for l in shown["layers"]}
            for layer, ids in enumerate(picks):
                share = sum(e >= first[layer] for e in ids) / len(ids) if layer in first else 0
                self.assertAlmostEqual(told["layers"][layer]["share"], share, delta=1e-6)
            self.assertTrue(any(l["share"] > 0 for l in told["layers"]))
            # A text that cannot be scored leaves no trial behind.
            self.change(server, "packs", "remove", "made")
            with open(file, "w", encoding="utf-8") as f:
                f.write("")
            self.assertIn("no text of two tokens", self.ask(server, "packs", "check", "made", "--text", file, code=2))
            self.assertIsNone(self.report(server))

    def test_a_set_of_a_server_is_exported(self):
        """The server has taken in b before a: their ids are others than where a comes first."""
        a, b, other = (self.pack(name, MODEL, "--seed", str(i)) for i, name in enumerate("abc"))
        with Coordinator(COORDINATOR, MODEL, "--threads", "1", "--cache-dir", self.path("cache"), "--pack-dir", self.folder) as server:
            export = lambda out, *args, code=0: self.ask(server, "export", self.path(out), "--model", MODEL, "--set", "mine", *args, code=code)
            for pack in (b, a):
                self.change(server, "packs", "add", pack)
            of_a = {l["layer"]: l["first_id"] for l in next(p for p in self.ask(server, "packs")[0]["packs"] if p["name"] == "a")["layers"]}
            self.change(server, "experts", "prune", ",".join(f"{layer}:{first + 1}" for layer, first in of_a.items()))
            self.change(server, "sets", "define", "mine")
            [said] = export("asked", "--pack", a, "--pack", b)
            with open(self.path("set.json"), "w", encoding="utf-8") as f:  # of the checkpoint, the first of a, both of b
                json.dump({"layers": [f"0-{first - 2},{first}-{first + 1}" for first in of_a.values()]}, f)
            done = run(CONCLAVE, "export", self.path("named"), "--model", MODEL, "--pack", a, "--pack", b, "--set", self.path("set.json"), "--json")
            self.assertEqual(json.loads(done.stdout)["experts"], said["experts"])
            for name in ("model.safetensors", "config.json"):
                with open(self.path("asked", name), "rb") as one, open(self.path("named", name), "rb") as two:
                    self.assertEqual(one.read(), two.read())
            self.assertIn("it has experts of pack b 1", export("missing", "--pack", a, code=2))
            self.assertIn("the server has not taken it in", export("other", "--pack", a, "--pack", other, code=1))
            self.assertFalse(os.path.exists(self.path("missing")))

    @unittest.skipIf(shutil.which("etcd") is None, "etcd-server is not installed")
    def test_all_coordinators_of_a_cluster_do_it(self):
        etcd = Etcd(self.path("etcd"))
        self.addCleanup(etcd.stop)
        node = Process(NODE, "--model", MODEL, "--etcd", etcd.url, "--id", "a", "--cache-dir", self.path("a"), "--pack", PACK)
        self.addCleanup(node.stop)
        node.registered()
        servers = []
        for name in "cd":
            servers.append(Coordinator(COORDINATOR, MODEL, "--threads", "1", "--etcd", etcd.url, "--id", name, "--cache-dir", self.path(name)))
            self.addCleanup(servers[-1].stop)
        before = self.generate(servers[0], "before", 1)
        added = self.change(servers[0], "packs", "add", "olmoe-gqa", "--shadow", "100%")
        for server in servers:
            wait_for(lambda server=server: (self.report(server) or {}).get("set_id") == added["set_after"])
            answers = [self.generate(server, f"r-{i}", i) for i in range(3)]
            self.assertEqual(answers[1], before)
            self.check_report(server, self.compared(server, 3), [a for a, _ in answers])
        self.assertEqual(self.change(servers[1], "packs", "promote", "olmoe-gqa")["set_after"], added["set_after"])
        for server in servers:
            wait_for(lambda server=server: self.generate(server, "after", 1)[1] == added["set_after"])
            wait_for(lambda server=server: self.report(server) is None)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[5:]])
