"""MoE++ (arXiv 2410.07348) in PyTorch: FFN, constant, copy and zero experts, a gate that reads the logits of the layer before."""
import math

import torch
from torch import nn
import torch.nn.functional as F

from train import experts, olmoe

MODEL_TYPE = "MoE++"
SMALL = {"hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 4,
         "num_experts": [16], "max_position_embeddings": 512}
N_CONSTANT = 2


def config(vocab_size, eos, **changes):
    return {"architectures": ["MoeForCausalLM"], "model_type": MODEL_TYPE, "vocab_size": vocab_size, "hidden_act": "silu", "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0, "moe_expert_interval": 1, "moe_use_mixtral_gating": False, "moe_2layer_gate": False,
            "moe_use_logits_norm": True, "moe_gate_norm_std": 1.0, "moe_feature_no_mul_topk": True, "tie_word_embeddings": False,
            "pad_token_id": eos, "bos_token_id": eos, "eos_token_id": eos, "torch_dtype": "float32", **SMALL, **changes}


class Attention(olmoe.Attention):
    def __init__(self, c):
        super().__init__({**c, "clip_qkv": None})
        self.q_norm, self.k_norm = nn.Identity(), nn.Identity()


class Mixture(experts.Mixture):
    roles = staticmethod(experts.swiglu_roles)

    def __init__(self, c, first):
        n, d, inner = c["num_experts"][0], c["hidden_size"], c["intermediate_size"]
        super().__init__(n, n - 2 - N_CONSTANT, 2, "wg.2.weight" if c["moe_2layer_gate"] else "wg.weight", ("up", "down"))
        self.c, self.first = c, first
        if c["moe_2layer_gate"]:
            self.wg = nn.Sequential(nn.Linear(d, 8 * n, bias=False), nn.Tanh(), nn.Linear(8 * n, n, bias=False))
        else:
            self.wg = nn.Linear(d, n, bias=False)
        self.gate_map = nn.Linear(n, n, bias=False)
        self.up = nn.Parameter(torch.empty(self.n_ffn, 2 * inner, d))
        self.down = nn.Parameter(torch.empty(self.n_ffn, d, inner))
        self.constant = nn.Parameter(torch.empty(N_CONSTANT, d))
        self.constant_gate = nn.Parameter(torch.empty(N_CONSTANT, 2, d))

    @torch.no_grad()
    def grow(self, order, noise):
        """All layers grow by as many. What the logits of added experts do to the layer behind begins with nothing."""
        super().grow(order, noise)
        if not self.first:
            self.new_map_rows = nn.Parameter(F.pad(self.gate_map.weight[order], (0, len(order))))
            self.new_map_columns = nn.Parameter(torch.zeros(self.n, len(order)))

    def map(self):
        own, rows = self.gate_map.weight, self.new("map_rows")
        return own if rows is None else torch.cat([torch.cat([own, self.new_map_columns], 1), rows])

    def expert(self, up, down):
        def compute(e, x):
            if e < self.n_ffn:
                return experts.swiglu(x, up[e], down[e])
            if e >= self.n:
                return experts.swiglu(x, up[e - self.n + self.n_ffn], down[e - self.n + self.n_ffn])
            if e < self.n - 2:
                keep, swap = F.linear(x, self.constant_gate[e - self.n_ffn]).softmax(-1).split(1, -1)
                return keep * x + swap * self.constant[e - self.n_ffn]
            return x if e == self.n - 2 else torch.zeros_like(x)
        return compute

    def scores(self, logits):
        """Over their own deviation, which is of the experts that are there."""
        if not self.c["moe_use_logits_norm"]:
            return logits
        there = logits if self.absent is None else logits[:, ~self.absent]
        return logits / (there.std(-1, keepdim=True) / self.c["moe_gate_norm_std"])

    def own(self, logits, carried):
        """The scores of the layer's own experts without what a pack adds to them."""
        own, columns = logits[:, :self.n], self.new("map_columns")
        return self.scores(own if columns is None else own - F.linear(carried[:, self.n:], columns))

    def forward(self, x, carried):
        c, rows = self.c, x.flatten(0, 1)
        logits = F.linear(self.wg[:-1](rows) if c["moe_2layer_gate"] else rows, self.router())
        if carried is not None:
            logits = logits + F.linear(carried, self.map())
        scores = self.scores(logits)
        weights, ids, prob = self.choose(scores)
        if not c["moe_use_mixtral_gating"]:
            weights = weights.masked_fill(ids == self.n - 1, 0.0)
        weights = weights / weights.sum(-1, keepdim=True)
        scale = 1 if c["moe_use_mixtral_gating"] or c["moe_feature_no_mul_topk"] else 2
        y = experts.by_expert(rows * scale, ids, weights, logits.shape[-1], self.expert(self.matrices("up"), self.matrices("down")))
        losses = {"balance": self.balance(prob, ids), **self.losses(scores, self.own(logits, carried), prob)} if self.training else {}
        return y.view_as(x), logits if self.absent is None else logits.masked_fill(self.absent, 0.0), losses

    def balance(self, prob, ids, zero_computation=0.75):
        """The paper's: an expert that computes is to get as many picks as 1 / `zero_computation` zero-computation ones."""
        n = prob.shape[-1]
        worth = torch.ones(n, device=prob.device)
        worth[self.n_ffn:self.n] = zero_computation
        share = torch.bincount(ids.flatten(), minlength=n).to(prob.dtype) / len(ids)
        return n * (worth * share * prob.mean(0)).sum()

    def pack_router(self):
        maps = {} if self.first else {"map_rows": self.new_map_rows, "map_columns": self.new_map_columns}
        return {**super().pack_router(), **{name: p.detach().numpy() for name, p in maps.items()}}


class Layer(nn.Module):
    def __init__(self, c, first):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.self_attn = Attention(c)
        self.post_attention_layernorm = nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.mlp = Mixture(c, first)

    def forward(self, x, cos, sin, carried):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        y, carried, losses = self.mlp(self.post_attention_layernorm(x), carried)
        return x + y, carried, losses


class Model(nn.Module):
    LOSSES = {"balance": 0.01}
    angles = olmoe.Model.angles

    def __init__(self, c):
        super().__init__()
        self.config = c
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c, l == 0) for l in range(c["num_hidden_layers"]))
        self.norm = nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.lm_head = nn.Linear(c["hidden_size"], c["vocab_size"], bias=False)
        self.init()

    @torch.no_grad()
    def init(self):
        depth = math.sqrt(2 * len(self.layers))
        for name, p in self.named_parameters():
            if name.endswith("gate_map.weight"):
                p.zero_()
            elif p.dim() > 1:
                spread = 0.02 if "embed" in name or ".wg." in name or "constant" in name else p.shape[-1] ** -0.5 / 2
                p.normal_(0, spread / depth if "o_proj" in name or name.endswith("down") else spread)

    def forward(self, ids, y=None):
        x, carried, losses = self.embed_tokens(ids), None, []
        cos, sin = self.angles(ids.shape[1], ids.device)
        for layer in self.layers:
            x, carried, of_layer = layer(x, cos, sin, carried)
            losses.append(of_layer)
        return experts.head_or_entropy(self.norm(x), self.lm_head.weight, y), experts.mean_losses(losses)

    mixtures = olmoe.Model.mixtures

    def tensors(self):
        out = {}
        for name, p in self.state_dict().items():
            head, _, last = name.rpartition("mlp.")
            if not head:
                out[name if name.startswith("lm_head") else "model." + name] = p
            elif last.startswith(("wg", "gate_map")):
                out[f"model.{head}mlp.moe.gate.{last}"] = p
            else:
                kind = {"up": "up_proj.weight", "down": "down_proj.weight", "constant": "constant", "constant_gate": "wg.weight"}[last]
                first = 0 if last in ("up", "down") else self.config["num_experts"][0] - 2 - N_CONSTANT
                for e, one in enumerate(p):
                    out[f"model.{head}mlp.moe.experts.experts.{first + e}.{kind}"] = one
        return out

    load_tensors = olmoe.Model.load_tensors
