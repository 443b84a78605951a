"""Muon (Jordan et al. 2024): momentum whose singular values are made even before it is applied, for the matrices inside of a network."""
import torch

STEPS = ((3.4445, -4.7750, 2.0315),) * 5  # of the Newton-Schulz iteration: to between 0.7 and 1.2, which is as good as 1


def orthogonal(g):
    """The nearest matrices with even singular values, about. g [n, rows, columns]; rows <= columns is cheaper and is seen to."""
    x = g.mT if g.shape[-2] > g.shape[-1] else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for a, b, c in STEPS:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if g.shape[-2] > g.shape[-1] else x


def orthogonal_by_all(g):
    """The same, each worker taking a share of the matrices."""
    if not torch.distributed.is_initialized():
        return orthogonal(g)
    shares = [share.contiguous() for share in g.tensor_split(torch.distributed.get_world_size())]
    rank = torch.distributed.get_rank()
    shares[rank] = orthogonal(shares[rank]).contiguous()
    for of, share in enumerate(shares):
        torch.distributed.broadcast(share, of)
    return torch.cat(shares)


class Muon(torch.optim.Optimizer):
    """Parameters [..., rows, columns]. `halves`: the rows of a stack are two matrices, as gate and up are; each is a matrix of its own."""

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.0, halves=False):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "halves": halves})

    @torch.no_grad()
    def step(self):
        alike = {}  # all matrices of one shape at once, in the same order in all workers
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                mean = self.state[p].setdefault("momentum", torch.zeros_like(p))
                mean.lerp_(p.grad, 1 - group["momentum"])
                rows = p.shape[-2] // 2 if group["halves"] else p.shape[-2]
                direction = p.grad.lerp(mean, group["momentum"]).view(-1, rows, p.shape[-1])
                alike.setdefault(direction.shape[1:], []).append((group, p, direction))
        for (rows, columns), members in alike.items():
            updates = orthogonal_by_all(torch.cat([d for _, _, d in members])).split([len(d) for _, _, d in members])
            for (group, p, _), update in zip(members, updates):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update.reshape(p.shape), alpha=-group["lr"] * max(1, rows / columns) ** 0.5)


class Together:
    """Several optimizers as one."""

    def __init__(self, *members):
        self.members = members
        self.param_groups = [g for m in members for g in m.param_groups]

    def zero_grad(self, set_to_none=True):
        for m in self.members:
            m.zero_grad(set_to_none)

    def step(self):
        for m in self.members:
            m.step()

    def state_dict(self):
        return [m.state_dict() for m in self.members]

    def load_state_dict(self, states):
        for m, state in zip(self.members, states, strict=True):
            m.load_state_dict(state)
        self.param_groups = [g for m in self.members for g in m.param_groups]
