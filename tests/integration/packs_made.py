"""tools/make_pack.py for every family and gate: `conclave packs check` accepts what it makes, and the three ways to a pack agree.

Run by ctest: packs_made.py CONCLAVE REPOSITORY"""
import json
import os
import sys
import unittest

import concatenated
from pack_case import MODELS, PackCase, run
from pack_files import read_directory

CONCLAVE, ROOT = sys.argv[1:3]
VECTORS = os.path.join(ROOT, "tests", "vectors")


class MakePack(PackCase):
    def make(self, command, out, *args, model):
        """None, or what it was refused with."""
        return concatenated.make_pack(command, self.path(out), *args, "--model", model, "--conclave", CONCLAVE)

    def made(self, *args, **model):
        self.assertIsNone(self.make(*args, **model))

    def check(self, pack, model):
        done = run(CONCLAVE, "packs", "check", self.path(pack), "--model", model, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def same(self, a, b):
        """Equal layers, and equal tensors under them."""
        (one, _), (other, _) = (concatenated.read_pack(self.path(p)) for p in (a, b))
        self.assertEqual(one["layers"], other["layers"])
        self.assertEqual({n: bytes(t.data) for n, t in read_directory(self.path(a)).items()},
                         {n: bytes(t.data) for n, t in read_directory(self.path(b)).items()})

    def test_what_it_makes_is_sound_and_the_difference_finds_it_again(self):
        for name in MODELS:
            model = os.path.join(VECTORS, name)
            for kind in ("add", "replace"):
                with self.subTest(model=name, kind=kind):
                    pack, other, found = (f"{name}-{kind}{end}".replace("+", "p") for end in ("", "-whole", "-found"))
                    self.made("random", pack, "--kind", kind, "--experts", "2", model=model)
                    self.assertEqual(self.check(pack, model)["kind"], kind)
                    concatenated.write(self.path(other), *concatenated.concatenate(model, self.path(pack)))
                    self.made("difference", found, self.path(other), model=model)
                    self.same(pack, found)

    def test_it_is_made_of_tensors_under_given_names(self):
        model = os.path.join(VECTORS, "moe++-raw-logits")
        self.made("random", "a", "--experts", "3", model=model)
        names = {role: f"layers.{{l}}.experts.{{e}}.{role}" for role in ("gate", "up", "down")}
        names.update({part: "layers.{l}." + part for part in ("router", "map_rows", "map_columns")})
        args = [word for key, name in names.items() for word in ("--" + key.replace("_", "-"), name)]
        self.made("tensors", "b", self.path("a", "model.safetensors"), *args, model=model)
        self.check("b", model)
        self.same("a", "b")

    def test_attention_experts_come_back_too(self):
        model = os.path.join(VECTORS, "molm-gmm-k4")
        self.made("random", "a", "--attention", "2", model=model)
        concatenated.write(self.path("whole"), *concatenated.concatenate(model, self.path("a")))
        self.made("difference", "b", self.path("whole"), model=model)
        names = {role: f"layers.{{l}}.experts.{{e}}.{role}" for role in ("up", "down")}
        names.update({f"attention-{role}": f"layers.{{l}}.attention.{{e}}.{role}" for role in "qo"})
        names.update({"router": "layers.{l}.router", "attention-router": "layers.{l}.attention.router"})
        self.made("tensors", "c", self.path("a", "model.safetensors"), *(word for key, name in names.items() for word in ("--" + key, name)), model=model)
        for name in "bc":
            self.check(name, model)
            self.same("a", name)

    def test_some_layers_of_a_bf16_model(self):
        model = os.path.join(VECTORS, "moe++-bf16")
        self.made("random", "a", "--layers", "1-2", "--experts", "1", model=model)
        self.assertEqual(self.check("a", model)["layers"], [{"layer": 1, "experts": 1}, {"layer": 2, "experts": 1}])

    def test_what_no_pack_can_hold_is_refused_by_name(self):
        model = os.path.join(VECTORS, "olmoe-gqa")
        self.made("random", "a", model=model)
        self.assertIn("exists already", self.make("random", "a", model=model))
        self.assertIn("--name", self.make("random", "b", "--name", "no spaces", model=model))
        config, w = concatenated.concatenate(model, self.path("a"))
        w["model.norm.weight"] = w["model.norm.weight"] * 2
        concatenated.write(self.path("other"), config, w)
        self.assertIn("tensor model.norm.weight: differs", self.make("difference", "b", self.path("other"), model=model))
        self.assertIn("no others", self.make("difference", "b", model, model=model))
        self.assertFalse(os.path.exists(self.path("b")))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
