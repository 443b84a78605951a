"""MoE++ (arXiv 2410.07348) in PyTorch: FFN, constant, copy and zero experts, a gate that reads the logits of the layer before."""
import math

import torch
from torch import nn
import torch.nn.functional as F

from train import olmoe
from train.experts import by_expert, head_or_entropy, swiglu

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


class Mixture(nn.Module):
    def __init__(self, c):
        super().__init__()
        n, d, inner = c["num_experts"][0], c["hidden_size"], c["intermediate_size"]
        self.c, self.n, self.n_ffn = c, n, n - 2 - N_CONSTANT
        if c["moe_2layer_gate"]:
            self.wg = nn.Sequential(nn.Linear(d, 8 * n, bias=False), nn.Tanh(), nn.Linear(8 * n, n, bias=False))
        else:
            self.wg = nn.Linear(d, n, bias=False)
        self.gate_map = nn.Linear(n, n, bias=False)
        self.up = nn.Parameter(torch.empty(self.n_ffn, 2 * inner, d))
        self.down = nn.Parameter(torch.empty(self.n_ffn, d, inner))
        self.constant = nn.Parameter(torch.empty(N_CONSTANT, d))
        self.constant_gate = nn.Parameter(torch.empty(N_CONSTANT, 2, d))
        self.picks = None

    def expert(self, up, down):
        def compute(e, x):
            if e < self.n_ffn:
                return swiglu(x, up[e], down[e])
            if e < self.n - 2:
                keep, swap = F.linear(x, self.constant_gate[e - self.n_ffn]).softmax(-1).split(1, -1)
                return keep * x + swap * self.constant[e - self.n_ffn]
            return x if e == self.n - 2 else torch.zeros_like(x)
        return compute

    def forward(self, x, carried):
        c, rows = self.c, x.flatten(0, 1)
        logits = self.wg(rows)
        if carried is not None:
            logits = logits + self.gate_map(carried)
        scores = logits / (logits.std(-1, keepdim=True) / c["moe_gate_norm_std"]) if c["moe_use_logits_norm"] else logits
        prob = scores.softmax(-1)
        weights, ids = (scores if c["moe_use_mixtral_gating"] else prob).topk(2, -1)
        self.picks = ids
        if c["moe_use_mixtral_gating"]:
            weights = weights.softmax(-1)
        else:
            weights = weights.masked_fill(ids == self.n - 1, 0.0)
            weights = weights / weights.sum(-1, keepdim=True)
        scale = 1 if c["moe_use_mixtral_gating"] or c["moe_feature_no_mul_topk"] else 2
        y = by_expert(rows * scale, ids, weights, self.n, self.expert(self.up.unbind(0), self.down.unbind(0)))
        return y.view_as(x), logits, {"balance": self.balance(prob, ids)} if self.training else {}

    def balance(self, prob, ids, zero_computation=0.75):
        """The paper's: an expert that computes is to get as many picks as 1 / `zero_computation` zero-computation ones."""
        worth = torch.ones(self.n, device=prob.device)
        worth[self.n_ffn:] = zero_computation
        share = torch.bincount(ids.flatten(), minlength=self.n).to(prob.dtype) / len(ids)
        return self.n * (worth * share * prob.mean(0)).sum()


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.self_attn = Attention(c)
        self.post_attention_layernorm = nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.mlp = Mixture(c)

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
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
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
        x, carried, sums = self.embed_tokens(ids), None, {}
        cos, sin = self.angles(ids.shape[1], ids.device)
        for layer in self.layers:
            x, carried, losses = layer(x, cos, sin, carried)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value / len(self.layers)
        return head_or_entropy(self.norm(x), self.lm_head.weight, y), sums

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
