"""A layer of SwiGLU experts, computed expert by expert over the rows that chose it: no capacity, no row dropped."""
import torch
import torch.nn.functional as F


def by_expert(x, ids, weights, n_experts, ffn):
    """x [rows, d], ids and weights [rows, k] -> sum over the k picks of weight * ffn(expert, x) [rows, d].

    Rows are gathered once in the order of experts, so that each expert reads one run of them."""
    k = ids.shape[1]
    order = ids.flatten().argsort(stable=True)
    rows = order // k
    counts = torch.bincount(ids.flatten(), minlength=n_experts).tolist()
    runs = x.index_select(0, rows).split(counts)
    y = torch.cat([ffn(e, run) for e, run in enumerate(runs)])
    y = y * weights.flatten().index_select(0, order)[:, None]
    return torch.zeros_like(x).index_add_(0, rows, y)


def swiglu(x, gate_up, down):
    gate, up = F.linear(x, gate_up).chunk(2, -1)
    return F.linear(F.silu(gate) * up, down)


def balance_loss(prob, ids):
    """n times the sum over experts of (share of rows that chose it) * (mean probability), as OLMoE's: k when both are even."""
    n = prob.shape[-1]
    share = torch.bincount(ids.flatten(), minlength=n).to(prob.dtype) / len(ids)
    return n * (share * prob.mean(0)).sum()
