"""The experts and the router of a checkpoint's layers, by role, whatever the family and the layout of its files. Matrices are [n_out, n_in].
Of MoE++ the ids are as in the file: FFN experts, then those that have no FFN."""
import os
import re
import sys

import numpy as np

from pack_files import array, load_json, read_directory

SWIGLU = ("gate", "up", "down")


class Family:
    """A subclass says where things are: router (a name with {l}), roles, matrix(layer, expert, role)."""
    roles = SWIGLU
    map_name = None
    n_local = 0
    n_attention = 0  # attention experts: matrices of the roles q [width, d_model] and o [d_model, width]

    def __init__(self, path):
        self.config = load_json(os.path.join(path, "config.json"))
        self.tensors = read_directory(path)
        self.used = set()
        self.setup(self.config)

    def setup(self, c):
        self.n_layers, self.d_model, self.d_ff = c["num_hidden_layers"], c["hidden_size"], c["intermediate_size"]
        self.n_experts = c.get("num_experts", c.get("num_local_experts"))

    @property
    def n_ffn(self):
        return self.n_experts - self.n_local

    def tensor(self, name):
        if name not in self.tensors:
            sys.exit(f"tensor {name}: missing")
        self.used.add(name)
        return self.tensors[name]

    def router(self, layer):
        """[n_experts, width]: the gate's last layer."""
        return array(self.tensor(self.router_name.format(l=layer)))

    def gate_map(self, layer):
        """[n_experts, n_experts] of the logits of the layer before; None."""
        return array(self.tensor(self.map_name.format(l=layer))) if self.map_name and layer > 0 else None

    def matrix(self, layer, expert, role):
        return array(self.tensor(self.names[role].format(l=layer, e=expert)))

    def without_added(self, name, n_added):
        """What a tensor that is no FFN expert's is called in the checkpoint that has n_added FFN experts fewer."""
        return name

    def expert_dtype(self):
        """Of the matrices of experts, as safetensors spells it."""
        return self.tensor(self.names["down"].format(l=0, e=0)).dtype


class Qwen3Moe(Family):
    names = {role: f"model.layers.{{l}}.mlp.experts.{{e}}.{role}_proj.weight" for role in SWIGLU}
    router_name = "model.layers.{l}.mlp.gate.weight"

    def setup(self, c):
        super().setup(c)
        self.d_ff = c["moe_intermediate_size"]


class Olmoe(Family):
    names, router_name = Qwen3Moe.names, Qwen3Moe.router_name
    fused = "model.layers.{l}.mlp.experts."

    def is_fused(self, layer):
        return self.fused.format(l=layer) + "down_proj" in self.tensors

    def matrix(self, layer, expert, role):
        if not self.is_fused(layer):
            return super().matrix(layer, expert, role)
        whole = array(self.tensor(self.fused.format(l=layer) + ("down_proj" if role == "down" else "gate_up_proj")))[expert]
        return whole if role == "down" else whole[:self.d_ff] if role == "gate" else whole[self.d_ff:]

    def expert_dtype(self):
        return self.tensor(self.fused.format(l=0) + "down_proj").dtype if self.is_fused(0) else super().expert_dtype()


class Mixtral(Family):
    names = {role: f"model.layers.{{l}}.block_sparse_moe.experts.{{e}}.{w}.weight" for role, w in zip(SWIGLU, ("w1", "w3", "w2"))}
    router_name = "model.layers.{l}.block_sparse_moe.gate.weight"


class MoePlusPlus(Family):
    EXPERT = "model.layers.{l}.mlp.moe.experts.experts.{e}."
    names = {"gate": EXPERT + "up_proj.weight", "up": EXPERT + "up_proj.weight", "down": EXPERT + "down_proj.weight"}
    map_name = "model.layers.{l}.mlp.moe.gate.gate_map.weight"
    inner_name = "model.layers.{l}.mlp.moe.gate.wg.0.weight"

    def setup(self, c):
        n = c.get("num_experts", 32)
        super().setup({**c, "num_experts": n[0] if isinstance(n, list) else n})
        self.n_local = c.get("moe_num_constant", 2) + 2
        self.router_name = "model.layers.{l}.mlp.moe.gate." + ("wg.2.weight" if c.get("moe_2layer_gate", True) else "wg.weight")

    def without_added(self, name, n_added):
        return re.sub(r"(?<=mlp\.moe\.experts\.experts\.)\d+", lambda e: str(int(e[0]) - n_added * (int(e[0]) >= self.n_ffn)), name)

    def matrix(self, layer, expert, role):
        whole = super().matrix(layer, expert, role)
        return whole if role == "down" else whole[:self.d_ff] if role == "gate" else whole[self.d_ff:]


class ModuleFormer(Family):
    roles = ("up", "down")
    ATTENTION = "transformer.h.{l}.attn.q_proj."
    names = {"up": "transformer.h.{l}.mlpf.experts.weight", "down": "transformer.h.{l}.mlpf.output_experts.weight",
             "q": ATTENTION + "experts.weight", "o": ATTENTION + "output_experts.weight"}

    def setup(self, c):
        self.n_layers, self.d_model, self.d_ff, self.n_experts = c["n_layer"], c["n_embd"], c["ffd_hidden"], c["n_mlp_experts"]
        self.n_attention, self.att_width = c["n_att_experts"], c["att_hidden"]
        gate = "gate." + {"mlp": "w_gate.3.weight", "linear": "w_gate.0.weight", "gmm": "expert_centroids"}[c.get("gate_type", "mlp")]
        self.router_name, self.attention_router_name = "transformer.h.{l}.mlpf." + gate, self.ATTENTION + gate

    def attention_router(self, layer):
        """[n_attention, width], as router."""
        return array(self.tensor(self.attention_router_name.format(l=layer)))

    def matrix(self, layer, expert, role):
        t = self.tensor(self.names[role].format(l=layer))
        n = len(t.data) // t.shape[0]
        return array(t._replace(shape=t.shape[1:], data=t.data[expert * n:(expert + 1) * n])).T


FAMILIES = {"olmoe": Olmoe, "mixtral": Mixtral, "qwen3_moe": Qwen3Moe, "moduleformer": ModuleFormer, "MoE++": MoePlusPlus}


def open_model(path):
    try:
        kind = load_json(os.path.join(path, "config.json"))["model_type"]
        if kind not in FAMILIES:
            sys.exit(f"{path}: model_type {kind!r} is none of {', '.join(FAMILIES)}")
        return FAMILIES[kind](path)
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")


def shape(model, role):
    if role in ("q", "o"):
        return (model.att_width, model.d_model) if role == "q" else (model.d_model, model.att_width)
    return (model.d_model, model.d_ff) if role == "down" else (model.d_ff, model.d_model)


def equal(a, b):
    return a.shape == b.shape and np.array_equal(a, b)
