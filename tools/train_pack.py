#!/usr/bin/env python3
"""Trains new experts for a base checkpoint (OLMoE): a pack. The base is frozen; what it knew stays.

    train_pack.py --base DIR --text FILE... --held-out FILE... --old-text FILE... --old-held-out FILE... --out PACK --experts N

Of every layer N experts and their router rows are new. They begin as copies of the base's most used ones on the new text, with noise.
A share of every batch is old text, on which the router is drawn to what it did without them (the divergence of the two routings).
Measures both held-out texts as it goes; keeps the best on the new text among those that lose at most --old-limit on the old, and stops when
--patience measurements bring nothing. PACK gets pack.json (where each tensor lies, its SHA-256, provenance, licence, evaluation) and
model.safetensors. --fingerprint is the base's, as `conclave` reports it: who serves the pack compares it."""
import argparse
import json
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import torch  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

import pack_files  # noqa: E402
from train import data, loop, progress, store  # noqa: E402

WEIGHTS = {"z": 0.001}


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--base", required=True, metavar="DIR")
    ap.add_argument("--out", required=True, metavar="PACK")
    ap.add_argument("--experts", type=int, required=True, metavar="N", help="new ones in each layer")
    for name, what in (("text", "to learn"), ("held-out", "to measure what was learnt"), ("old-text", "that the base was trained on"),
                       ("old-held-out", "to measure what was forgotten")):
        ap.add_argument("--" + name, nargs="+", required=True, metavar="FILE", help=what)
    ap.add_argument("--name", help="of the pack; the directory's by default")
    ap.add_argument("--version", default="1")
    ap.add_argument("--licence", default="", help="of the text, and so of the pack")
    ap.add_argument("--fingerprint", required=True, metavar="HEX", help="of the base: `conclave model` of its server has it")
    ap.add_argument("--steps", type=int, default=2000)
    ap.add_argument("--length", type=int, default=256)
    ap.add_argument("--batch", type=int, default=8)
    ap.add_argument("--replay", type=float, default=0.25, help="share of old text in a batch")
    ap.add_argument("--keep", type=float, default=1.0, help="weight of the routing's divergence on old text")
    ap.add_argument("--rate", type=float, default=2e-3)
    ap.add_argument("--warmup", type=int, default=50)
    ap.add_argument("--noise", type=float, default=0.1, help="on the copies, in standard deviations of what is copied")
    ap.add_argument("--old-limit", type=float, default=0.01, help="largest rise of the old text's bits per byte, as a share")
    ap.add_argument("--measure-every", type=int, default=100, metavar="STEPS")
    ap.add_argument("--measure-bytes", type=int, default=30000, help="of each held-out file, while training")
    ap.add_argument("--patience", type=int, default=5, metavar="MEASUREMENTS")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--dtype", choices=("bf16", "f32"), default="bf16")
    return ap.parse_args()


@torch.no_grad()
def most_used(model, stream, n):
    """Of every layer the n experts that the text uses most, best first; again from the first if there are fewer."""
    model(stream.batch(0)[0])
    orders = []
    for layer in model.layers:
        used = torch.bincount(layer.mlp.picks.flatten(), minlength=len(layer.mlp.gate.weight))
        order = used.argsort(descending=True)
        orders.append(order.repeat(-(-n // len(order)))[:n])
    return orders


def write(a, model, evaluation):
    """The pack in a.out: tensors, and a manifest that names each of them."""
    kind = {"bf16": torch.bfloat16, "f32": torch.float32}[a.dtype]
    raw = lambda t: t.detach().to(kind).contiguous().clone().view(torch.uint8).numpy().tobytes()
    tensors = {n: pack_files.Stored(a.dtype.upper(), tuple(t.shape), raw(t)) for n, t in model.pack_tensors().items()}
    layers = []
    for l in range(len(model.layers)):
        roles = ("gate", "up", "down")
        layers.append({"layer": l, "router": f"layers.{l}.router.weight",
                       "experts": [{role: f"layers.{l}.experts.{e}.{role}_proj.weight" for role in roles} for e in range(a.experts)]})
    pack_files.write_pack(a.out, {
        "kind": "add", "name": a.name or os.path.basename(os.path.abspath(a.out)), "version": a.version, "family": model.config["model_type"],
        "base": a.fingerprint, "licence": a.licence,
        "provenance": {"text": [os.path.basename(p) for p in a.text], "old_text": [os.path.basename(p) for p in a.old_text], "seed": a.seed,
                       "rate": a.rate, "replay": a.replay, "keep": a.keep, "noise": a.noise, "window": a.length, "batch": a.batch,
                       "torch": torch.__version__},
        "evaluation": evaluation}, layers, tensors)


def main():
    a = arguments()
    if os.path.lexists(a.out): 
        sys.exit(f"{a.out} exists already")
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    tokenizer = Tokenizer.from_file(os.path.join(a.base, "tokenizer.json"))
    model = store.load(a.base)
    if not hasattr(model, "pack_tensors"):
        sys.exit(f"{a.base}: packs are trained for olmoe; this is {model.config['model_type']}")
    n_old = round(a.batch * a.replay)
    if not 0 < n_old < a.batch:
        sys.exit(f"--replay {a.replay} of --batch {a.batch} windows is {n_old}; both texts need at least one")
    new = data.Stream(data.encode(tokenizer, a.text), a.length, a.batch - n_old, a.seed)
    old = data.Stream(data.encode(tokenizer, a.old_text), a.length, n_old, a.seed)
    measure = lambda paths, limit=None: data.bits_per_byte(model, tokenizer, paths, a.length, limit)
    before = {"new": measure(a.held_out), "old": measure(a.old_held_out)}
    quick = {"new": measure(a.held_out, a.measure_bytes), "old": measure(a.old_held_out, a.measure_bytes)}

    for p in model.parameters():
        p.requires_grad_(False)
    is_old = (torch.arange(a.batch) >= a.batch - n_old).repeat_interleave(a.length)
    for layer, order in zip(model.layers, most_used(model, new, a.experts)):
        layer.mlp.grow(order, a.noise)
        layer.mlp.old_rows = is_old
    optimizer = loop.optimizer(model, a.rate)
    schedule = loop.Schedule(a.rate, a.warmup, a.steps, 0.3)
    weights = {**WEIGHTS, "old": a.keep}
    bar = progress.Progress(a.steps, unit="steps")
    bar.line(f"base: {before['new']:.4f} bits per byte of the new text, {before['old']:.4f} of the old")
    added = lambda: {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    best, kept, idle = float("inf"), added(), 0
    model.train()
    for step in range(1, a.steps + 1):
        x, y = (torch.cat(pair) for pair in zip(new.batch(step), old.batch(step)))
        entropy, losses, _ = loop.step(model, optimizer, x, y, schedule.rate(step - 1), weights=weights)
        bar.show(step, f"loss {entropy:.3f}, routing moved {losses['old']:.4f}")
        if step % a.measure_every == 0 or step == a.steps:
            now = {"new": measure(a.held_out, a.measure_bytes), "old": measure(a.old_held_out, a.measure_bytes)}
            fits = now["old"] <= quick["old"] * (1 + a.old_limit)
            bar.line(f"step {step}: new {now['new']:.4f} (base {quick['new']:.4f}), old {now['old']:.4f} (base {quick['old']:.4f})"
                     + ("" if fits else ": too much lost"))
            idle += 1
            if fits and now["new"] < best:
                best, kept, idle = now["new"], added(), 0
            if idle >= a.patience:
                bar.line(f"stopped: nothing better in {a.patience} measurements")
                break
    if best == float("inf"):
        sys.exit(f"no measurement kept the old text within {a.old_limit:.1%}: try a larger --keep or --replay")
    model.load_state_dict(kept, strict=False)
    after = {"new": measure(a.held_out), "old": measure(a.old_held_out)}
    evaluation = {"bits_per_byte": {"base": before, "with_pack": after}, "held_out": [os.path.basename(p) for p in a.held_out],
                  "old_held_out": [os.path.basename(p) for p in a.old_held_out], "steps": step}
    write(a, model, evaluation)
    bar.line(json.dumps(evaluation["bits_per_byte"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
