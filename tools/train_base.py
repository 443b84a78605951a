#!/usr/bin/env python3
"""Trains a small mixture of experts from nothing: tokenizer, model, in the published layout of its family.

    train_base.py --family olmoe --text FILE... --held-out FILE... --out DIR
    train_base.py ... --out DIR                the same again: goes on from DIR/checkpoint.pt
    train_base.py ... --out DIR --decay        from DIR/checkpoint.pt, lets the learning rate fall now, and exports

A file named twice is read twice as often. The learning rate is constant until it falls over the last --decay-share of the tokens, so
that training can be stopped anywhere and still be finished well: --decay leaves DIR/checkpoint.pt as it is, and a longer run goes on
from there. Stop with Ctrl-C (SIGINT) or SIGTERM: a checkpoint is written. DIR gets config.json, model.safetensors, tokenizer.json, curve.png and
training.json (settings, seed, measured figures). On a GPU: --device cuda."""
import argparse
import json
import os
import shutil
import signal
import socket
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import torch  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from train import data, loop, progress, store  # noqa: E402


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--family", choices=store.FAMILIES, default="olmoe")
    ap.add_argument("--text", nargs="+", required=True, metavar="FILE", help="UTF-8; a form feed ends a document")
    ap.add_argument("--held-out", nargs="+", default=[], metavar="FILE", help="measured on, never trained on")
    ap.add_argument("--out", required=True, metavar="DIR")
    ap.add_argument("--from", dest="start", metavar="FILE", help="begin with the weights of this checkpoint.pt, of another run, and its tokenizer")
    ap.add_argument("--tokens", type=float, default=30e6, help="to train on in all (30e6)")
    ap.add_argument("--set", action="append", default=[], metavar="KEY=JSON", help="of config.json, such as hidden_size=96")
    ap.add_argument("--vocab-size", type=int, default=4096)
    ap.add_argument("--length", type=int, default=512, help="tokens in a window")
    ap.add_argument("--batch", type=int, default=4, help="windows in a step")
    ap.add_argument("--rate", type=float, default=3e-3, help="learning rate at its highest")
    ap.add_argument("--warmup", type=int, default=100, metavar="STEPS")
    ap.add_argument("--decay-share", type=float, default=0.15)
    ap.add_argument("--decay", action="store_true", help="begin to decay at the checkpoint")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--workers", type=int, default=1, help="processes that share each step's windows; on a CPU, one per core")
    ap.add_argument("--threads", type=int, default=1, help="of each worker")
    ap.add_argument("--device", default="cpu")
    ap.add_argument("--dtype", choices=("bf16", "f32"), default="bf16", help="of the weights that are written")
    ap.add_argument("--measure-every", type=int, default=500, metavar="STEPS")
    ap.add_argument("--measure-bytes", type=int, default=30000, help="of each held-out file, while training")
    ap.add_argument("--checkpoint-every", type=float, default=120, metavar="SECONDS")
    ap.add_argument("--prompt", default="It was a fine morning, and")
    return ap.parse_args()


class Run:
    """What training has come to; `curve` and `measured` are (tokens, value)."""

    def __init__(self, a, model, optimizer):
        self.model, self.optimizer = model, optimizer
        self.path = os.path.join(a.out, "checkpoint.pt")
        self.step, self.seconds, self.curve, self.measured, self.decay_from = 0, 0.0, [], [], None
        decayed = os.path.join(a.out, "decay.pt")
        if a.decay and os.path.exists(decayed):
            self.load(decayed, a)
        elif os.path.exists(self.path):
            self.load(self.path, a)
        elif a.start:
            model.load_state_dict(torch.load(a.start, map_location=a.device, weights_only=True)["model"])
        if a.decay:
            self.path = decayed
            self.decay_from = self.step if self.decay_from is None else self.decay_from

    def load(self, path, a):
        state = torch.load(path, map_location=a.device, weights_only=True)
        self.model.load_state_dict(state.pop("model"))
        self.optimizer.load_state_dict(state.pop("optimizer"))
        self.__dict__.update(state)

    def save(self):
        loop.save(self.path, {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step,
                              "seconds": self.seconds, "curve": self.curve, "measured": self.measured, "decay_from": self.decay_from})


def train(rank, a, port):
    torch.set_num_threads(a.threads)
    workers = loop.Workers(rank, a.workers, port) if a.workers > 1 else loop.Alone()
    speaks = rank == 0  # measures, saves and prints; the others wait in the next step
    torch.manual_seed(a.seed)
    tokenizer = Tokenizer.from_file(os.path.join(a.out, "tokenizer.json"))
    vocab_size = -(-tokenizer.get_vocab_size() // 64) * 64
    module = store.family(a.family)
    changes = {k: json.loads(v) for k, v in (item.split("=", 1) for item in a.set)}
    model = module.Model(module.config(vocab_size, tokenizer.token_to_id(data.END), **changes)).to(a.device)
    n_parameters = sum(p.numel() for p in model.parameters())
    ids = data.encode(tokenizer, a.text)
    stream = data.Stream(ids, a.length, a.batch, a.seed)
    per_step = a.length * a.batch
    run = Run(a, model, loop.optimizer(model, a.rate))
    total = -(-int(a.tokens) // per_step)
    if run.decay_from is not None:
        total = run.decay_from + max(int(run.decay_from * a.decay_share / (1 - a.decay_share)), 1)
    schedule = loop.Schedule(a.rate, a.warmup, total, a.decay_share, run.decay_from)
    if speaks:
        print(f"{n_parameters:,} parameters, {len(ids):,} tokens of text, {sum(map(os.path.getsize, a.text)) / len(ids):.2f} bytes each; "
              f"{'from the beginning' if run.step == 0 else f'going on from step {run.step}'}", file=sys.stderr)

    asked = loop.asked_to_stop()
    bar = progress.Progress(total * per_step, run.step * per_step)
    saved, began, mean, stop = time.monotonic(), time.monotonic() - run.seconds, None, False
    model.train()
    while run.step < total and not stop:
        x, y = (t[rank::workers.n].to(a.device) for t in stream.batch(run.step))
        entropy, losses, stop = loop.step(model, run.optimizer, x, y, schedule.rate(run.step), workers=workers, stop=bool(asked))
        run.step += 1
        if not speaks:
            continue
        mean = entropy if mean is None else 0.98 * mean + 0.02 * entropy
        run.seconds = time.monotonic() - began
        bar.show(run.step * per_step, f"loss {mean:.3f}, " + ", ".join(f"{n} {v:.2f}" for n, v in losses.items()))
        if run.step % 20 == 0:
            run.curve.append((run.step * per_step, mean))
        if a.held_out and (run.step % a.measure_every == 0 or run.step == total):
            bpb = data.bits_per_byte(model, tokenizer, a.held_out, a.length, a.measure_bytes, device=a.device)
            run.measured.append((run.step * per_step, bpb))
            bar.line(f"step {run.step}: held out {bpb:.4f} bits per byte (the first {a.measure_bytes} bytes of each file)")
            bar.line("  " + loop.sample(model, tokenizer, a.prompt, 60, device=a.device).replace("\n", " / "))
        if time.monotonic() - saved > a.checkpoint_every or run.step == total or stop:
            run.save()
            saved = time.monotonic()
            loop.plot(os.path.join(a.out, "curve.png"), run.curve, run.measured)
    if not speaks:
        return
    if run.step < total:
        bar.line(f"stopped at step {run.step}; the same command goes on from there")
        return
    store.export(model, a.out, a.dtype)
    counts = {os.path.basename(p): data.bits_and_bytes(model, tokenizer, [p], a.length, device=a.device) for p in a.held_out}
    figures = {name: round(bits / n_bytes, 4) for name, (bits, n_bytes) in counts.items()}
    overall = round(sum(bits for bits, _ in counts.values()) / sum(n for _, n in counts.values()), 4) if counts else None
    store.write_json(os.path.join(a.out, "training.json"), {
        "family": a.family, "seed": a.seed, "from": a.start and os.path.basename(os.path.dirname(os.path.abspath(a.start))),
        "parameters": n_parameters, "tokens": run.step * per_step, "seconds": round(run.seconds),
        "text": [os.path.basename(p) for p in a.text], "window": a.length, "batch": a.batch, "rate": a.rate, "warmup": a.warmup,
        "decay_from": schedule.decay_from * per_step, "torch": torch.__version__, "held_out_bits_per_byte": figures,
        "held_out_bits_per_byte_together": overall})
    bar.line(f"{a.out}: {overall} bits per byte held out, {os.path.getsize(os.path.join(a.out, 'model.safetensors')):,} bytes of weights")


def main():
    a = arguments()
    if a.batch % a.workers != 0:
        sys.exit(f"--batch {a.batch} windows cannot be shared evenly by --workers {a.workers}")
    if not os.path.exists(os.path.join(a.out, "tokenizer.json")):
        if a.start:
            os.makedirs(a.out, exist_ok=True)
            for name in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(os.path.join(os.path.dirname(a.start), name), a.out)
        else:
            print("learning the tokenizer", file=sys.stderr)
            data.train_tokenizer(a.text, a.vocab_size, a.out)
    if a.workers == 1:
        return train(0, a, 0)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    spawned = torch.multiprocessing.spawn(train, (a, port), nprocs=a.workers, join=False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C reaches the workers too, and they finish their step
    signal.signal(signal.SIGTERM, lambda number, _: [p.terminate() for p in spawned.processes])
    while not spawned.join():
        pass


if __name__ == "__main__":
    sys.exit(main())
