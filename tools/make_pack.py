#!/usr/bin/python3
"""Makes a pack of experts (docs/packs.md) for a model's checkpoint, of any family that is served. Needs numpy.

    make_pack.py random PACK --model DIR --fingerprint HEX          random experts: for tests and demonstrations
    make_pack.py tensors PACK FILE --model DIR ... --router NAME --up NAME --down NAME [--gate NAME]
                                                                     from tensors of a safetensors file; {l} and {e} in a name are layer and
                                                                     place in the layer, from 0; matrices are [n_out, n_in]
    make_pack.py difference PACK OTHER --model DIR ...               what checkpoint OTHER has more than the model, or differently

The fingerprint is the model's: `conclave model` of its server has it, and `conclave manifest DIR` computes it; with --conclave PROGRAM
that is asked. PACK is written whole or not at all, and must not be there."""
import argparse
import json
import os
import re
import subprocess
import sys

import numpy as np

sys.dont_write_bytecode = True
from checkpoint_experts import equal, open_model, shape  # noqa: E402
from pack_files import array, read_safetensors, stored, write_pack  # noqa: E402


class Pack:
    """What is collected: layers of experts in order, their tensors."""

    def __init__(self, model, kind):
        self.model, self.kind = model, kind
        self.dtype = model.expert_dtype()
        self.layers, self.tensors = [], {}

    def put(self, name, values, dtype):
        self.tensors[name] = stored(values, dtype)
        return name

    def add_layer(self, layer, experts, replaces, router=None, map_rows=None, map_columns=None):
        """experts: a dict from role to matrix each; replaces: the model's ids, with kind replace. The parts of the router in full width:
        they are not rounded to the dtype of the experts."""
        row = {"layer": layer, "experts": []}
        for i, matrices in enumerate(experts):
            names = {role: self.put(f"layers.{layer}.experts.{i}.{role}", values, self.dtype) for role, values in matrices.items()}
            row["experts"].append({**names, "replaces": replaces[i]} if self.kind == "replace" else names)
        for key, values in (("router", router), ("map_rows", map_rows), ("map_columns", map_columns)):
            if values is not None:
                row[key] = self.put(f"layers.{layer}.{key}", values, "F32")
        self.layers.append(row)

    def add_attention(self, experts, router):
        """Attention experts of the last layer: a dict of q and o each, and their rows of that gate."""
        at = f"layers.{self.layers[-1]['layer']}.attention."
        self.layers[-1]["attention"] = {
            "router": self.put(at + "router", router, "F32"),
            "experts": [{role: self.put(f"{at}{i}.{role}", values, self.dtype) for role, values in matrices.items()}
                        for i, matrices in enumerate(experts)]}


# ---------------------------------------------------------------- random
def like(random, values, shape, scale):
    """Normal values as wide as those of the model's own."""
    return random.standard_normal(shape, np.float32) * np.float32(scale * values.std())


def make_random(a, model):
    kind = a.kind or "add"
    pack = Pack(model, kind)
    layers = range(model.n_layers) if a.layers is None else a.layers
    if a.attention and (kind == "replace" or not model.n_attention):
        sys.exit("--attention: " + ("only of a pack of kind add" if model.n_attention else "the model has no attention experts"))
    for layer in layers:
        if layer >= model.n_layers:
            sys.exit(f"--layers: {layer} is not below the model's {model.n_layers}")
        if kind == "replace" and a.experts > model.n_ffn:
            sys.exit(f"--experts {a.experts}: the model has {model.n_ffn} to be replaced")
        random = np.random.Generator(np.random.SFC64([a.seed, layer]))
        experts = [{role: like(random, model.matrix(layer, 0, role), shape(model, role), a.scale) for role in model.roles}
                   for _ in range(a.experts)]
        replaces = sorted(random.choice(model.n_ffn, a.experts, replace=False).tolist()) if kind == "replace" else []
        router = map_rows = map_columns = None
        if kind == "add":
            own, own_map = model.router(layer), model.gate_map(layer)
            router = like(random, own, (a.experts, own.shape[1]), a.scale)
            before = a.experts if layer - 1 in layers else 0
            if own_map is not None:
                map_rows = like(random, own_map, (a.experts, model.n_experts + before), a.scale)
                map_columns = like(random, own_map, (model.n_experts, before), a.scale) if before else None
        pack.add_layer(layer, experts, replaces, router, map_rows, map_columns)
        if a.attention:
            random, own = np.random.Generator(np.random.SFC64([a.seed, layer, 1])), model.attention_router(layer)
            pack.add_attention([{role: like(random, model.matrix(layer, 0, role), shape(model, role), a.scale) for role in ("q", "o")}
                                for _ in range(a.attention)], like(random, own, (a.attention, own.shape[1]), a.scale))
    return pack, {"made": "at random", "seed": a.seed}


# ---------------------------------------------------------------- from tensors
def make_from_tensors(a, model):
    tensors = read_safetensors(a.file)
    kind = "replace" if a.replaces else "add"
    pack = Pack(model, kind)

    def find(pattern, **at):
        name = pattern.format(**at) if pattern else None
        return array(tensors[name]) if name in tensors else None

    def collect(patterns, layer):
        """As many experts of the layer as the file has."""
        experts = []
        while any(find(pattern, l=layer, e=len(experts)) is not None for pattern in patterns.values()):
            matrices = {role: find(pattern, l=layer, e=len(experts)) for role, pattern in patterns.items()}
            for role, values in matrices.items():
                if values is None or values.shape != shape(model, role):
                    sys.exit(f"{(patterns[role] or role).format(l=layer, e=len(experts))}: must be there, with shape {list(shape(model, role))}")
            experts.append(matrices)
        return experts

    patterns = {role: getattr(a, role) for role in model.roles}
    attention_patterns = {"q": a.attention_q, "o": a.attention_o}
    if any([*attention_patterns.values(), a.attention_router]) and (kind == "replace" or not model.n_attention):
        sys.exit("--attention-...: " + ("only of a pack of kind add" if model.n_attention else "the model has no attention experts"))
    for role, pattern in patterns.items():
        if pattern is None:
            sys.exit(f"--{role} NAME: is missing; experts of this family have {', '.join(model.roles)}")
    for layer in range(model.n_layers):
        experts, attention = collect(patterns, layer), collect(attention_patterns, layer)
        if not experts and attention:
            sys.exit(f"layer {layer}: attention experts come with experts of the layer, and the file has none")
        if not experts:
            continue
        replaces = a.replaces.get(layer, []) if a.replaces else []
        if kind == "replace" and len(replaces) != len(experts):
            sys.exit(f"--replaces: layer {layer} has {len(experts)} experts in the file and {len(replaces)} ids")
        router = find(a.router, l=layer) if kind == "add" else None
        if kind == "add" and router is None:
            sys.exit(f"--router: the file has no {(a.router or 'name').format(l=layer)}")
        pack.add_layer(layer, experts, replaces, router, find(a.map_rows, l=layer), find(a.map_columns, l=layer))
        if attention:
            rows = find(a.attention_router, l=layer)
            if rows is None:
                sys.exit(f"--attention-router: the file has no {(a.attention_router or 'name').format(l=layer)}")
            pack.add_attention(attention, rows)
    if not pack.layers:
        sys.exit(f"{a.file}: has no tensor of the name {patterns['down']}")
    return pack, {"made": "from tensors", "file": os.path.basename(a.file)}


# ---------------------------------------------------------------- the difference of two checkpoints
def columns_of(model, n_added):
    """Where the model's experts are in a checkpoint with n_added FFN experts more, and where those are."""
    own = [*range(model.n_ffn), *range(model.n_ffn + n_added, model.n_experts + n_added)]
    return own, list(range(model.n_ffn, model.n_ffn + n_added))


def changed_experts(model, other, layer):
    return [e for e in range(model.n_ffn)
            if not all(equal(model.matrix(layer, e, role), other.matrix(layer, e, role)) for role in model.roles)]


def router_in_width(model, other, layer):
    """The other's router rows in the model's width. What a wider inner layer has more must be silent: it stays out of a pack."""
    rows, width = other.router(layer), model.router(layer).shape[1]
    if rows.shape[1] > width:
        inner = array(other.tensor(other.inner_name.format(l=layer))) if hasattr(other, "inner_name") else None
        if inner is None or (inner[width:].any() and rows[:, width:].any()):
            sys.exit(f"layer {layer}: the inner layer of the other checkpoint's gate does more than the model's; a pack cannot hold that")
    return rows[:, :width]


def refuse_other_changes(model, other, n_added):
    """Experts and routers were compared; whatever else there is must be the same."""
    theirs = {other.without_added(name, n_added): t for name, t in other.tensors.items()}
    compared = model.used | {other.without_added(name, n_added) for name in other.used}
    inner = getattr(model, "inner_name", None)
    inners = {inner.format(l=l) for l in range(model.n_layers)} if inner else set()
    unused_map = {model.map_name.format(l=0)} if model.map_name else set()  # nothing comes before the first layer
    for name in sorted((model.tensors.keys() | theirs.keys()) - compared - inners - unused_map):
        a, b = model.tensors.get(name), theirs.get(name)
        if a is None or b is None or not equal(array(a), array(b)):
            sys.exit(f"tensor {name}: differs, and is no expert and no part of a router: a pack cannot hold that")
    for name in sorted(inners & model.tensors.keys()):
        a, b = array(model.tensors[name]), array(other.tensors[name])
        if not equal(a, b[:len(a)]):
            sys.exit(f"tensor {name}: differs, and is the inner layer of a gate, which a pack leaves as it is")


def difference_attention(pack, other, layer):
    """The attention experts that the other has more."""
    model = pack.model
    n, router = model.n_attention, other.attention_router(layer)
    if not equal(router[:n], model.attention_router(layer)) or not all(
            equal(model.matrix(layer, e, role), other.matrix(layer, e, role)) for e in range(n) for role in ("q", "o")):
        sys.exit(f"layer {layer}: the model's own attention experts or their router rows differ: a pack leaves them as they are")
    if other.n_attention > n:
        if pack.kind != "add":
            sys.exit(f"layer {layer}: the other checkpoint has more attention experts, which come with experts that are added, and it adds none")
        pack.add_attention([{role: other.matrix(layer, e, role) for role in ("q", "o")} for e in range(n, other.n_attention)], router[n:])


def difference_layer(pack, other, layer, n_added):
    model = pack.model
    own, added = columns_of(model, n_added)
    router, gate_map = router_in_width(model, other, layer), other.gate_map(layer)
    if not equal(router[own], model.router(layer)):
        sys.exit(f"layer {layer}: router rows of the model's own experts differ: a pack leaves them as they are")
    if gate_map is not None and not equal(gate_map[np.ix_(own, own)], model.gate_map(layer)):
        sys.exit(f"layer {layer}: the gate map among the model's own experts differs: a pack leaves it as it is")
    changed = changed_experts(model, other, layer)
    if pack.kind == "replace":
        if changed:
            pack.add_layer(layer, [{role: other.matrix(layer, e, role) for role in model.roles} for e in changed], changed)
        return
    map_rows = gate_map[added][:, own + added] if gate_map is not None else None
    map_columns = gate_map[own][:, added] if gate_map is not None else None
    pack.add_layer(layer, [{role: other.matrix(layer, e, role) for role in model.roles} for e in added], [], router[added], map_rows, map_columns)


def make_difference(a, model):
    other = open_model(a.other)
    if type(other) is not type(model):
        sys.exit(f"{a.other}: is of another family than the model")
    n_added = other.n_ffn - model.n_ffn
    if n_added < 0:
        sys.exit(f"{a.other}: has {other.n_ffn} experts, fewer than the model's {model.n_ffn}")
    changed = any(changed_experts(model, other, layer) for layer in range(model.n_layers))
    if not changed and not n_added:
        sys.exit(f"{a.other}: has the model's experts, and no others")
    if a.kind is None and changed and n_added:
        sys.exit(f"{a.other}: has {n_added} experts more and others of its own: --kind add or --kind replace makes a pack of the one or the other")
    kind = a.kind or ("add" if n_added else "replace")
    if not (n_added if kind == "add" else changed):
        sys.exit(f"--kind {kind}: {a.other} has none")
    pack = Pack(model, kind)
    if other.n_attention < model.n_attention:
        sys.exit(f"{a.other}: has {other.n_attention} attention experts, fewer than the model's {model.n_attention}")
    for layer in range(model.n_layers):
        difference_layer(pack, other, layer, n_added)
        if model.n_attention:
            difference_attention(pack, other, layer)
    refuse_other_changes(model, other, n_added)
    return pack, {"made": "from two checkpoints", "other": os.path.basename(os.path.abspath(a.other))}


# ---------------------------------------------------------------- the command line
def id_list(text):
    """0-3,7 -> [0, 1, 2, 3, 7]"""
    ids = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if found is None:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers and ranges such as 0-3,7")
        first, last = int(found[1]), int(found[2] or found[1])
        ids += range(first, last + 1)
    if ids != sorted(set(ids)):
        raise argparse.ArgumentTypeError(f"{text!r} does not ascend")
    return ids


def layer_ids(text):
    """0:3,4;1:0-1 -> {0: [3, 4], 1: [0, 1]}"""
    rows = [row.partition(":") for row in text.split(";")]
    if not all(layer.isdigit() and colon for layer, colon, _ in rows):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 0:3,4;1:0-1")
    return {int(layer): id_list(ids) for layer, _, ids in rows}


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def parse_args():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = p.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("out", metavar="PACK")
    common.add_argument("--model", required=True, metavar="DIR", help="the checkpoint that the pack is for")
    common.add_argument("--fingerprint", metavar="HEX", help="the model's")
    common.add_argument("--conclave", metavar="PROGRAM", help="is asked for the fingerprint")
    common.add_argument("--name", help="of the pack; the directory's by default")
    common.add_argument("--version", default="1")
    common.add_argument("--licence", default="")
    random = commands.add_parser("random", parents=[common])
    random.add_argument("--layers", type=id_list, metavar="0-3,7", help="default: all")
    random.add_argument("--experts", type=positive, default=2, metavar="N", help="in each of them (default: 2)")
    random.add_argument("--attention", type=positive, default=0, metavar="N", help="attention experts in each of them (default: none)")
    random.add_argument("--kind", choices=("add", "replace"), help="default: add; replace draws which of the model's are replaced")
    random.add_argument("--seed", type=int, default=1, metavar="N")
    random.add_argument("--scale", type=float, default=1.0, metavar="X", help="width of the values, as a multiple of that of the model's own")
    tensors = commands.add_parser("tensors", parents=[common])
    tensors.add_argument("file", metavar="FILE")
    for name in ("router", "gate", "up", "down", "map-rows", "map-columns", "attention-router", "attention-q", "attention-o"):
        tensors.add_argument("--" + name, metavar="NAME")
    tensors.add_argument("--replaces", type=layer_ids, metavar="L:E,E;L:E", help="the ids that they replace: a pack of kind replace")
    difference = commands.add_parser("difference", parents=[common])
    difference.add_argument("other", metavar="OTHER")
    difference.add_argument("--kind", choices=("add", "replace"), help="where OTHER has both")
    return p.parse_args()


def fingerprint_of(a):
    if a.fingerprint:
        return a.fingerprint
    if not a.conclave:
        sys.exit("--fingerprint HEX or --conclave PROGRAM: give one")
    done = subprocess.run([a.conclave, "manifest", a.model, "--json"], stdout=subprocess.PIPE, encoding="utf-8")
    if done.returncode != 0:
        sys.exit(f"{a.conclave}: could not tell the fingerprint of {a.model}")
    return json.loads(done.stdout)["fingerprint"]


def main():
    a = parse_args()
    if os.path.lexists(a.out):
        sys.exit(f"{a.out} exists already")
    a.name = a.name or os.path.basename(os.path.abspath(a.out))
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,63}", a.name):
        sys.exit(f"--name: {a.name!r} must be 1 to 63 of A-Z a-z 0-9 . - _")
    model = open_model(a.model)
    makers = {"random": make_random, "tensors": make_from_tensors, "difference": make_difference}
    pack, provenance = makers[a.command](a, model)
    write_pack(a.out, {"kind": pack.kind, "name": a.name, "version": a.version,
                       "family": model.config["model_type"], "base": fingerprint_of(a), "licence": a.licence, "provenance": provenance},
               pack.layers, pack.tensors)
    n = sum(len(layer["experts"]) for layer in pack.layers)
    print(f"{a.out}: {pack.kind}, {n} experts in {len(pack.layers)} of {model.n_layers} layers")


if __name__ == "__main__":
    main()
