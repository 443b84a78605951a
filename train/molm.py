"""MoLM (ModuleFormer, arXiv 2306.04640) in PyTorch: stick-breaking attention whose queries and outputs are experts, MLP experts, and
the mutual-information loss."""
import math

import torch
from torch import nn
import torch.nn.functional as F

from train import experts, olmoe

MODEL_TYPE = "moduleformer"
SMALL = {"n_embd": 128, "n_layer": 5, "n_head": 1, "att_hidden": 128, "n_att_experts": 8, "k_att": 2, "ffd_hidden": 96, "n_mlp_experts": 16,
         "k_mlp": 4, "gating_size": 32, "gate_type": "mlp", "block_size": 512, "history_length": 512}


def config(vocab_size, eos, **changes):
    return {"architectures": ["ModuleFormerForCausalLM"], "model_type": MODEL_TYPE, "vocab_size": vocab_size, "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5, "tie_word_embeddings": False, "bos_token_id": eos, "eos_token_id": eos, "att_func": "stickbreaking",
            "moe_type": "moe", "pre_norm": True, "universal": False, "torch_dtype": "float32", **SMALL, **changes}


def information_loss(prob):
    """Minus the mutual information of tokens and experts: certain for each token, even over all of them."""
    mean = prob.mean(0)
    even = -(mean * mean.clamp_min(1e-12).log()).sum()
    certain = -(prob * prob.clamp_min(1e-12).log()).sum(-1).mean()
    return certain - even


class Gate(nn.Module):
    def __init__(self, c, n):
        super().__init__()
        if c["gate_type"] == "mlp":
            self.w_gate = nn.Sequential(nn.Linear(c["n_embd"], c["gating_size"]), nn.GELU(), nn.Identity(),
                                        nn.Linear(c["gating_size"], n, bias=False))
        elif c["gate_type"] == "linear":
            self.w_gate = nn.Sequential(nn.Linear(c["n_embd"], n, bias=False))
        else:
            raise ValueError(f"gate_type {c['gate_type']}: mlp and linear are trained here")


class Experts(nn.Module):
    """Stored [expert, in, out], as published."""

    def __init__(self, n, d_in, d_out):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n, d_in, d_out))


class Pairs(experts.Mixture):
    """Experts of two matrices, into some width and out of it: of attention, the query and the output."""

    def __init__(self, c, n, k, width, roles):
        gate = Gate(c, n)
        super().__init__(n, n, k, f"gate.w_gate.{len(gate.w_gate) - 1}.weight", ("experts.weight", "output_experts.weight"))
        self.gate = gate
        self.experts, self.output_experts = Experts(n, c["n_embd"], width), Experts(n, width, c["n_embd"])
        self.roles = lambda into, out: {roles[0]: into.T, roles[1]: out.T}

    def route(self, rows):
        logits = F.linear(self.gate.w_gate[:-1](rows), self.router())
        weights, ids, prob = self.choose(logits)
        losses = {"information": information_loss(prob), **self.losses(logits, logits[:, :self.n], prob)} if self.training else {}
        return weights, ids, losses


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, width, self.heads = c["n_embd"], c["att_hidden"], c["n_head"]
        self.q_proj = Pairs(c, c["n_att_experts"], c["k_att"], width, "qo")
        if not (width == d and self.heads == 1):
            self.k_proj, self.v_proj = nn.Linear(d, width), nn.Linear(d, width)

    def forward(self, u):
        batch, length, d = u.shape
        k, v = (self.k_proj(u), self.v_proj(u)) if hasattr(self, "k_proj") else (u, u)
        rows, p = u.flatten(0, 1), self.q_proj
        weights, ids, losses = p.route(rows)
        n_picks = ids.shape[1]
        # a pick is a row of its own: its query, then its output, each by its expert
        picked = ids.flatten()
        q = one_expert_each(rows.repeat_interleave(n_picks, 0), picked, p.matrices("experts"))
        q = q.view(batch, length, n_picks, self.heads, -1)
        k, v = (t.view(batch, length, self.heads, -1) for t in (k, v))
        s = torch.einsum("bipha,bjha->bphij", q, k) / math.sqrt(q.shape[-1])
        seen = torch.ones(length, length, dtype=torch.bool, device=u.device).tril()
        rest = (-F.softplus(s)).masked_fill(~seen, 0.0)                       # log of what a key leaves of the stick
        newer = rest.flip(-1).cumsum(-1).flip(-1) - rest                      # of the keys after j, up to the row itself
        w = (F.logsigmoid(s) + newer).exp().masked_fill(~seen, 0.0)
        y = torch.einsum("bphij,bjha->bipha", w, v).reshape(len(rows) * n_picks, -1)
        y = one_expert_each(y, picked, p.matrices("output_experts")).view(len(rows), n_picks, d)
        y = (y * weights[..., None]).sum(1).view(batch, length, d)
        losses.pop("spread", None)  # of the experts that are pruned
        return y, losses


def one_expert_each(x, ids, stack):
    """x [rows, in], ids [rows], stack: [in, out] of each expert -> [rows, out]."""
    order = ids.argsort(stable=True)
    counts = torch.bincount(ids, minlength=len(stack)).tolist()
    y = torch.cat([run @ matrix for run, matrix in zip(x.index_select(0, order).split(counts), stack)])
    return torch.empty_like(y).index_copy(0, order, y)


class Mixture(Pairs):
    def __init__(self, c):
        super().__init__(c, c["n_mlp_experts"], c["k_mlp"], c["ffd_hidden"], ("up", "down"))

    def forward(self, u):
        rows = u.flatten(0, 1)
        weights, ids, losses = self.route(rows)
        up, down = self.matrices("experts"), self.matrices("output_experts")
        y = experts.by_expert(rows, ids, weights, len(up), lambda e, run: F.gelu(run @ up[e], approximate="tanh") @ down[e])
        return y.view_as(u), losses


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(c["n_embd"]), nn.LayerNorm(c["n_embd"])
        self.attn, self.mlpf = Attention(c), Mixture(c)

    def forward(self, x):
        y, first = self.attn(self.ln_1(x))
        x = x + y
        y, second = self.mlpf(self.ln_2(x))
        return x + y, [first, second]


class Model(nn.Module):
    LOSSES = {"information": 0.01}

    def __init__(self, c):
        super().__init__()
        self.config = c
        self.wte = nn.Embedding(c["vocab_size"], c["n_embd"])
        self.h = nn.ModuleList(Layer(c) for _ in range(c["n_layer"]))
        self.ln_f = nn.LayerNorm(c["n_embd"])
        self.lm_head = nn.Linear(c["n_embd"], c["vocab_size"], bias=False)
        self.init()

    @torch.no_grad()
    def init(self):
        depth = math.sqrt(2 * len(self.h))
        for name, p in self.named_parameters():
            if p.dim() > 1:
                fan_in = p.shape[1] if p.dim() == 3 else p.shape[-1]
                spread = 0.02 if "wte" in name or "w_gate" in name else fan_in ** -0.5 / 2
                p.normal_(0, spread / depth if "output_experts" in name else spread)
            elif name.endswith("bias"):
                p.zero_()

    def forward(self, ids, y=None):
        x, losses = self.wte(ids), []
        for layer in self.h:
            x, of_layer = layer(x)
            losses += of_layer
        return experts.head_or_entropy(self.ln_f(x), self.lm_head.weight, y), experts.mean_losses(losses)

    def mixtures(self):
        return [layer.mlpf for layer in self.h]

    def attention_mixtures(self):
        return [layer.attn.q_proj for layer in self.h]

    def tensors(self):
        return {n if n.startswith("lm_head") else "transformer." + n: p for n, p in self.state_dict().items()}

    load_tensors = olmoe.Model.load_tensors
