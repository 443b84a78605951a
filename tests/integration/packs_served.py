"""A coordinator with --pack answers as one of the concatenated checkpoint does: to the bit where ids and order are the same, for an added
expert stands where the checkpoint's writer would have put it.

Run by ctest: packs_served.py CONCLAVE COORDINATOR REPOSITORY"""
import json
import os
import sys
import unittest

import concatenated
from coordinator import Coordinator, parse_reply
from pack_case import PackCase, run

CONCLAVE, COORDINATOR, ROOT = sys.argv[1:4]
VECTORS = os.path.join(ROOT, "tests", "vectors")
EQUAL = ("olmoe-gqa", "mixtral", "qwen3-moe", "molm-mlp", "molm-gmm-k4")
IDS = [(7 * i) % 60 for i in range(1, 25)]


class Served(PackCase):
    def make(self, name, out, *args):
        self.assertIsNone(concatenated.make_pack("random", self.path(out), "--model", os.path.join(VECTORS, name), "--conclave", CONCLAVE, *args))
        return self.path(out)

    def serve(self, model, *args):
        server = Coordinator(COORDINATOR, model, "--dtype", "f32", "--threads", "1", "--cache-dir", "", *args)
        self.addCleanup(server.stop)
        return server

    def score(self, server):
        done = run(CONCLAVE, "score", "--server", server.address, "--tokens", ",".join(map(str, IDS)), "--experts", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return [[(t.get("token_id"), t.get("logprob"), json.dumps(t.get("experts"))) for t in parse_reply(line).get("tokens", [])]
                for line in done.stdout.splitlines()]

    def test_as_the_concatenated_checkpoint(self):
        for name in EQUAL:
            with self.subTest(model=name):
                model = os.path.join(VECTORS, name)
                pack = self.make(name, name + "-pack", "--experts", "3")
                concatenated.write(self.path(name), *concatenated.concatenate(model, pack))
                with_pack = self.score(self.serve(model, "--pack", pack))
                self.assertEqual(with_pack, self.score(self.serve(self.path(name))))
                self.assertNotEqual(with_pack, self.score(self.serve(model)))

    def test_several_packs_in_order_by_flag_or_file(self):
        model = os.path.join(VECTORS, "olmoe-gqa")
        packs = [self.make("olmoe-gqa", f"pack-{i}", "--experts", "2", "--seed", str(i), "--name", f"pack-{i}") for i in range(2)]
        both = self.score(self.serve(model, "--pack", packs[0], "--pack", packs[1]))
        with open(self.path("config.json"), "w", encoding="utf-8") as f:
            json.dump({"pack": ",".join(packs)}, f)
        self.assertEqual(both, self.score(self.serve(model, "--config", self.path("config.json"))))
        self.assertNotEqual(both, self.score(self.serve(model, "--pack", packs[0])))

    def test_what_is_no_pack_of_this_model_ends_the_start(self):
        model = os.path.join(VECTORS, "olmoe-gqa")
        pack = self.make("olmoe-gqa", "pack")
        other = self.make("mixtral", "other")
        for args, words in ((("--pack", self.path("none")), "none"), (("--pack", other), "pack"),
                            (("--pack", pack, "--etcd", "http://127.0.0.1:1"), "--etcd"), (("--pack", pack, "--pack", pack), "pack")):
            with self.subTest(args=args):
                done = run(COORDINATOR, "--model", model, "--listen", "127.0.0.1:0", "--cache-dir", "", *args)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(words, done.stderr.splitlines()[-1])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[4:])
