"""`conclave packs check` and `conclave manifest` as they are started: a pack for a small OLMoE, sound, spoilt, signed; its
manifest made ahead.

Run by ctest: packs.py CONCLAVE REPOSITORY"""
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import unittest

CONCLAVE, ROOT = sys.argv[1:3]
MODEL = os.path.join(ROOT, "tests", "vectors", "olmoe-gqa")
WIDTH, INNER = 24, 12


def matrix(rows, columns, of):
    return "F32", [rows, columns], struct.pack(f"<{rows * columns}f", *((i % 7 - 3) / 8 + of for i in range(rows * columns)))


def save(path, tensors):
    head, data = {}, b""
    for name, (dtype, shape, values) in sorted(tensors.items()):
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(head).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


class Manifest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.cache = os.path.join(folder.name, "a", "cache")

    def make(self, *options, model=MODEL):
        done = subprocess.run([CONCLAVE, "manifest", model, "--cache-dir", self.cache, *options], capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    def test_it_is_made_once(self):
        code, out, err = self.make()
        self.assertEqual(code, 0, err)
        self.assertRegex(out, r"\Afingerprint: [0-9a-f]{64}\nolmoe, \d+ tensors, .*, hashed and cached\n\Z")
        self.assertIn("hashing the checkpoint 100 %", err)
        code, again, err = self.make("--json")
        self.assertEqual((code, err), (0, ""))
        told = json.loads(again)
        self.assertIn(told["fingerprint"], out)
        self.assertIs(told["from_cache"], True)

    def test_a_cache_that_cannot_be_written_is_a_failure(self):
        os.makedirs(os.path.dirname(self.cache))
        with open(self.cache, "w", encoding="utf-8"):
            pass
        code, out, err = self.make()
        self.assertEqual((code, out), (1, ""))
        self.assertIn("could not be written to the cache", err)

    def test_what_is_no_checkpoint_is_refused(self):
        code, _, err = self.make(model=os.path.dirname(MODEL))
        self.assertEqual(code, 1)
        self.assertIn("config.json", err)


class Packs(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder, self.pack = folder.name, os.path.join(folder.name, "german")
        os.mkdir(self.pack)
        self.tensors, layers = {}, []
        for layer, n in ((0, 2), (1, 2)):
            experts = []
            for e in range(n):
                names = {role: f"{layer}.{e}.{role}" for role in ("gate", "up", "down")}
                for role, name in names.items():
                    self.tensors[name] = matrix(*((WIDTH, INNER) if role == "down" else (INNER, WIDTH)), e)
                experts.append(names)
            self.tensors[f"{layer}.router"] = matrix(n, WIDTH, layer)
            layers.append({"layer": layer, "experts": experts, "router": f"{layer}.router"})
        save(os.path.join(self.pack, "model.safetensors"), self.tensors)
        self.manifest = {"v": 1, "kind": "add", "name": "german", "version": "1", "family": "olmoe", "base": "0" * 64, "layers": layers,
                         "tensors": {name: {"dtype": dtype, "shape": shape, "sha256": hashlib.sha256(values).hexdigest()}
                                     for name, (dtype, shape, values) in self.tensors.items()}}
        self.write()
        code, _, err = self.check()
        self.assertEqual(code, 1)
        self.manifest["base"] = re.search(r"fingerprint is ([0-9a-f]{64})", err).group(1)
        self.write()

    def write(self):
        with open(os.path.join(self.pack, "pack.json"), "w", encoding="utf-8") as f:
            json.dump(self.manifest, f)

    def check(self, *options):
        env = {**os.environ, "XDG_CACHE_HOME": os.path.join(self.folder, "cache")}
        done = subprocess.run([CONCLAVE, "packs", "check", self.pack, "--model", MODEL, *options], capture_output=True, text=True, env=env)
        return done.returncode, done.stdout, done.stderr

    def test_a_sound_one_is_described(self):
        code, out, err = self.check()
        self.assertEqual(code, 0, err)
        self.assertIn("german 1 is sound: add, 4 experts in 2 of 2 layers", out)
        self.assertIn("layers 0-1: 2 experts", out)
        self.assertIn("signature: not asked for", out)
        code, out, err = self.check("--json")
        shown = json.loads(out)
        with open(os.path.join(self.pack, "pack.json"), "rb") as f:
            self.assertEqual(shown["hash"], hashlib.sha256(f.read()).hexdigest())
        self.assertEqual(shown["layers"], [{"layer": 0, "experts": 2}, {"layer": 1, "experts": 2}])

    def test_a_spoilt_one_is_refused_by_name(self):
        self.manifest["tensors"]["1.0.up"]["sha256"] = "0" * 64
        self.write()
        code, out, err = self.check()
        self.assertEqual((code, out), (1, ""))
        self.assertIn("tensor 1.0.up: its bytes have another SHA-256", err)

    def test_a_signature_by_openssl_holds(self):
        key, public, signature = (os.path.join(self.folder, "key.pem"), os.path.join(self.folder, "public.pem"), os.path.join(self.pack, "pack.sig"))
        for command in (["genpkey", "-algorithm", "ed25519", "-out", key], ["pkey", "-in", key, "-pubout", "-out", public],
                        ["pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", os.path.join(self.pack, "pack.json"), "-out", signature]):
            subprocess.run(["openssl", *command], check=True, capture_output=True)
        code, out, err = self.check("--pack-key", public)
        self.assertEqual(code, 0, err)
        self.assertIn("signature: valid", out)
        self.manifest["version"] = "2"
        self.write()
        code, _, err = self.check("--pack-key", public)
        self.assertEqual(code, 1)
        self.assertIn("pack.sig: is not the signature", err)

    def test_what_is_missing_is_said(self):
        done = subprocess.run([CONCLAVE, "packs", "check", self.pack], capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn("--model", done.stderr)
        done = subprocess.run([CONCLAVE, "packs", "dance"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn("list, add, promote, remove, update, rollback or check", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
