#!/usr/bin/env python3
"""Fine-tunes a base checkpoint so that a task lives in few experts, and measures what pruning costs then.

    specialise.py --base DIR --text FILE... --held-out FILE... --out DIR

The concentration loss is -log of what the --few most used experts of each layer have of its mean routing over a batch: it falls as the text
leaves the others. The balance loss is off. DIR gets the model in its published layout, prune.json and prune.png: bits per byte of the held-out text with the experts that the text
uses most, at 100, 75, 50, 40 and 25 % of each layer (never below top-k), for the base and for the specialised model. Only experts that
compute are counted and pruned: not MoE++'s zero-computation experts, and not MoLM's attention experts."""
import argparse
import math
import os
import shutil
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import torch  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from train import data, loop, progress, store  # noqa: E402

KEPT = (1.0, 0.75, 0.5, 0.4, 0.25)


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--base", required=True, metavar="DIR")
    ap.add_argument("--text", nargs="+", required=True, metavar="FILE")
    ap.add_argument("--held-out", nargs="+", required=True, metavar="FILE")
    ap.add_argument("--out", required=True, metavar="DIR")
    ap.add_argument("--concentrate", type=float, default=1.0, help="weight of the concentration loss")
    ap.add_argument("--few", type=float, default=0.4, metavar="SHARE", help="of a layer's experts, into which the text is drawn")
    ap.add_argument("--steps", type=int, default=500)
    ap.add_argument("--length", type=int, default=256)
    ap.add_argument("--batch", type=int, default=8)
    ap.add_argument("--rate", type=float, default=5e-4)
    ap.add_argument("--warmup", type=int, default=20)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--dtype", choices=("bf16", "f32"), default="bf16")
    return ap.parse_args()


@torch.no_grad()
def usage(model, stream, batches=4):
    """Picks of every expert that computes [layers, experts] over the first batches of the text."""
    counts = [torch.zeros(m.n, dtype=torch.long) for m in model.mixtures()]
    model.eval()
    for i in range(batches):
        model(stream.batch(i)[0])
        for count, m in zip(counts, model.mixtures()):
            count += torch.bincount(m.picks.flatten(), minlength=m.n)
    return [count[:m.n_ffn] for count, m in zip(counts, model.mixtures())]


def kept_of(m, share):
    return max(round(share * m.n_ffn), m.k)


def prune(model, counts, share):
    """Leaves the least used experts of every layer out of its router; returns how many stay in a layer."""
    for m, count in zip(model.mixtures(), counts):
        stay = kept_of(m, share)
        m.absent = torch.zeros(m.n, dtype=torch.bool)
        m.absent[count.argsort(descending=True, stable=True)[stay:]] = True
    return stay


def table(a, model, tokenizer, stream):
    counts, rows = usage(model, stream), []
    for share in KEPT:
        stay = prune(model, counts, share)
        rows.append({"share": share, "experts": stay, "bits_per_byte": round(data.bits_per_byte(model, tokenizer, a.held_out, a.length), 4)})
    for m in model.mixtures():
        m.absent = None
    return rows


def plot(path, tables):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(figsize=(6, 4))
    for name, rows in tables.items():
        axes.plot([100 * r["share"] for r in rows], [r["bits_per_byte"] for r in rows], "o-", label=name)
    axes.set_xlabel("experts kept, %")
    axes.set_ylabel("held out, bits per byte")
    axes.invert_xaxis()
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main():
    a = arguments()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    tokenizer = Tokenizer.from_file(os.path.join(a.base, "tokenizer.json"))
    model = store.load(a.base)
    stream = data.Stream(data.encode(tokenizer, a.text), a.length, a.batch, a.seed)
    tables = {"base": table(a, model, tokenizer, stream)}
    optimizer, schedule = loop.optimizer(model, a.rate), loop.Schedule(a.rate, a.warmup, a.steps, 0.3)
    bar = progress.Progress(a.steps, unit="steps")
    for m in model.mixtures():
        m.few = kept_of(m, a.few)
    model.train()
    for step in range(1, a.steps + 1):
        entropy, losses, _ = loop.step(model, optimizer, *stream.batch(step), schedule.rate(step - 1),
                                       weights={"z": 0.001, "spread": a.concentrate})
        bar.show(step, f"loss {entropy:.3f}, {1 - math.exp(-losses['spread']):.2%} of the routing beside the few")
    tables["specialised"] = table(a, model, tokenizer, stream)
    store.export(model, a.out, a.dtype)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if os.path.exists(os.path.join(a.base, name)):
            shutil.copy(os.path.join(a.base, name), a.out)
    store.write_json(os.path.join(a.out, "prune.json"), {"settings": {k: v for k, v in vars(a).items() if k not in ("base", "out", "text", "held_out")},
                                                         "text": [os.path.basename(p) for p in a.text], "tables": tables})
    plot(os.path.join(a.out, "prune.png"), tables)
    for name, rows in tables.items():
        whole = rows[0]["bits_per_byte"]
        print(f"{name:12}" + "".join(f"{100 * r['share']:5.0f} %: {r['bits_per_byte']:.4f} ({100 * (r['bits_per_byte'] / whole - 1):+.1f} %)" for r in rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
