#!/usr/bin/env python3
"""Trains new experts for a base checkpoint of any family that is trained here: a pack. The base is frozen; what it knew stays.

    train_pack.py --base DIR --text FILE... --held-out FILE... --old-text FILE... --old-held-out FILE... --out PACK --experts N

Of every layer N experts and their router rows are new. They begin as copies of the base's most used ones on the new text, with noise.
A share of every batch is old text, of each --old-text file as much, on which the router is drawn to what it did without them (the divergence of
the two routings). Measures both held-out texts as it goes; keeps the best on the new text among those that lose at most --old-limit on the old, and
stops when --patience measurements bring nothing. PACK gets pack.json (where each tensor lies, its SHA-256, provenance, licence, evaluation) and
model.safetensors. --fingerprint is the base's, as `conclave` reports it: who serves the pack compares it.
Stop with Ctrl-C (SIGINT) or SIGTERM: the same command goes on from PACK.checkpoint.pt, which goes when PACK is there."""
import argparse
import json
import os
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import torch  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

import checkpoint_experts  # noqa: E402
import make_pack  # noqa: E402
import pack_files  # noqa: E402
from train import data, loop, progress, store  # noqa: E402

WEIGHTS = {"z": 0.001}
FREE = ("threads", "checkpoint_every", "patience", "name", "version", "licence", "fingerprint")  # may be others when a run goes on


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--base", required=True, metavar="DIR")
    ap.add_argument("--out", required=True, metavar="PACK")
    ap.add_argument("--experts", type=int, required=True, metavar="N", help="new ones in each layer")
    ap.add_argument("--attention", type=int, default=0, metavar="N", help="new attention experts in each layer, of a family that has them (none)")
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
    ap.add_argument("--replay", type=float, default=0.5, help="share of old text in a batch (0.5)")
    ap.add_argument("--keep", type=float, default=0.5, help="weight of the routing's divergence on old text (0.5)")
    ap.add_argument("--rate", type=float, default=2e-3)
    ap.add_argument("--warmup", type=int, default=50)
    ap.add_argument("--noise", type=float, default=0.1, help="on the copies, in standard deviations of what is copied")
    ap.add_argument("--old-limit", type=float, default=0.01, help="largest rise of the old text's bits per byte, as a share")
    ap.add_argument("--measure-every", type=int, default=100, metavar="STEPS")
    ap.add_argument("--measure-bytes", type=int, default=30000, help="of each held-out file, while training")
    ap.add_argument("--patience", type=int, default=5, metavar="MEASUREMENTS")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--checkpoint-every", type=float, default=120, metavar="SECONDS")
    return ap.parse_args()


@torch.no_grad()
def grow(a, model, stream):
    """Copies of the experts that each layer uses most on the text, best first; again from the first if there are fewer. Returns what grew."""
    if a.attention and not hasattr(model, "attention_mixtures"):
        sys.exit(f"--attention: {model.config['model_type']} has no attention experts")
    model(stream.batch(0)[0])
    grown = [(m, a.experts) for m in model.mixtures()] + [(m, a.attention) for m in (model.attention_mixtures() if a.attention else [])]
    for m, n in grown:
        order = torch.bincount(m.picks.flatten(), minlength=m.n)[:m.n_ffn].argsort(descending=True)
        m.grow(order.repeat(-(-n // len(order)))[:n], a.noise)
    return [m for m, _ in grown]


class Run:
    """What training has come to. `best`: of the new text, and `kept`, the experts that had it; `idle`: measurements since."""

    def __init__(self, a, model, optimizer):
        self.model, self.optimizer, self.path = model, optimizer, a.out + ".checkpoint.pt"
        self.settings = {k: v for k, v in vars(a).items() if k not in FREE}
        self.step, self.best, self.kept, self.idle = 0, float("inf"), self.added(), 0
        self.before = self.quick = None
        if os.path.exists(self.path):
            state = torch.load(self.path, weights_only=True)
            other = [k for k, v in self.settings.items() if state["settings"].get(k) != v]
            if other:
                sys.exit(f"{self.path} is of a run with another {', '.join(other)}: remove it to begin anew")
            model.load_state_dict(state.pop("model"), strict=False)
            optimizer.load_state_dict(state.pop("optimizer"))
            self.__dict__.update(state)

    def added(self):
        return {n: p.detach().clone() for n, p in self.model.named_parameters() if p.requires_grad}

    def save(self):
        loop.save(self.path, {"model": self.added(), "optimizer": self.optimizer.state_dict(),
                              **{k: v for k, v in self.__dict__.items() if k not in ("model", "optimizer", "path")}})

    def end(self):
        for path in (self.path, self.path + ".old"):
            if os.path.exists(path):
                os.remove(path)


def write(a, model, evaluation):
    """The pack in a.out: tensors, and a manifest that names each of them."""
    pack = make_pack.Pack(checkpoint_experts.open_model(a.base), "add")
    for l, m in enumerate(model.mixtures()):
        pack.add_layer(l, m.pack_experts(), [], **m.pack_router())
        if a.attention:
            attention = model.attention_mixtures()[l]
            pack.add_attention(attention.pack_experts(), **attention.pack_router())
    pack_files.write_pack(a.out, {
        "kind": "add", "name": a.name or os.path.basename(os.path.abspath(a.out)), "version": a.version, "family": model.config["model_type"],
        "base": a.fingerprint, "licence": a.licence,
        "provenance": {"text": [os.path.basename(p) for p in a.text], "old_text": [os.path.basename(p) for p in a.old_text], "seed": a.seed,
                       "rate": a.rate, "replay": a.replay, "keep": a.keep, "noise": a.noise, "window": a.length, "batch": a.batch,
                       "torch": torch.__version__},
        "evaluation": evaluation}, pack.layers, pack.tensors)


def main():
    a = arguments()
    if os.path.lexists(a.out):
        sys.exit(f"{a.out} exists already")
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    tokenizer = Tokenizer.from_file(os.path.join(a.base, "tokenizer.json"))
    model = store.load(a.base)
    n_old = round(a.batch * a.replay)
    if not 0 < n_old < a.batch:
        sys.exit(f"--replay {a.replay} of --batch {a.batch} windows is {n_old}; both texts need at least one")
    new = data.Stream(data.encode(tokenizer, a.text), a.length, a.batch - n_old, a.seed)
    old = data.Evenly([data.encode(tokenizer, [p]) for p in a.old_text], a.length, n_old, a.seed)
    measure = lambda limit=None: {"new": data.bits_per_byte(model, tokenizer, a.held_out, a.length, limit),
                                  "old": data.bits_per_byte(model, tokenizer, a.old_held_out, a.length, limit)}
    for p in model.parameters():
        p.requires_grad_(False)
    asked = loop.asked_to_stop()
    before = None if os.path.exists(a.out + ".checkpoint.pt") else (measure(), measure(a.measure_bytes))
    is_old = (torch.arange(a.batch) >= a.batch - n_old).repeat_interleave(a.length)
    for m in grow(a, model, new):
        m.old_rows = is_old
    run = Run(a, model, loop.optimizer(model, a.rate))
    if before:
        run.before, run.quick = before
    schedule = loop.Schedule(a.rate, a.warmup, a.steps, 0.3)
    weights = {**WEIGHTS, "old": a.keep}
    bar = progress.Progress(a.steps, run.step, unit="steps")
    bar.line(f"base: {run.before['new']:.4f} bits per byte of the new text, {run.before['old']:.4f} of the old"
             + (f"; going on from step {run.step}" if run.step else ""))
    model.train()
    saved = time.monotonic()
    while run.step < a.steps and run.idle < a.patience and not asked:
        run.step += 1
        x, y = (torch.cat(pair) for pair in zip(new.batch(run.step), old.batch(run.step)))
        entropy, losses, _ = loop.step(model, run.optimizer, x, y, schedule.rate(run.step - 1), weights=weights)
        bar.show(run.step, f"loss {entropy:.3f}, routing moved {losses['old']:.4f}")
        if run.step % a.measure_every == 0 or run.step == a.steps:
            now = measure(a.measure_bytes)
            fits = now["old"] <= run.quick["old"] * (1 + a.old_limit)
            bar.line(f"step {run.step}: new {now['new']:.4f} (base {run.quick['new']:.4f}), old {now['old']:.4f} (base {run.quick['old']:.4f})"
                     + ("" if fits else ": too much lost"))
            run.idle += run.best < float("inf")  # that nothing fits yet is no reason to stop: the rate has yet to fall
            if fits and now["new"] < run.best:
                run.best, run.kept, run.idle = now["new"], run.added(), 0
        if time.monotonic() - saved > a.checkpoint_every:
            run.save()
            saved = time.monotonic()
    if run.step < a.steps and run.idle < a.patience:
        run.save()
        bar.line(f"stopped at step {run.step}; the same command goes on from there")
        return 0
    if run.idle >= a.patience:
        bar.line(f"stopped: nothing better in {a.patience} measurements")
    if run.best == float("inf"):
        run.end()
        sys.exit(f"no measurement kept the old text within {a.old_limit:.1%}: try a larger --keep or --replay")
    model.load_state_dict(run.kept, strict=False)
    evaluation = {"bits_per_byte": {"base": run.before, "with_pack": measure()}, "held_out": [os.path.basename(p) for p in a.held_out],
                  "old_held_out": [os.path.basename(p) for p in a.old_held_out], "steps": run.step}
    write(a, model, evaluation)
    run.end()
    bar.line(json.dumps(evaluation["bits_per_byte"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
