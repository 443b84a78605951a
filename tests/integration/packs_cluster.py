"""A node that brings a pack: it offers it, another node reads it from there, and both hold its experts while a change to them is under way.

Usage: packs_cluster.py COORDINATOR NODE VECTORS"""
import base64
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

from coordinator import WAIT_S, Coordinator
from members import Etcd, Process

if shutil.which("etcd") is None:
    print("skipped: etcd-server is not installed")
    sys.exit(77)

COORDINATOR, NODE, VECTORS = sys.argv[1:4]
MODEL, PACK = os.path.join(VECTORS, "olmoe-gqa"), os.path.join(VECTORS, "packs", "olmoe-gqa")


def stored(etcd, key):
    kvs = etcd.post("kv/range", key=base64.b64encode(f"/conclave/default/{key}".encode()).decode()).get("kvs", [])
    return json.loads(base64.b64decode(kvs[0]["value"])) if kvs else None


def wait_for(what):
    end = time.monotonic() + WAIT_S
    while not (value := what()):
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.05)
    return value


def begun(model, manifest):
    """The catalogue of a cluster that had none, with the addition of the pack under way (docs/catalogue.md)."""
    digest = hashlib.sha256(manifest).hexdigest()
    pack, n = json.loads(manifest), model["n_experts"]
    added = {layer["layer"]: len(layer["experts"]) for layer in pack["layers"]}

    def expert_set(more):
        text, layers = f"conclave-set 1\n{model['fingerprint']}\n", []
        for layer in range(model["n_layers"]):
            ids = range(n + (added.get(layer, 0) if more else 0))
            hashes = [hashlib.sha256(f"conclave-expert 1\n{digest}\n{layer}\n{i - n}\n".encode()).hexdigest() for i in ids]
            text += ",".join(str(i) if i < n else f"{i}:{hashes[i]}" for i in ids) + "\n"
            layers.append(f"0-{ids[-1]}")
        return {"id": hashlib.sha256(text.encode()).hexdigest(), "layers": layers}

    base, target = expert_set(False), expert_set(True)
    return {"v": 1, "number": 1, "sets": [base, target], "names": [], "default": base["id"], "former": [], "log": [],
            "packs": [{"kind": "add", "name": pack["name"], "version": pack["version"], "hash": digest, "since": 0,
                       "layers": [[layer, count, n] for layer, count in sorted(added.items())]}],
            "pending": {"number": 1, "begun": 1, "deadline": 600001, "who": "a test", "what": "add", "target": target["id"]}}


class PacksOfACluster(unittest.TestCase):
    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.etcd = Etcd(os.path.join(self.folder, "etcd"))
        self.stack.callback(self.etcd.stop)

    def node(self, name, *args):
        node = Process(NODE, "--model", MODEL, "--etcd", self.etcd.url, "--id", name, "--cache-dir", os.path.join(self.folder, name), *args)
        self.stack.callback(node.stop)
        return node.registered()

    def test_a_pack_of_another_model_is_refused_at_the_start(self):
        other = os.path.join(VECTORS, "packs", "molm-mlp")
        done = subprocess.run([NODE, "--model", MODEL, "--etcd", self.etcd.url, "--cache-dir", self.folder, "--pack", other], check=False,
                              capture_output=True, encoding="utf-8", timeout=WAIT_S)
        self.assertEqual(done.returncode, 2)
        self.assertIn(f"--pack {other}: pack.family", done.stderr)

    def test_a_pack_goes_from_node_to_node(self):
        with open(os.path.join(PACK, "pack.json"), "rb") as f:
            manifest = f.read()
        self.node("a", "--pack", PACK)
        b = self.node("b")
        self.stack.enter_context(Coordinator(COORDINATOR, MODEL, "--etcd", self.etcd.url, "--id", "c", "--replication", "2",
                                             "--cache-dir", os.path.join(self.folder, "c")))
        digest = hashlib.sha256(manifest).hexdigest()
        self.assertEqual([pack["hash"] for pack in stored(self.etcd, "nodes/a")["packs"]], [digest])
        self.assertEqual(stored(self.etcd, "nodes/b")["packs"], [])
        catalogue = begun(stored(self.etcd, "model"), manifest)
        target = catalogue["sets"][1]["layers"]
        self.etcd.post("kv/put", key=base64.b64encode(b"/conclave/default/catalogue").decode(),
                       value=base64.b64encode(json.dumps(catalogue).encode()).decode())
        for name in "ab":
            wait_for(lambda name=name: stored(self.etcd, f"ready/{name}")["experts"] == target)
        b.says("was read from another node")
        with open(os.path.join(self.folder, "b", "packs", digest, "pack.json"), "rb") as f:
            self.assertEqual(f.read(), manifest)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]])
