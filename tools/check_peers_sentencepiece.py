#!/usr/bin/env python3
"""Compares the reader of tokenizer.model with SentencePiece: ids, decoded text and the text of random ids must be equal.

    tools/check_peers_sentencepiece.py --driver build/release/bin/tokenizer_driver [--strings N] [--seed N] [MODEL...]

Trains small BPE models of several settings into a temporary folder (or takes those named) and compares on random strings.
Needs the package python3-sentencepiece.
"""
import argparse
import glob
import os
import random
import struct
import subprocess
import sys
import tempfile

import sentencepiece

from check_peers_tokenizers import CONTROLS, SCRIPTS, SPACES, WORDS, assigned, run_driver
from make_tokenizer import ROOT, make_sentencepiece, message, sample_text

MARK = "\u2581"
IDENTITY = {"model_type": "bpe", "normalization_rule_name": "identity"}
USER = ["<user>", "ing", "the", "th", "12", MARK + "of", "\n", "日本", "<user><user>", MARK * 4]
LLAMA = {**IDENTITY, "byte_fallback": True, "remove_extra_whitespaces": False, "split_digits": True,
         "allow_whitespace_only_pieces": True}
SETTINGS = {  # vocab_size, and what differs from SentencePiece's defaults
    "llama": (1500, LLAMA),
    "llama-small": (500, {**LLAMA, "character_coverage": 0.98}),
    "llama-large": (3000, LLAMA),
    "user": (900, {**LLAMA, "user_defined_symbols": USER, "control_symbols": ["<ctrl>"]}),
    "no-prefix": (900, {**LLAMA, "add_dummy_prefix": False}),
    "words-across": (1200, {**LLAMA, "split_by_whitespace": False, "split_by_number": False}),
    "plain": (800, {**IDENTITY, "character_coverage": 0.98}),
    "plain-user": (800, {**IDENTITY, "user_defined_symbols": USER, "control_symbols": ["<ctrl>"], "pad_id": 3}),
    "plain-no-prefix": (800, {**IDENTITY, "add_dummy_prefix": False, "unk_surface": "[?]"}),
}


def training_text():
    text = sample_text()
    for path in sorted(glob.glob(os.path.join(ROOT, "docs", "*.md"))):
        with open(path, encoding="utf-8") as f:
            text += f.read()
    return text


def train(folder, name):
    vocab_size, options = SETTINGS[name]
    text = os.path.join(folder, "text.txt")
    with open(text, "w", encoding="utf-8") as f:
        f.write(training_text())
    prefix = os.path.join(folder, name)
    sentencepiece.SentencePieceTrainer.train(input=text, model_prefix=prefix, vocab_size=vocab_size, hard_vocab_limit=False,
                                             minloglevel=2, num_threads=1, **options)
    return prefix + ".model"


def piece(text, score=0.0, kind=1):
    return (1, message((1, text), (2, score), (3, kind)))


def write_extended(folder, name, rng):
    """What no trainer makes, but is found or may be: pieces added later with equal scores, whose characters are no pieces; spaces
    that are not escaped; user-defined pieces that hold spaces. Messages that are joined are merged by those who read them."""
    trained, n_pieces = make_sentencepiece(700)
    peer = sentencepiece.SentencePieceProcessor(model_proto=trained)
    known = {peer.id_to_piece(i) for i in range(n_pieces)}
    alphabet = "的一是在人有我他这abcdeABC" + MARK
    texts = sorted({"".join(rng.choice(alphabet) for _ in range(rng.randint(2, 4))) for _ in range(600)})
    rng.shuffle(texts)
    if name == "equal-scores":
        extra = [piece(text, rng.choice([0.0, -0.0, -1.0, 2.5])) for text in texts if text not in known]
    elif name == "unescaped":
        extra = [(3, message((5, 0)))] + [piece(text.replace(MARK, " "), 1.0) for text in texts if MARK in text]
    else:
        extra = [(3, message((4, 1)))] + [piece(text, 0.0, 4) for text in ("  ", " a  b", "b ", " c", " ", "c" + MARK)]
    path = os.path.join(folder, name + ".model")
    with open(path, "wb") as f:
        f.write(trained + message(*extra))
    return path


EXTENDED = ["equal-scores", "unescaped", "spaces-in-user"]


def make_string(rng, scripts, pieces):
    parts = []
    for _ in range(rng.randint(0, 14)):
        kind = rng.random()
        if kind < 0.25:
            parts.append(rng.choice(WORDS))
        elif kind < 0.45:
            piece = rng.choice(pieces)
            parts.append(piece if rng.random() < 0.5 else piece.replace(MARK, " "))
        elif kind < 0.6:
            script = rng.choice(scripts)
            parts.append("".join(rng.choice(script) for _ in range(rng.randint(1, 9))))
        elif kind < 0.72:
            parts.append(rng.choice([" ", " ", "\n", "\t", MARK, rng.choice(SPACES)]) * rng.choice([1, 1, 2, 3, rng.randint(1, 40)]))
        elif kind < 0.78:
            parts.append(rng.choice(CONTROLS + "\0" + MARK))
        elif kind < 0.86:
            parts.append(rng.choice(USER) * rng.randint(1, 3))
        elif kind < 0.9:
            parts.append(rng.choice(["<s>", "</s>", "<unk>", "<ctrl>", "<0x41>", "<0x0A>", "<pad>"]))
        elif kind < 0.95:
            parts.append(chr(rng.choice([rng.randint(0, 0xd7ff), rng.randint(0xe000, 0xffff), rng.randint(0x10000, 0x10ffff)])))
        else:
            parts.append(str(rng.randint(0, 10 ** rng.randint(1, 12))))
        if rng.random() < 0.5:
            parts.append(" ")
    return "".join(parts)


def make_ids(rng, n_pieces, byte_ids):
    """Bytes often, so that code points come together, whole and broken."""
    return [rng.choice(byte_ids) if byte_ids and rng.random() < 0.5 else rng.randrange(n_pieces)
            for _ in range(rng.randint(0, 12))]


def run_decode(driver, path, all_ids):
    blob = b"".join(struct.pack(f"<I{len(ids)}i", len(ids), *ids) for ids in all_ids)
    out = subprocess.run([driver, path, "--decode"], input=blob, stdout=subprocess.PIPE, check=True).stdout
    at = 0
    for _ in all_ids:
        n, = struct.unpack_from("<I", out, at)
        yield out[at + 4:at + 4 + n].decode()
        at += 4 + n


def check_model(driver, path, n_strings, seed):
    peer = sentencepiece.SentencePieceProcessor(model_file=path)
    rng, scripts = random.Random(seed), [assigned(*s) for s in SCRIPTS]
    n_pieces = peer.get_piece_size()
    pieces = [peer.id_to_piece(i) for i in range(n_pieces)]
    byte_ids = [i for i in range(n_pieces) if peer.is_byte(i)]
    differences = []
    texts = [make_string(rng, scripts, pieces) for _ in range(n_strings)]
    for text, (ids, (decoded,)) in zip(texts, run_driver(driver, path, texts, special=False)):
        peer_ids = peer.encode(text)
        peer_text = peer.decode(peer_ids) if peer_ids else ""
        if ids != peer_ids or decoded != peer_text:
            differences.append(f"{text!r}\n  ours {ids} {decoded!r}\n  peer {peer_ids} {peer_text!r}")
    id_lists = [make_ids(rng, n_pieces, byte_ids) for _ in range(n_strings)]
    for ids, decoded in zip(id_lists, run_decode(driver, path, id_lists)):
        peer_text = peer.decode(ids) if ids else ""
        if decoded != peer_text:
            differences.append(f"{ids}\n  ours {decoded!r}\n  peer {peer_text!r}")
    print(f"{os.path.basename(path)}: {n_pieces} pieces, {n_strings} strings and {n_strings} lists of ids, "
          f"{len(differences)} differences", flush=True)
    for difference in differences[:5]:
        print(difference)
    return len(differences)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver", required=True, help="the program tokenizer_driver")
    parser.add_argument("--strings", type=int, default=20000, help="random strings per model (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("models", metavar="MODEL", nargs="*")
    args = parser.parse_args()
    print(f"sentencepiece {sentencepiece.__version__}, seed {args.seed}")
    with tempfile.TemporaryDirectory() as folder:
        models = args.models or ([train(folder, name) for name in SETTINGS] +
                                 [write_extended(folder, name, random.Random(args.seed)) for name in EXTENDED])
        sys.exit(1 if sum([check_model(args.driver, path, args.strings, args.seed) for path in models]) else 0)


if __name__ == "__main__":
    main()
