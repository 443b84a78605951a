"""A layer of experts, computed expert by expert over the rows that chose it: no capacity, no row dropped; what packs and pruning do to it.
And the head's loss."""
import torch
from torch import nn
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


def mean_losses(layers):
    """Of a list of dicts: the mean of every loss over those that have it."""
    names = {name for losses in layers for name in losses}
    return {name: sum(values) / len(values) for name in sorted(names) if (values := [losses[name] for losses in layers if name in losses])}


class Mixture(nn.Module):
    """A layer of experts as packs, pruning and statistics see it, whatever the family. A pack has its likes of the layer's router rows and of
    its stacks, one matrix per expert that computes: new_router, new_STACK. Its experts are numbered behind all of the layer's own."""

    def __init__(self, n, n_ffn, k, router, stacks):
        """n experts, of which the first n_ffn compute; router, stacks: names of parameters, the gate's last layer [n, width], [n_ffn, ...]."""
        super().__init__()
        self.n, self.n_ffn, self.k = n, n_ffn, k
        self.names = {"router": router, **{name.removesuffix(".weight"): name for name in stacks}}
        self.absent = None  # bool [experts]: left out of the router, as by pruning
        self.old_rows = None  # bool [rows]: of text that the frozen experts know
        self.picks = None  # [rows, k] of the last pass, for statistics
        self.few = None  # into how many experts a text is to be drawn

    def new(self, name):
        return getattr(self, "new_" + name, None)

    @torch.no_grad()
    def grow(self, order, noise):
        """Adds a copy of each expert named, with noise, router row and all: it is chosen where its original was, and parts from it."""
        for name, of in self.names.items():
            p = self.get_parameter(of)
            setattr(self, "new_" + name, nn.Parameter(p[order] + noise * p[order].std() * torch.randn_like(p[order])))

    def router(self):
        own, new = self.get_parameter(self.names["router"]), self.new("router")
        return own if new is None else torch.cat([own, new])

    def matrices(self, stack):
        """Of every expert that computes, the added ones last."""
        own, new = self.get_parameter(self.names[stack]), self.new(stack)
        return own.unbind(0) if new is None else (*own.unbind(0), *new.unbind(0))

    def choose(self, scores):
        """scores [rows, experts] -> weights and ids [rows, k], best first, and all probabilities."""
        if self.absent is not None:
            scores = scores.masked_fill(self.absent, -torch.inf)
        prob = scores.softmax(-1)
        weights, self.picks = prob.topk(self.k, -1)
        return weights, self.picks, prob

    def losses(self, scores, own, prob):
        """`old`: the divergence, on old rows, of this routing from that by `own`, the scores of the layer's own experts without a pack.
        `spread`: how much of the mean routing goes beside the `few` experts that compute most, as -log(1 - share)."""
        losses = {}
        if self.old_rows is not None:
            without, moved = own[self.old_rows].log_softmax(-1), scores[self.old_rows].log_softmax(-1)[:, :self.n]
            losses["old"] = (without.exp() * (without - moved)).sum(-1).mean()
        if self.few is not None:
            mean = prob[:, :self.n_ffn].mean(0)
            losses["spread"] = mean.sum().log() - mean.topk(self.few).values.sum().log()
        return losses

    def pack_experts(self):
        """As a pack has them (docs/packs.md): of every added expert its matrices by role, [n_out, n_in]."""
        stacks = [self.new(name).detach() for name in self.names if name != "router"]
        return [{role: m.numpy() for role, m in self.roles(*matrices).items()} for matrices in zip(*stacks)]

    def pack_router(self):
        return {"router": self.new_router.detach().numpy()}


def swiglu_roles(gate_up, down):
    gate, up = gate_up.chunk(2)
    return {"gate": gate, "up": up, "down": down}


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
