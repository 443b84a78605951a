"""A layer of experts, computed expert by expert over the rows that chose it: no capacity, no row dropped. And the head's loss."""
import torch
import torch.nn.functional as F


def sum_picks(y, back):
    return F.embedding_bag(back, y, mode="sum")  # several times faster than index_add on a CPU


class Gather(torch.autograd.Function):
    """x [rows, d] -> x[order] [picks, d]. `back` [rows, k]: where each row's picks are in that order."""

    @staticmethod
    def forward(ctx, x, order, back):
        ctx.save_for_backward(back)
        return F.embedding(order, x)

    @staticmethod
    def backward(ctx, grad):
        return sum_picks(grad, *ctx.saved_tensors), None, None


class Combine(torch.autograd.Function):
    """y [picks, d] -> the sum of each row's picks [rows, d]: Gather's transpose."""

    @staticmethod
    def forward(ctx, y, order, back):
        ctx.save_for_backward(order)
        return sum_picks(y, back)

    @staticmethod
    def backward(ctx, grad):
        return F.embedding(*ctx.saved_tensors, grad), None, None


def by_expert(x, ids, weights, n_experts, ffn):
    """x [rows, d], ids and weights [rows, k] -> sum over the k picks of weight * ffn(expert, x) [rows, d].

    Rows are gathered once in the order of experts, so that each expert reads one run of them."""
    k = ids.shape[1]
    order = ids.flatten().argsort(stable=True)
    rows, back = order // k, torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    back = back.view(-1, k)
    counts = torch.bincount(ids.flatten(), minlength=n_experts).tolist()
    runs = Gather.apply(x, rows, back).split(counts)
    y = torch.cat([ffn(e, run) for e, run in enumerate(runs)])
    y = y * weights.flatten().index_select(0, order)[:, None]
    return Combine.apply(y, rows, back)


def swiglu(x, gate_up, down):
    gate, up = F.linear(x, gate_up).chunk(2, -1)
    return F.linear(F.silu(gate) * up, down)


def balance_loss(prob, ids):
    """n times the sum over experts of (share of rows that chose it) * (mean probability), as OLMoE's: k when both are even."""
    n = prob.shape[-1]
    share = torch.bincount(ids.flatten(), minlength=n).to(prob.dtype) / len(ids)
    return n * (share * prob.mean(0)).sum()


class HeadEntropy(torch.autograd.Function):
    """The mean cross entropy of softmax(x head^T), and its gradients at once, some rows at a time: the logits of a whole batch are
    several passes over more memory than a cache holds."""
    ROWS = 128

    @staticmethod
    def forward(ctx, x, head, y):
        dx, d_head, total = torch.empty_like(x), torch.zeros_like(head), x.new_zeros(())
        for i in range(0, len(x), HeadEntropy.ROWS):
            rows, want = x[i:i + HeadEntropy.ROWS], y[i:i + HeadEntropy.ROWS, None]
            p = rows @ head.t()
            largest = p.amax(-1, keepdim=True)
            right = p.gather(1, want) - largest
            p.sub_(largest).exp_()
            scale = p.sum(-1, keepdim=True)
            total += (scale.log() - right).sum()
            p.div_(scale * len(x)).scatter_add_(1, want, torch.full_like(right, -1 / len(x)))
            torch.mm(p, head, out=dx[i:i + HeadEntropy.ROWS])
            if ctx.needs_input_grad[1]:
                d_head.addmm_(p.t(), rows)
        ctx.save_for_backward(dx, d_head)
        return total / len(x)

    @staticmethod
    def backward(ctx, grad):
        dx, d_head = ctx.saved_tensors
        return dx * grad, d_head * grad, None


def head_or_entropy(x, head, y):
    """x [batch, length, d] -> logits [batch, length, vocabulary] without y, else the mean cross entropy of y [batch, length]."""
    return F.linear(x, head) if y is None else HeadEntropy.apply(x.flatten(0, 1), head, y.flatten())
