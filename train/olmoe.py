"""OLMoE (arXiv 2409.02060) in PyTorch: parameters have the published names, but for the experts of a layer, which are stacked."""
import math

import torch
from torch import nn
import torch.nn.functional as F

from train import experts

MODEL_TYPE = "olmoe"
SMALL = {"hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 4,
         "num_experts": 16, "num_experts_per_tok": 4, "max_position_embeddings": 512, "tie_word_embeddings": True}


def config(vocab_size, eos, **changes):
    return {"architectures": ["OlmoeForCausalLM"], "model_type": MODEL_TYPE, "vocab_size": vocab_size, "hidden_act": "silu",
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": None, "clip_qkv": None, "attention_bias": False,
            "norm_topk_prob": False, "eos_token_id": eos, "pad_token_id": eos, "torch_dtype": "float32", **SMALL, **changes}


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, self.heads, self.groups = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"]
        self.head_dim, self.clip = d // self.heads, c["clip_qkv"]
        narrow = self.groups * self.head_dim
        self.q_proj, self.o_proj = nn.Linear(d, d, bias=False), nn.Linear(d, d, bias=False)
        self.k_proj, self.v_proj = nn.Linear(d, narrow, bias=False), nn.Linear(d, narrow, bias=False)
        self.q_norm, self.k_norm = nn.RMSNorm(d, c["rms_norm_eps"]), nn.RMSNorm(narrow, c["rms_norm_eps"])

    def forward(self, x, cos, sin):
        batch, length, d = x.shape
        q, k, v = self.q_norm(self.q_proj(x)), self.k_norm(self.k_proj(x)), self.v_proj(x)
        if self.clip is not None:
            q, k, v = (t.clamp(-self.clip, self.clip) for t in (q, k, v))
        q, k, v = (t.view(batch, length, -1, self.head_dim).transpose(1, 2) for t in (q, k, v))
        q, k = (t * cos + torch.cat(((-t[..., self.head_dim // 2:]), t[..., :self.head_dim // 2]), -1) * sin for t in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.groups != self.heads)
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, d))


class Mixture(experts.Mixture):
    roles = staticmethod(experts.swiglu_roles)

    def __init__(self, c):
        n, d, inner = c["num_experts"], c["hidden_size"], c["intermediate_size"]
        super().__init__(n, n, c["num_experts_per_tok"], "gate.weight", ("gate_up", "down"))
        self.renormalise = c["norm_topk_prob"]
        self.gate = nn.Linear(d, n, bias=False)
        self.gate_up = nn.Parameter(torch.empty(n, 2 * inner, d))
        self.down = nn.Parameter(torch.empty(n, d, inner))

    def forward(self, x):
        rows = x.flatten(0, 1)
        logits = F.linear(rows, self.router())
        weights, ids, prob = self.choose(logits)
        if self.renormalise:
            weights = weights / weights.sum(-1, keepdim=True)
        gate_up, down = self.matrices("gate_up"), self.matrices("down")
        y = experts.by_expert(rows, ids, weights, len(down), lambda e, run: experts.swiglu(run, gate_up[e], down[e]))
        if not self.training:
            return y.view_as(x), {}
        return y.view_as(x), {"balance": experts.balance_loss(prob, ids), "z": logits.logsumexp(-1).square().mean(),
                              **self.losses(logits, logits[:, :self.n], prob)}


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.self_attn = Attention(c)
        self.post_attention_layernorm = nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.mlp = Mixture(c)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        y, losses = self.mlp(self.post_attention_layernorm(x))
        return x + y, losses


class Model(nn.Module):
    LOSSES = {"balance": 0.01, "z": 0.001}  # the paper's; losses without a weight here are measured only

    def __init__(self, c):
        super().__init__()
        self.config = c
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.lm_head = None if c["tie_word_embeddings"] else nn.Linear(c["hidden_size"], c["vocab_size"], bias=False)
        self.init()

    @torch.no_grad()
    def init(self):
        """Normal weights; what writes to the residual stream is smaller with depth, so that it starts near 1 in any."""
        depth = math.sqrt(2 * len(self.layers))
        for name, p in self.named_parameters():
            if p.dim() > 1:
                spread = 0.02 if "embed" in name or "gate.weight" in name else p.shape[-1] ** -0.5 / 2
                p.normal_(0, spread / depth if "o_proj" in name or name.endswith("down") else spread)

    def angles(self, length, device):
        half = self.config["hidden_size"] // self.config["num_attention_heads"] // 2
        theta = self.config["rope_theta"] ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.outer(torch.arange(length, dtype=torch.float64), theta).repeat(1, 2)
        return angle.cos().float().to(device), angle.sin().float().to(device)

    def forward(self, ids, y=None):
        """ids [batch, length] -> logits [batch, length, vocabulary] (with y, the mean cross entropy of what follows each), and the mean
        over layers of every routing loss (training only)."""
        x = self.embed_tokens(ids)
        cos, sin = self.angles(ids.shape[1], ids.device)
        losses = []
        for layer in self.layers:
            x, of_layer = layer(x, cos, sin)
            losses.append(of_layer)
        head = self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight
        return experts.head_or_entropy(self.norm(x), head, y), experts.mean_losses(losses)

    def mixtures(self):
        return [layer.mlp for layer in self.layers]

    # ---------------------------------------------------------------- the published layout
    def tensors(self):
        """Name -> tensor, as a download has them."""
        out = {}
        for name, p in self.state_dict().items():
            if name.endswith("mlp.gate_up"):
                for e, pair in enumerate(p):
                    gate, up = pair.chunk(2)
                    out[f"model.{name[:-7]}experts.{e}.gate_proj.weight"] = gate
                    out[f"model.{name[:-7]}experts.{e}.up_proj.weight"] = up
            elif name.endswith("mlp.down"):
                for e, down in enumerate(p):
                    out[f"model.{name[:-4]}experts.{e}.down_proj.weight"] = down
            else:
                out[name if name.startswith("lm_head") else "model." + name] = p
        return out

    @torch.no_grad()
    def load_tensors(self, tensors):
        mine = self.tensors()
        if mine.keys() != tensors.keys():
            raise ValueError(f"tensors missing or unknown: {sorted(mine.keys() ^ tensors.keys())[:4]}")
        for name, tensor in tensors.items():  # the views above reach into the stacks
            mine[name].copy_(tensor)
