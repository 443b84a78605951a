#!/usr/bin/env python3
"""Compares the tokenizer with the `tokenizers` package on random strings: ids (with special tokens added) and decoded text, with
special tokens and without, must be equal.

    tools/check_peers_tokenizers.py --driver build/bin/tokenizer_driver [--tokenizers DIR] [--only NAME] [--strings N] [--seed N]

Small tokenizers are trained that have the pipelines of published MoE checkpoints (peer_tokenizers.py); DIR holds further
tokenizer.json files under any names (*.json). The package is installed into build/peers-venv if it is not there.
Versions of the Unicode data differ, so characters are left out that are unassigned in this Python's data, or that the package
normalises otherwise than the standard (its tables are older; Python's unicodedata is the judge). Their number is printed.
"""
import argparse
import glob
import os
import random
import struct
import subprocess
import sys
import tempfile
import unicodedata
import venv

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPTS = [(0x20, 0x7e), (0x20, 0x7e), (0x20, 0x7e), (0xa0, 0x24f), (0x370, 0x3ff), (0x400, 0x52f), (0x590, 0x6ff),
           (0x900, 0xdff), (0xe00, 0xfff), (0x1100, 0x11ff), (0x1e00, 0x1fff), (0x2000, 0x22ff), (0x3040, 0x30ff),
           (0x4e00, 0x4fff), (0xac00, 0xadff), (0xf900, 0xfaff), (0xfb00, 0xfdff), (0xff00, 0xffef), (0x10000, 0x10fff),
           (0x1d100, 0x1d7ff), (0x1f300, 0x1faff), (0x20000, 0x20100), (0x2f800, 0x2fa1d)]
MARKS = [c for c in map(chr, range(0x300, 0x20d0)) if unicodedata.category(c).startswith("M")]
SPACES = " \t\n\r\x0b\x0c\x85\xa0\u1680\u2000\u2003\u2028\u2029\u202f\u205f\u3000"
CONTROLS = "".join(map(chr, list(range(0, 9)) + list(range(14, 32)) + [0x7f, 0x80, 0xad, 0x200b, 0x200d, 0x2060, 0xfeff, 0xfffd]))
WORDS = ("the of and It's don't we'll I'D you're 've 's 'S ' function return int main() { } == != 3.14 1,000 2024-01-02 "
         "https://example.org/a?b=c naïve café Straße İstanbul ΑΣ привет 日本語 テスト 한국어 العربية हिन्दी ไทย 👍🏽 👨‍👩‍👧 ﬁ ½ ² Ⅷ").split()


def assigned(low, high):
    return [c for c in map(chr, range(low, high + 1)) if unicodedata.category(c) not in ("Cn", "Cs", "Co")]


def is_punctuation(c):
    from tokenizers import pre_tokenizers
    return not pre_tokenizers.Punctuation("removed").pre_tokenize_str(c)


def is_settled(c, peer):
    """Whether the package orders and composes c as the standard says. U+0334 has the lowest mark class, U+0345 the highest."""
    marked = (c, "a" + c + "\u0334", "a\u0345" + c, c + "\u0301")
    forms = {"NFC": peer.NFC(), "NFKC": peer.NFKC()}
    is_mark = unicodedata.category(c).startswith("M")
    if is_punctuation(c) != (unicodedata.category(c).startswith("P") or (c.isascii() and c.isprintable() and not c.isalnum() and c != " ")):
        return False
    return is_mark == (peer.StripAccents().normalize_str(c) == "") and all(form.normalize_str(p) == unicodedata.normalize(name, p) for p in marked for name, form in forms.items())


def make_string(rng, scripts, marks, specials):
    parts = []
    for _ in range(rng.randint(0, 14)):
        kind = rng.random()
        if kind < 0.30:
            parts.append(rng.choice(WORDS))
        elif kind < 0.55:
            script = rng.choice(scripts)
            parts.append("".join(rng.choice(script) for _ in range(rng.randint(1, 9))))
        elif kind < 0.70:
            parts.append(rng.choice([" ", " ", "\n", "\t", rng.choice(SPACES)]) * rng.choice([1, 1, 2, 3, rng.randint(1, 40)]))
        elif kind < 0.76:
            parts.append("".join(rng.choice(SPACES) for _ in range(rng.randint(1, 5))))
        elif kind < 0.84:
            parts.append(rng.choice("aeıouAEKΩικ가") + "".join(rng.choice(marks) for _ in range(rng.randint(1, 5))))
        elif kind < 0.88:
            parts.append(rng.choice(CONTROLS))
        elif kind < 0.94:
            special = rng.choice(specials)
            parts.append(special if rng.random() < 0.7 else special[:rng.randint(1, len(special))])
        else:
            parts.append(str(rng.randint(0, 10 ** rng.randint(1, 12))))
        if rng.random() < 0.6:
            parts.append(" ")
    return "".join(parts)


def run_driver(driver, path, texts, special=True):
    """For each text its ids and what they decode to; with special tokens, then decoded without them, too."""
    blob = b"".join(struct.pack("<I", len(t)) + t for t in (text.encode() for text in texts))
    out = subprocess.run([driver, path] + special * ["--all"], input=blob, stdout=subprocess.PIPE, check=True).stdout
    at = 0
    for _ in texts:
        n, = struct.unpack_from("<I", out, at)
        ids = list(struct.unpack_from(f"<{n}i", out, at + 4))
        at += 4 + 4 * n
        decoded = []
        for _ in range(1 + special):
            n, = struct.unpack_from("<I", out, at)
            decoded.append(out[at + 4:at + 4 + n].decode())
            at += 4 + n
        yield ids, decoded


def settled_alphabets():
    """Characters of each script, then marks."""
    from tokenizers import normalizers
    alphabets = [assigned(*s) for s in SCRIPTS] + [MARKS]
    settled = [[c for c in alphabet if is_settled(c, normalizers)] for alphabet in alphabets]
    print(f"{sum(map(len, alphabets)) - sum(map(len, settled))} characters left out, the package's Unicode tables lack them")
    return settled


def encode_all(peer, texts):
    """None where the package itself gives up: its added tokens with rstrip overlap ("bad split")."""
    try:
        return peer.encode_batch(texts)
    except BaseException as failure:
        if type(failure).__name__ != "PanicException":
            raise
        half = len(texts) // 2
        return [None] if half == 0 else encode_all(peer, texts[:half]) + encode_all(peer, texts[half:])


def check_file(driver, path, alphabets, n_strings, seed):
    from tokenizers import Tokenizer
    peer = Tokenizer.from_file(path)
    specials = [token.content for token in peer.get_added_tokens_decoder().values()]
    rng, (*scripts, marks) = random.Random(seed), alphabets
    differences, failures, done = 0, 0, 0
    while done < n_strings:
        texts = [make_string(rng, scripts, marks, specials) for _ in range(min(10000, n_strings - done))]
        expected = encode_all(peer, texts)
        for text, (ids, decoded), encoding in zip(texts, run_driver(driver, path, texts), expected):
            if encoding is None:
                failures += 1
                continue
            peer_text = [peer.decode(encoding.ids, skip_special_tokens=skip) for skip in (False, True)]
            if ids != encoding.ids or decoded != peer_text:
                differences += 1
                if differences <= 5:
                    print(f"{text!r}\n  ours {ids} {decoded!r}\n  peer {encoding.ids} {peer_text!r}")
        done += len(texts)
    print(f"{os.path.basename(path)}: {done} strings, {differences} differences" + f", the package failed on {failures}" * (failures > 0), flush=True)
    return differences


def enter_venv():
    """Runs again under a Python that has the package."""
    folder = os.path.join(ROOT, "build", "peers-venv")
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(python):
        print("installing the tokenizers package into build/peers-venv", flush=True)
        venv.create(folder, with_pip=True)
    if subprocess.run([python, "-c", "import tokenizers"], stderr=subprocess.DEVNULL).returncode != 0:
        subprocess.run([python, "-m", "pip", "install", "--quiet", "tokenizers"], check=True)
    os.execv(python, [python, os.path.abspath(__file__)] + sys.argv[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--driver", required=True, help="the program tokenizer_driver")
    parser.add_argument("--tokenizers", help="folder with tokenizer.json files of yours")
    parser.add_argument("--only", default="", help="part of a file's name")
    parser.add_argument("--strings", type=int, default=100000, help="random strings per file (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    try:
        import tokenizers
    except ImportError:
        enter_venv()
    import peer_tokenizers
    print(f"tokenizers {tokenizers.__version__}, seed {args.seed}")
    alphabets, differences = settled_alphabets(), 0
    with tempfile.TemporaryDirectory() as folder:
        for name, tokenizer in peer_tokenizers.build().items():
            tokenizer.save(os.path.join(folder, name + ".json"))
        for path in sorted({p for where in (folder, args.tokenizers or folder) for p in glob.glob(os.path.join(where, "*.json"))}):
            if args.only in os.path.basename(path):
                differences += check_file(args.driver, path, alphabets, args.strings, args.seed)
    sys.exit(1 if differences else 0)


if __name__ == "__main__":
    main()
