#!/usr/bin/python3
"""Makes a checkpoint with random weights, of any family that is served: for trying the service, for tests and for measurements.

The directory is what a download would be: config.json, generation_config.json, the safetensors (with an index if there are
several) and, unless --no-tokenizer, a tokenizer. Weights are scaled so that activations stay near 1. A weight depends only on the
seed and its name, so --fused, --shards and --layers do not change the others. Needs numpy.

    make_checkpoint.py OUT                                       a small OLMoE
    make_checkpoint.py OUT --family molm                         a small one of another family
    make_checkpoint.py OUT --shape molm-350m-4b --layers 2       two layers of a published model
    make_checkpoint.py OUT --family moe++ --zero-share 0.4       40 % of the picks are zero-computation experts
    make_checkpoint.py OUT --family molm --score-scale 20        a stick that is used up after a few keys
    make_checkpoint.py OUT --family molm --labels no,maybe,yes   a classifier in place of a language model

The files are made in a directory beside OUT and moved there when all are whole: a full disk or Ctrl-C leaves nothing behind.
With --zero-share the picks follow from a token's id alone: every hundred consecutive ids hold the share exactly."""
import argparse
import collections
import concurrent.futures
import hashlib
import json
import math
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np

sys.dont_write_bytecode = True
from checkpoint_families import FAMILIES, PUBLISHED, SMALL, Options  # noqa: E402

CHUNK = 1 << 20  # values made at once
BYTES = {"f32": 4, "bf16": 2}
TORCH_DTYPE = {"f32": "float32", "bf16": "bfloat16"}
NAME = {"f32": "F32", "bf16": "BF16"}


def count(shape):
    return math.prod(shape)


# ---------------------------------------------------------------- values
def chunk_bytes(seed, piece, chunk, dtype):
    """The bytes of one chunk of a piece; any thread."""
    n = min(CHUNK, count(piece.shape) - chunk * CHUNK)
    key = hashlib.sha256(f"{seed}/{piece.name}/{chunk}".encode()).digest()
    values = np.random.Generator(np.random.SFC64(int.from_bytes(key, "little"))).standard_normal(n, np.float32)
    values *= np.float32(piece.deviation)
    values += np.float32(piece.mean)
    if piece.edit is not None:
        piece.edit(values, chunk * CHUNK)
    if dtype == "f32":
        return values.astype("<f4", copy=False).tobytes()
    bits = values.view(np.uint32)
    bits += np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))  # to nearest, ties to even
    return (bits >> np.uint32(16)).astype("<u2").tobytes()


def stream(seed, tensors, dtype):
    """The bytes of the tensors in order, made a few chunks ahead on all cores."""
    jobs = ((p, i) for t in tensors for p in t.pieces for i in range(-(-count(p.shape) // CHUNK)))
    n_threads = len(os.sched_getaffinity(0))
    with concurrent.futures.ThreadPoolExecutor(n_threads) as pool:
        ahead = collections.deque()
        for piece, i in jobs:
            ahead.append(pool.submit(chunk_bytes, seed, piece, i, dtype))
            if len(ahead) > 2 * n_threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


# ---------------------------------------------------------------- files
class Progress:
    """A line on standard error that says how far it is; silent for what takes under two seconds."""

    def __init__(self, total):
        self.total, self.done, self.start = total, 0, time.monotonic()
        self.next = self.start + 2
        self.tty = sys.stderr.isatty()
        self.shown = False

    def add(self, n):
        self.done += n
        now = time.monotonic()
        if now >= self.next:
            self.next = now + (0.5 if self.tty else 5)
            self.show(now)

    def show(self, now):
        rate = self.done / max(now - self.start, 1e-9)
        text = f"{self.done / 1e9:.2f} of {self.total / 1e9:.2f} GB, {100 * self.done // self.total} %, " \
               f"{rate / 1e6:.0f} MB/s, {(self.total - self.done) / rate:.0f} s left"
        print(f"\r{text}   " if self.tty else text, end="" if self.tty else "\n", file=sys.stderr, flush=True)
        self.shown = self.tty

    def finish(self):
        if self.shown:
            print(file=sys.stderr)


def header_of(tensors, dtype):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for t in tensors:
        end = at + count(t.shape) * BYTES[dtype]
        header[t.name] = {"dtype": NAME[dtype], "shape": list(t.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def write_safetensors(path, tensors, seed, dtype, progress):
    header = header_of(tensors, dtype)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(header)) + header)
        for data in stream(seed, tensors, dtype):
            f.write(data)
            progress.add(len(data))


def split(tensors, n_shards):
    """Runs of consecutive tensors of about equal bytes, none empty."""
    total, done, shards = sum(count(t.shape) for t in tensors), 0, [[]]
    for i, t in enumerate(tensors):
        left = n_shards - len(shards)
        full = done >= total * len(shards) / n_shards
        if shards[-1] and left > 0 and (full or len(tensors) - i == left):
            shards.append([])
        shards[-1].append(t)
        done += count(t.shape)
    return shards


def write_json(out_dir, name, value):
    with open(os.path.join(out_dir, name), "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2)
        f.write("\n")


def write_weights(out_dir, tensors, n_shards, seed, dtype):
    total = sum(count(t.shape) for t in tensors) * BYTES[dtype]
    free = shutil.disk_usage(out_dir).free
    if total > free:
        sys.exit(f"the weights need {total / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free")
    progress = Progress(total)
    if n_shards == 1:
        write_safetensors(os.path.join(out_dir, "model.safetensors"), tensors, seed, dtype, progress)
    else:
        weight_map = {}
        for i, shard in enumerate(split(tensors, n_shards)):
            name = f"model-{i + 1:05d}-of-{n_shards:05d}.safetensors"
            write_safetensors(os.path.join(out_dir, name), shard, seed, dtype, progress)
            weight_map.update((t.name, name) for t in shard)
        write_json(out_dir, "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})
    progress.finish()
    return total


# ---------------------------------------------------------------- configuration and tokenizer
def load_json(path):
    try:
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    except FileNotFoundError:
        return {}


def run_make_tokenizer(out_dir, vocab_size, *args):
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "make_tokenizer.py")
    done = subprocess.run([sys.executable, script, out_dir, "--vocab-size", str(vocab_size), *args], check=True, stdout=subprocess.PIPE,
                          encoding="utf-8")
    return int(re.search(r"(\d+) ids", done.stdout).group(1))


def make_tokenizer(out_dir, family, vocab_size, exact):
    """Calls the script beside this one; returns what of the configuration follows from its files. It may find fewer ids than it
    was asked for: then, unless exact, the vocabulary shrinks to them, or a random model would mostly answer with ids that mean
    nothing."""
    n_ids = run_make_tokenizer(out_dir, vocab_size, *(["--sentencepiece"] if family.sentencepiece else []))
    found = {"vocab_size": max(vocab_size, n_ids) if exact else -(-n_ids // 64) * 64}
    if family.sentencepiece:
        return {**found, "bos_token_id": 1, "eos_token_id": 2}
    tokenizer = load_json(os.path.join(out_dir, "tokenizer.json"))
    names = load_json(os.path.join(out_dir, "tokenizer_config.json"))
    ids = dict(tokenizer["model"]["vocab"])
    ids.update((t["content"], t["id"]) for t in tokenizer.get("added_tokens", []))
    for key in ("bos_token", "eos_token", "pad_token"):
        name = names.get(key)
        name = name.get("content") if isinstance(name, dict) else name
        if name in ids and (key == "eos_token" or key + "_id" in family.common):
            found[key + "_id"] = ids[name]
    return found


def parse_set(text):
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not key=value")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def configure(args, family):
    config = {**family.common, **family.shapes[args.shape], "torch_dtype": TORCH_DTYPE[args.dtype]}
    if args.layers is not None:
        config[family.layers] = args.layers
    overrides = dict(args.set)
    config.update(overrides)
    family.check(config)
    config.setdefault("eos_token_id", config["vocab_size"] - 1)
    if args.tokenizer:
        exact = args.shape not in SMALL or "vocab_size" in overrides
        config.update(make_tokenizer(args.out_dir, family, config["vocab_size"], exact))
        overrides.pop("vocab_size", None)  # never below what the tokenizer has
    if args.labels:
        config["architectures"] = [name.replace("ForCausalLM", "ForSequenceClassification") for name in config["architectures"]]
        config["id2label"] = {str(i): label for i, label in enumerate(args.labels)}
        config["label2id"] = {label: i for i, label in enumerate(args.labels)}
    config.update(overrides)
    return config


def is_weights(name):
    return name == "model.safetensors.index.json" or name.startswith("model") and name.endswith(".safetensors")


def old_weights(out_dir):
    return [name for name in os.listdir(out_dir) if is_weights(name)] if os.path.isdir(out_dir) else []


def check_free(out_dir, force):
    """Never mixes with, and never by accident replaces, weights that are there."""
    old = old_weights(out_dir)
    if old and not force:
        sys.exit(f"{out_dir} has weights already ({old[0]}); --force replaces them")


def publish(work, out_dir):
    """Moves what was made into place; needs no room."""
    os.makedirs(out_dir, exist_ok=True)
    for name in old_weights(out_dir):
        os.remove(os.path.join(out_dir, name))
    for name in os.listdir(work):
        os.replace(os.path.join(work, name), os.path.join(out_dir, name))


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def labels(text):
    names = text.split(",")
    if len(names) < 2 or "" in names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of two or more different names")
    return names


def share(text):
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not within 0 and 1")
    return value


def parse_args():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out_dir", metavar="OUT_DIR")
    p.add_argument("--family", choices=list(FAMILIES), help="that of the shape, else olmoe")
    p.add_argument("--shape", "--preset", choices=[*SMALL, *PUBLISHED], default="demo")
    p.add_argument("--layers", type=positive, metavar="N", help="number of layers, if not the shape's")
    p.add_argument("--set", type=parse_set, action="append", default=[], metavar="KEY=VALUE",
                   help="any key of config.json; the value is JSON or a plain word")
    p.add_argument("--dtype", choices=sorted(BYTES), default="bf16")
    p.add_argument("--seed", type=int, default=1, metavar="N")
    p.add_argument("--shards", type=positive, default=1, metavar="N")
    p.add_argument("--fused", action="store_true", help="experts of a layer in two tensors (OLMoE, Qwen3-MoE)")
    p.add_argument("--zero-share", type=share, metavar="S", help="share of picks that are zero-computation experts (MoE++)")
    p.add_argument("--score-scale", type=float, default=1.0, metavar="X", help="attention scores times X (MoLM)")
    p.add_argument("--labels", type=labels, default=[], metavar="A,B,...", help="a classifier with these classes (MoLM)")
    p.add_argument("--no-tokenizer", dest="tokenizer", action="store_false")
    p.add_argument("--force", action="store_true", help="replace weights that are there")
    args = p.parse_args()
    args.family = args.family or PUBLISHED.get(args.shape, "olmoe")
    if args.shape not in FAMILIES[args.family].shapes:
        p.error(f"--shape {args.shape} is of family {PUBLISHED[args.shape]}, not {args.family}")
    if args.zero_share is not None and args.family != "moe++":
        p.error(f"--zero-share is for moe++, not for {args.family}")
    if args.labels and args.family != "molm":
        p.error(f"--labels is for molm, not for {args.family}")
    if args.score_scale != 1.0 and args.family != "molm":
        p.error(f"--score-scale is for molm, not for {args.family}")
    return args


def make(args, family):
    config = configure(args, family)
    options = Options(args.fused, args.zero_share, args.score_scale, len(args.labels))
    tensors = sorted(family.tensors(config, options), key=lambda t: t.name.encode())
    if args.shards > len(tensors):
        sys.exit(f"--shards {args.shards}: there are only {len(tensors)} tensors")
    total = write_weights(args.out_dir, tensors, args.shards, args.seed, args.dtype)
    write_json(args.out_dir, "config.json", config)
    write_json(args.out_dir, "generation_config.json",
               {"_from_model_config": True, **{key: config[key] for key in ("eos_token_id", "pad_token_id") if key in config}})
    return f"{len(tensors)} tensors, {total / 1e6:.1f} MB {args.dtype}, seed {args.seed}"


def main():
    args = parse_args()
    out_dir = os.path.abspath(args.out_dir)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    check_free(out_dir, args.force)
    os.makedirs(os.path.dirname(out_dir), exist_ok=True)
    work = tempfile.mkdtemp(prefix=os.path.basename(out_dir) + ".part-", dir=os.path.dirname(out_dir))
    try:
        args.out_dir, shown = work, args.out_dir
        said = make(args, FAMILIES[args.family])
        publish(work, out_dir)
    except OSError as error:
        sys.exit(f"{shown}: {error.strerror}; nothing was left behind")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{shown}: the tokenizer could not be made (exit code {error.returncode}); nothing was left behind")
    except KeyboardInterrupt:
        sys.exit(f"{shown}: interrupted; nothing was left behind")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{shown}: {said}")


if __name__ == "__main__":
    main()
