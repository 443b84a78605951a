"""A checkpoint with the experts of a pack among its own, as whoever publishes such a model would write it: base, then added. By numpy, and by
nothing of the service: what `conclave export` and serving with the pack are compared with."""
import contextlib
import io
import json
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import make_pack as make_pack_tool  # noqa: E402
from pack_files import array, load_json, read_directory, stored, write_safetensors  # noqa: E402

LOCAL = 4  # of MoE++: two constant experts, copy, zero


def make_pack(*args):
    """tools/make_pack.py in this process, which has numpy already: what it says when it refuses; None: it made a pack."""
    own, sys.argv = sys.argv, ["make_pack.py", *args]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            make_pack_tool.main()
    except SystemExit as refusal:
        return str(refusal.code)
    finally:
        sys.argv = own


def read_pack(path):
    """pack.json, and its tensors as float32."""
    return load_json(os.path.join(path, "pack.json")), {name: array(t) for name, t in read_directory(path).items()}


def llama(config, w, layer, row, pack, names, gate_name):
    moe = f"model.layers.{layer}.{names[0]}"
    n = len(w[moe + gate_name])
    for i, expert in enumerate(row["experts"]):
        e = expert.get("replaces", n + i)
        for role, name in zip(("gate", "up", "down"), names[1:]):
            w[f"{moe}experts.{e}.{name}.weight"] = pack[expert[role]]
    if "router" in row:
        w[moe + gate_name] = np.concatenate([w[moe + gate_name], pack[row["router"]]])


def gate_name(config):
    return "gate." + {"mlp": "w_gate.3.weight", "linear": "w_gate.0.weight", "gmm": "expert_centroids"}[config["gate_type"]]


def moduleformer(config, w, layer, row, pack):
    mlp = f"transformer.h.{layer}.mlpf."
    for name, role in (("experts.weight", "up"), ("output_experts.weight", "down")):
        w[mlp + name] = w[mlp + name].copy()
        for expert in row["experts"]:
            matrix = pack[expert[role]].T
            if "replaces" in expert:
                w[mlp + name][expert["replaces"]] = matrix
            else:
                w[mlp + name] = np.concatenate([w[mlp + name], matrix[None]])
    if "router" in row:
        gate = mlp + gate_name(config)
        w[gate] = np.concatenate([w[gate], pack[row["router"]]])
    if "attention" in row:
        attention, experts = f"transformer.h.{layer}.attn.q_proj.", row["attention"]["experts"]
        for name, role in (("experts.weight", "q"), ("output_experts.weight", "o")):
            w[attention + name] = np.concatenate([w[attention + name], [pack[expert[role]].T for expert in experts]])
        gate = attention + gate_name(config)
        w[gate] = np.concatenate([w[gate], pack[row["attention"]["router"]]])


def moe_plus_plus(config, w, layer, row, pack, n_before):
    """n_before: experts of the pack in the layer before."""
    moe, n, n_added = f"model.layers.{layer}.mlp.moe.", config["num_experts"][0], len(row["experts"])
    ffn = n - LOCAL

    def put(e, expert):
        w[f"{moe}experts.experts.{e}.up_proj.weight"] = np.concatenate([pack[expert["gate"]], pack[expert["up"]]])
        w[f"{moe}experts.experts.{e}.down_proj.weight"] = pack[expert["down"]]

    if "replaces" in row["experts"][0]:
        for expert in row["experts"]:
            put(expert["replaces"], expert)
        return
    for e, name in ((e, name) for e in (n - 3, n - 4) for name in ("constant", "wg.weight")):
        w[f"{moe}experts.experts.{e + n_added}.{name}"] = w.pop(f"{moe}experts.experts.{e}.{name}")
    for i, expert in enumerate(row["experts"]):
        put(ffn + i, expert)

    def insert(rows, added):
        return np.concatenate([rows[:ffn], added, rows[ffn:]])

    if config["moe_2layer_gate"]:
        inner, out = moe + "gate.wg.0.weight", moe + "gate.wg.2.weight"
        w[inner] = np.concatenate([w[inner], np.zeros((8 * n_added, w[inner].shape[1]), np.float32)])
        rows = insert(w[out], pack[row["router"]])
        w[out] = np.concatenate([rows, np.zeros((len(rows), 8 * n_added), np.float32)], 1)
    else:
        w[moe + "gate.wg.weight"] = insert(w[moe + "gate.wg.weight"], pack[row["router"]])
    gate_map = w[moe + "gate.gate_map.weight"]
    columns = pack[row["map_columns"]] if "map_columns" in row else np.zeros((n, n_before), np.float32)
    rows = pack[row["map_rows"]] if "map_rows" in row else np.zeros((n_added, n + n_before), np.float32)
    whole = insert(np.concatenate([gate_map, columns], 1), rows)
    w[moe + "gate.gate_map.weight"] = np.concatenate([whole[:, :ffn], whole[:, n:], whole[:, ffn:n]], 1)


def concatenate(model, pack_dir):
    """The configuration and the tensors (float32) of the model with the pack: every layer must get as many experts."""
    config = load_json(os.path.join(model, "config.json"))
    w = {name: array(t) for name, t in read_directory(model).items()}
    if pack_dir is None:
        return config, w
    manifest, pack = read_pack(pack_dir)
    counts = {len(row["experts"]) for row in manifest["layers"]}
    kind = config["model_type"]
    for row in manifest["layers"]:
        layer = row["layer"]
        if kind == "moduleformer":
            moduleformer(config, w, layer, row, pack)
        elif kind == "MoE++":
            moe_plus_plus(config, w, layer, row, pack, len(row["experts"]))
        elif kind == "mixtral":
            llama(config, w, layer, row, pack, ("block_sparse_moe.", "w1", "w3", "w2"), "gate.weight")
        else:
            llama(config, w, layer, row, pack, ("mlp.", "gate_proj", "up_proj", "down_proj"), "gate.weight")
    if manifest["kind"] == "add":
        n_added, = counts
        key = next(k for k in ("num_experts", "num_local_experts", "n_mlp_experts") if k in config)
        config[key] = [config[key][0] + n_added] if isinstance(config[key], list) else config[key] + n_added
        n_attention, = {len(row.get("attention", {}).get("experts", [])) for row in manifest["layers"]}
        if n_attention:
            config["n_att_experts"] += n_attention
    return config, w


def write(out, config, w, dtype="F32"):
    os.makedirs(out)
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f)
    write_safetensors(os.path.join(out, "model.safetensors"), {name: stored(values, dtype) for name, values in w.items()})
