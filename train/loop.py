"""The training loop: warm up, stay, decay; stopped and resumed at any step with the same result up to rounding."""
import os
import signal

import torch

from train.muon import Muon, Together


class Schedule:
    """Learning rate: linear warm-up, then constant, then 1 - sqrt down to nothing over the last `decay_share` of all tokens. While it
    is constant nothing depends on how long training will go on, so that a decay can begin at any checkpoint."""

    def __init__(self, peak, warmup, total, decay_share, decay_from=None):
        self.peak, self.warmup, self.total = peak, warmup, total
        self.decay_from = int(total * (1 - decay_share)) if decay_from is None else decay_from

    def rate(self, step):
        if step >= self.decay_from:
            return self.peak * (1 - ((step - self.decay_from) / max(self.total - self.decay_from, 1)) ** 0.5)
        return self.peak * min(1.0, (step + 1) / self.warmup)


INSIDE = ("_proj.weight", "experts.weight", "experts", "up", "down")  # ends of the names of the matrices that Muon trains
MUON_SHARE = 6.0  # its learning rate, as a multiple of AdamW's


def optimizer(model, rate, decay=0.1):
    """Muon for attention's matrices and the experts', AdamW for embeddings, routers and vectors; vectors are not decayed. A group's rate
    is `rate` times its `share`."""
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    inside = {n: p for n, p in trained.items() if p.dim() > 1 and n.endswith(INSIDE)}
    others = [p for n, p in trained.items() if n not in inside]
    settings = {"share": MUON_SHARE, "weight_decay": decay / MUON_SHARE}
    groups = [[{"params": [p for n, p in inside.items() if n.endswith("up") == halves], "halves": halves, **settings} for halves in (False, True)],
              [{"params": [p for p in others if p.dim() > 1], "weight_decay": decay},
               {"params": [p for p in others if p.dim() <= 1], "weight_decay": 0.0}]]
    inside, others = ([g for g in kind if g["params"]] for kind in groups)
    members = [Muon(inside, rate)] if inside else []
    if others:
        members.append(torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), eps=1e-8, fused=True))
    return Together(*members)


def save(path, state):
    """Whole or not at all; the one before stays as .old."""
    torch.save(state, path + ".part")
    if os.path.exists(path):
        os.replace(path, path + ".old")
    os.replace(path + ".part", path)


def asked_to_stop():
    """A list that has something in it once SIGINT or SIGTERM has come."""
    asked = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.append(True))
    return asked


class Alone:
    """One process trains; the shape of Workers."""
    rank, n = 0, 1

    def reduce(self, model, stop):
        return stop


class Workers:
    """Processes that each take a share of every step's windows and add up their gradients. On a CPU with few cores this is faster than
    one process with threads, which wait for each other after every product."""

    def __init__(self, rank, n, port):
        torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=n)
        self.rank, self.n = rank, n

    def reduce(self, model, stop):
        """Averages the gradients; true if any worker is to stop, so that all do after the same step."""
        trained = [p for p in model.parameters() if p.requires_grad]
        parts = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in trained]
        flat = torch.cat([*parts, torch.tensor([float(stop)])])
        torch.distributed.all_reduce(flat)
        for p, grad in zip(trained, flat[:-1].div_(self.n).split([p.numel() for p in trained])):
            p.grad = grad.view_as(p)
        return flat[-1].item() > 0


def step(model, optimizer, x, y, rate, clip=1.0, weights=None, workers=Alone(), stop=False):
    """One update. Returns the cross entropy and the routing losses as floats, and whether to stop. `weights` of routing losses: by default
    the family's."""
    weights = model.LOSSES if weights is None else weights
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("share", 1.0)
    entropy, losses = model(x, y)
    loss = entropy + sum(weights[name] * value for name, value in losses.items() if name in weights)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    stop = workers.reduce(model, stop)
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], clip)
    optimizer.step()
    return entropy.item(), {name: value.item() for name, value in losses.items()}, stop


@torch.no_grad()
def sample(model, tokenizer, prompt, n, temperature=0.8, top_p=0.95, seed=1, device="cpu"):
    """A continuation; slow and obvious, for the log only."""
    model.eval()
    rng = torch.Generator().manual_seed(seed)
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    end = tokenizer.token_to_id("<|endoftext|>")
    limit = model.config.get("max_position_embeddings") or model.config["block_size"]
    for _ in range(n):
        logits = model(torch.tensor([ids[-limit:]], device=device))[0][0, -1].cpu()
        p, order = (logits / temperature).softmax(-1).sort(descending=True)
        p = p * (p.cumsum(-1) - p < top_p)
        token = order[torch.multinomial(p, 1, generator=rng)].item()
        if token == end:
            break
        ids.append(token)
    model.train()
    return tokenizer.decode(ids)


def plot(path, curve, measured):
    """curve: (tokens, loss in nats per token, smoothed); measured: (tokens, held-out bits per byte)."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    figure, left = plt.subplots(figsize=(7, 4))
    left.plot([t / 1e6 for t, _ in curve], [v for _, v in curve], color="tab:blue", linewidth=1)
    left.set_xlabel("million tokens")
    left.set_ylabel("training loss, nats per token", color="tab:blue")
    right = left.twinx()
    right.plot([t / 1e6 for t, _ in measured], [v for _, v in measured], "o-", color="tab:red", markersize=3, linewidth=1)
    right.set_ylabel("held out, bits per byte", color="tab:red")
    left.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
