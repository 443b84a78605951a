#!/usr/bin/env python3
"""Writes seeds of fuzz_pack: a sound manifest of each kind, and one file per rule that a manifest breaks: make_pack_corpus.py [CORPUS_DIR]"""
import copy
import hashlib
import json
import pathlib
import sys

OUT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "corpus") / "fuzz_pack"
SHAPES = {**{f"w{i}": [3, 4] for i in range(6)}, **{f"d{i}": [4, 3] for i in range(3)}, "r": [2, 4], "s": [1, 4], "t": [2, 4],
          **{f"q{i}": [3, 4] for i in range(2)}, **{f"o{i}": [4, 3] for i in range(2)}}
ATTENTION = {"router": "t", "experts": [{"q": "q0", "o": "o0"}, {"q": "q1", "o": "o1"}]}


def tensor(shape):
    return {"dtype": "BF16", "shape": shape, "sha256": hashlib.sha256(bytes(2 * shape[0] * shape[1])).hexdigest()}


def expert(i, **more):
    return {"gate": f"w{2 * i}", "up": f"w{2 * i + 1}", "down": f"d{i}", **more}


SOUND = {"v": 1, "kind": "add", "name": "a", "version": "1", "family": "olmoe", "base": "0" * 64, "licence": "none",
         "layers": [{"layer": 0, "experts": [expert(0), expert(1)], "router": "r", "attention": ATTENTION},
                     {"layer": 2, "experts": [expert(2)], "router": "s"}],
         "tensors": {name: tensor(shape) for name, shape in SHAPES.items()}, "provenance": {"seed": 1}, "evaluation": []}


def changed(path, value):
    """The sound one with the value at a path put or, if it is None, taken away."""
    out = copy.deepcopy(SOUND)
    at = out
    for key in path[:-1]:
        at = at[key]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return out


FIRST = ("layers", 0, "experts", 0)
AT = ("layers", 0, "attention")
SEEDS = {
    "sound": SOUND, "v_2": changed(["v"], 2), "no_v": changed(["v"], None), "unknown_key": changed(["colour"], 1), "kind": changed(["kind"], "append"),
    "name_path": changed(["name"], "../a"), "name_long": changed(["name"], "a" * 64), "name_nul": changed(["name"], "a\0b"), "version_number": changed(["version"], 1),
    "family": changed(["family"], "mixtral"), "base": changed(["base"], "1" * 64), "base_short": changed(["base"], "0"), "licence_long": changed(["licence"], "a" * 1001),
    "no_layers": changed(["layers"], []), "layers_object": changed(["layers"], {}), "layer_3": changed(["layers", 0, "layer"], 3), "layer_again": changed(["layers", 1, "layer"], 0),
    "layer_absent": changed(["layers", 1, "layer"], None), "layer_text": changed(["layers", 1, "layer"], "2"), "layer_key": changed(["layers", 1, "x"], 0),
    "no_experts": changed(["layers", 1, "experts"], []), "experts_number": changed(["layers", 1, "experts"], 2), "many_experts": changed(["layers", 1, "experts"], [{}] * 1025),
    "expert_text": changed(["layers", 1, "experts", 0], "w4"), "no_router": changed(["layers", 0, "router"], None), "router_shape": changed(["layers", 0, "router"], "s"),
    "map_rows": changed(["layers", 1, "map_rows"], "s"), "no_such_tensor": changed([*FIRST, "gate"], "w9"), "twice": changed([*FIRST, "gate"], "w1"),
    "shape": changed([*FIRST, "gate"], "d0"), "replaces_in_add": changed([*FIRST, "replaces"], 1), "expert_key": changed([*FIRST, "bias"], "s"),
    "attention_text": changed(AT, "t"), "attention_key": changed([*AT, "x"], 1), "attention_no_experts": changed([*AT, "experts"], []),
    "attention_many": changed([*AT, "experts"], [{}] * 1025), "attention_number": changed([*AT, "experts", 0], 1), "attention_no_o": changed([*AT, "experts", 0, "o"], None),
    "attention_expert_key": changed([*AT, "experts", 0, "k"], "q1"), "attention_shape": changed([*AT, "experts", 0, "q"], "o1"),
    "attention_twice": changed([*AT, "experts", 1, "q"], "q0"), "attention_no_router": changed([*AT, "router"], None), "attention_router": changed([*AT, "router"], "s"),
    "attention_null": changed(AT, 0), "attention_of_replace": {**changed(["layers", 0, "router"], None), "kind": "replace"},
    "unused": changed(["layers"], SOUND["layers"][:1]), "unlisted": changed(["tensors", "w0"], None), "listed_in_vain": changed(["tensors", "x"], {}),
    "dtype": changed(["tensors", "w0", "dtype"], "F32"), "list_shape": changed(["tensors", "w0", "shape"], [4, 3]), "shape_negative": changed(["tensors", "w0", "shape"], [-3, 4]),
    "sha": changed(["tensors", "w0", "sha256"], "0" * 64), "sha_short": changed(["tensors", "w0", "sha256"], "0"), "tensors_array": changed(["tensors"], []),
    "replace_with_router": {**SOUND, "kind": "replace"}, "array": [SOUND], "number": 7, "deep": changed(["provenance"], json.loads("[" * 20 + "]" * 20)),
}

OUT.mkdir(parents=True, exist_ok=True)
for name, value in SEEDS.items():
    (OUT / name).write_text(json.dumps(value), encoding="utf-8")
(OUT / "no_json").write_text('{"v":1,', encoding="utf-8")
(OUT / "key_twice").write_text('{"v":1,"v":1}', encoding="utf-8")
