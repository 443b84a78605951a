"""`conclave export`: what it writes is the checkpoint that numpy puts together of the model and its packs, tensor by tensor.

Run by ctest: exported.py CONCLAVE REPOSITORY"""
import json
import os
import resource
import signal
import subprocess
import sys
import unittest

import numpy as np

import concatenated
from checkpoint_experts import open_model as experts_of
from pack_case import MODELS, PackCase
from pack_files import array, load_json, read_directory

CONCLAVE, ROOT = sys.argv[1:3]
VECTORS = os.path.join(ROOT, "tests", "vectors")
FIRST_MAP = "model.layers.0.mlp.moe.gate.gate_map.weight"  # nothing reads it
COUNTS = ("num_experts", "num_local_experts", "n_mlp_experts", "n_att_experts")


def tensors_of(path):
    return {name: array(t) for name, t in read_directory(path).items()}


def small_files():
    """As on a full disk: no file may have more than 16 KiB."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))


class Exported(PackCase):
    def pack(self, name, model, *args):
        self.assertIsNone(concatenated.make_pack("random", self.path(name), "--model", os.path.join(VECTORS, model), "--conclave", CONCLAVE, *args))
        return self.path(name)

    def export(self, out, model, *args, code=0, before=None):
        done = subprocess.run([CONCLAVE, "export", self.path(out), "--model", os.path.join(VECTORS, model), "--json", *args], capture_output=True,
                              text=True, preexec_fn=before)
        self.assertEqual(done.returncode, code, done.stderr)
        return json.loads(done.stdout) if code == 0 else done.stderr

    def equal(self, out, config, w):
        """The export `out` against what was put together."""
        got, own = tensors_of(self.path(out)), load_json(self.path(out, "config.json"))
        self.assertEqual(sorted(got), sorted(w))
        for name, values in got.items():
            np.testing.assert_array_equal(values, w[name], name)
        self.assertEqual([own.get(key) for key in COUNTS], [config.get(key) for key in COUNTS])

    def pruned(self, model, keep):
        """The tensors of an OLMoE of which each layer keeps some experts, in that order; -1 is a silent one."""
        w = tensors_of(os.path.join(VECTORS, model))
        out = {name: values for name, values in w.items() if ".mlp." not in name}
        for layer, experts in enumerate(keep):
            moe = f"model.layers.{layer}.mlp."
            gate = w[moe + "gate.weight"]
            out[moe + "gate.weight"] = np.stack([gate[e] if e >= 0 else np.zeros_like(gate[0]) for e in experts])
            for i, e in enumerate(experts):
                for role in ("gate_proj", "up_proj", "down_proj"):
                    values = w[f"{moe}experts.{max(e, 0)}.{role}.weight"]
                    out[f"{moe}experts.{i}.{role}.weight"] = values if e >= 0 else np.zeros_like(values)
        config = load_json(os.path.join(VECTORS, model, "config.json"))
        key = next(k for k in COUNTS if k in config)
        return {**config, key: len(keep[0])}, out

    def set_file(self, *layers):
        with open(self.path("set.json"), "w", encoding="utf-8") as f:
            json.dump({"layers": list(layers)}, f)
        return self.path("set.json")

    def test_packs_become_experts_among_the_others_in_every_family(self):
        for model in MODELS:
            with self.subTest(model=model):
                name = model.replace("+", "p")
                pack = self.pack(name, model, "--experts", "2")
                self.assertTrue(self.export(name + "-out", model, "--pack", pack)["stock_exact"])
                config, w = concatenated.concatenate(os.path.join(VECTORS, model), pack)
                if FIRST_MAP in w:
                    w[FIRST_MAP] = np.zeros_like(w[FIRST_MAP])
                self.equal(name + "-out", config, w)

    def test_attention_experts_stand_behind_the_models_own(self):
        for model in ("molm-mlp", "molm-linear-kv", "molm-gmm-k4"):
            with self.subTest(model=model):
                pack = self.pack(model, model, "--experts", "2", "--attention", "3")
                self.export(model + "-out", model, "--pack", pack)
                self.equal(model + "-out", *concatenated.concatenate(os.path.join(VECTORS, model), pack))
                self.export(model + "-without", model, "--pack", pack, "--exclude-pack", model)
                self.equal(model + "-without", *concatenated.concatenate(os.path.join(VECTORS, model), None))
        ragged = self.pack("ragged", "molm-mlp", "--experts", "1", "--attention", "1", "--layers", "1")
        self.assertIn("as many in all", self.export("ragged-out", "molm-mlp", "--pack", ragged, code=1))

    def test_a_replacing_expert_has_the_rows_of_the_replaced_one(self):
        for model in MODELS:
            with self.subTest(model=model):
                name = model.replace("+", "p")
                pack = self.pack(name, model, "--kind", "replace", "--experts", "1")
                said = self.export(name + "-out", model, "--pack", pack)
                self.assertEqual((said["set_file"], said["silent"]), (False, 0))
                manifest, _ = concatenated.read_pack(pack)
                replaced = [row["experts"][0]["replaces"] for row in manifest["layers"]]
                # Written back in the places of the replaced ones it is what numpy makes.
                n = experts_of(self.path(name + "-out")).n_ffn
                orders = [[e - (e > r) if e != r else n - 1 for e in range(n)] for r in replaced]
                other = concatenated.concatenate(os.path.join(VECTORS, model), pack)
                concatenated.write(self.path(name + "-want"), *other)
                got, want = experts_of(self.path(name + "-out")), experts_of(self.path(name + "-want"))
                for layer, order in enumerate(orders):
                    for e, at in enumerate(order):
                        for role in got.roles:
                            np.testing.assert_array_equal(got.matrix(layer, at, role), want.matrix(layer, e, role))
                    order = order + list(range(n, want.n_experts))
                    np.testing.assert_array_equal(got.router(layer)[order], want.router(layer))
                    if layer > 0 and got.map_name:
                        before = orders[layer - 1] + list(range(n, want.n_experts))
                        np.testing.assert_array_equal(got.gate_map(layer)[np.ix_(order, before)], want.gate_map(layer))

    def test_a_model_alone_is_copied(self):
        for model in ("olmoe-bf16", "olmoe-tied", "molm-bf16", "moe++-bf16", "qwen3-moe"):
            with self.subTest(model=model):
                name = model.replace("+", "p")
                self.export(name, model)
                w = tensors_of(os.path.join(VECTORS, model))
                if FIRST_MAP in w:
                    w[FIRST_MAP] = np.zeros_like(w[FIRST_MAP])
                self.equal(name, load_json(os.path.join(VECTORS, model, "config.json")), w)

    def test_a_ragged_set_gets_silent_experts_and_a_file_that_names_the_others(self):
        said = self.export("out", "olmoe-gqa", "--set", self.set_file("0,2-4", {"layer": 1, "experts": "1-6"}))
        self.assertEqual((said["experts"], said["silent"], said["set_file"], said["stock_exact"]), (6, 2, True, False))
        self.equal("out", *self.pruned("olmoe-gqa", [[0, 2, 3, 4, -1, -1], [1, 2, 3, 4, 5, 6]]))
        self.assertEqual(load_json(self.path("out", "conclave_set.json")), {"layers": ["0-3", "0-5"]})

    def test_an_export_of_a_ragged_one_is_the_same(self):
        self.export("out", "olmoe-gqa", "--set", self.set_file("0,2-4", "1-6"))
        self.export("again", self.path("out"))
        config = load_json(self.path("out", "config.json"))
        self.equal("again", config, tensors_of(self.path("out")))
        self.assertEqual(load_json(self.path("again", "conclave_set.json")), {"layers": ["0-3", "0-5"]})

    def test_what_is_replaced_is_not_taken_back(self):
        pack = self.pack("fix", "olmoe-gqa", "--kind", "replace", "--experts", "1")
        manifest, _ = concatenated.read_pack(pack)
        replaced = [row["experts"][0]["replaces"] for row in manifest["layers"]]
        kept = [[e for e in range(8) if e != r][:2] for r in replaced]
        said = self.export("out", "olmoe-gqa", "--pack", pack, "--set", self.set_file(*(f"{a},{b},8" for a, b in kept)), "--uniform", "8")
        self.assertEqual((said["taken_back"], said["silent"]), (10, 0))
        for layer, r in enumerate(replaced):
            want = [e for e in range(8) if e != r] + [r]  # the new one behind, with the rows of the one that it replaces
            gate = f"model.layers.{layer}.mlp.gate.weight"
            np.testing.assert_array_equal(tensors_of(self.path("out"))[gate], tensors_of(os.path.join(VECTORS, "olmoe-gqa"))[gate][want])

    def test_uniform_leaves_the_highest_out_and_takes_the_lowest_back(self):
        said = self.export("out", "olmoe-gqa", "--set", self.set_file("0,2-4", "1-7"), "--uniform", "5")
        self.assertEqual((said["left_out"], said["taken_back"], said["silent"], said["set_file"]), (2, 1, 0, False))
        self.equal("out", *self.pruned("olmoe-gqa", [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]]))
        self.assertFalse(os.path.exists(self.path("out", "conclave_set.json")))
        self.assertIn("within [2", self.export("out-1", "olmoe-gqa", "--uniform", "1", code=2))

    def test_a_gate_with_a_bias_never_chooses_a_silent_expert(self):
        said = self.export("out", "molm-mlp", "--set", self.set_file("0-4", "0-7"), "--uniform", "8")
        self.assertEqual((said["silent"], said["stock_exact"]), (3, True))
        gate = "transformer.h.0.mlpf.gate.w_gate."
        w = tensors_of(self.path("out"))
        unit = np.maximum(w[gate + "0.weight"][-1] @ np.ones(24) + w[gate + "0.bias"][-1], 0)
        np.testing.assert_array_equal(w[gate + "3.weight"][:, -1] * unit, [0] * 5 + [-65536] * 3)
        self.assertEqual(load_json(self.path("out", "config.json"))["gating_size"], 11)

    def test_a_pack_is_left_out_by_name(self):
        pack = self.pack("german", "olmoe-gqa", "--experts", "2")
        self.export("out", "olmoe-gqa", "--pack", pack, "--exclude-pack", "german")
        self.equal("out", *self.pruned("olmoe-gqa", [range(8), range(8)]))
        self.assertIn("no pack", self.export("out-2", "olmoe-gqa", "--exclude-pack", "german", code=1))

    def test_another_dtype_and_several_files(self):
        self.export("out", "olmoe-gqa", "--dtype", "bf16", "--max-file", "16K")
        w = tensors_of(os.path.join(VECTORS, "olmoe-gqa"))
        rounded = {name: array(concatenated.stored(values, "BF16")) for name, values in w.items()}
        self.equal("out", load_json(os.path.join(VECTORS, "olmoe-gqa", "config.json")), rounded)
        self.assertGreater(len([n for n in os.listdir(self.path("out")) if n.endswith(".safetensors")]), 1)
        self.assertEqual(load_json(self.path("out", "config.json"))["torch_dtype"], "bfloat16")

    def test_nothing_is_left_of_what_is_refused(self):
        os.mkdir(self.path("out"))
        with open(self.path("out", "mine"), "w", encoding="utf-8"):
            pass
        self.assertIn("not an empty directory", self.export("out", "olmoe-gqa", code=1))
        self.assertEqual(os.listdir(self.path("out")), ["mine"])
        self.assertIn("layer 1", self.export("a", "olmoe-gqa", "--set", self.set_file("0-7", "0"), code=2))
        self.assertIn("no-such-place", self.export("no-such-place/a", "olmoe-gqa", code=1))
        self.assertIn("needed", self.export("a", "moe++-2layer-double", "--uniform", "4", code=1))
        self.assertIn("model.safetensors: cannot be written: File too large", self.export("a", "olmoe-gqa", code=1, before=small_files))
        self.assertEqual(sorted(os.listdir(self.folder)), ["cache", "out", "set.json"])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
