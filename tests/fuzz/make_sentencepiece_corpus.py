#!/usr/bin/env python3
"""Writes the seed corpus of fuzz_sentencepiece: sound models of each kind, and one model or tokenizer_config.json per rule that
it breaks.

usage: make_sentencepiece_corpus.py tests/fuzz/corpus"""
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tools"))
from make_tokenizer import MARK, make_sentencepiece, message  # noqa: E402

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
OUT = pathlib.Path(sys.argv[1]) / "fuzz_sentencepiece"
TEXT = f" ab  aba <s>b</s> é日{MARK}x\n👍"


def piece(text, score=0.0, kind=NORMAL):
    return 1, message((1, text), (2, float(score)), (3, kind))


def trainer(*fields):
    return 2, message(*fields)


def normalizer(*fields):
    return 3, message(*fields)


SPECIALS = [piece("<unk>", 0, UNKNOWN), piece("<s>", 0, CONTROL), piece("</s>", 0, CONTROL)]
PIECES = [piece(text, -i) for i, text in enumerate(["ab", MARK + "a", "aba", "日", "a", "b", MARK, MARK + MARK])]
BPE = trainer((3, 2))
SMALL = [*SPECIALS, *PIECES, BPE]
BYTES = [piece(f"<0x{byte:02X}>", 0, BYTE) for byte in range(256)]
MODELS = {
    "small": SMALL,
    "keep-spaces": [*SMALL, normalizer((1, "identity"), (4, 0))],
    "unescaped": [*SMALL, normalizer((3, 0), (4, 0), (5, 0))],
    "bytes": [*SMALL, *BYTES, trainer((35, 1), (46, "<s>"), (47, "</s>")), normalizer((4, 0))],
    "user": [*SMALL, piece("b ", 0, USER), piece("ba", 0, USER), piece("  ", 0, USER)],
    "unk-surface": [*SMALL, trainer((44, "?"))],
    "equal-scores": [*SPECIALS, *[piece(text, 1.5) for text in ("aa", "ab", "ba", "aba", " b")], BPE],
    "no-characters": [*SPECIALS, piece("ab"), piece("日b"), piece("abab", -1), BPE],
    "unknown-fields": [*SMALL, (200, 7), (201, 1.0), (202, "x"), (4, message((1, "self test")))],
    "no-pieces": [BPE],
    "unigram": [*SPECIALS, *PIECES],
    "word": [*SMALL, trainer((3, 3))],
    "suffix": [*SMALL, trainer((24, 1))],
    "charsmap": [*SMALL, normalizer((1, "nmt_nfkc"), (2, "map"))],
    "charsmap-number": [*SMALL, normalizer((2, 1))],
    "denormalizer": [*SMALL, (5, message((2, "map")))],
    "empty-piece": [*SMALL, piece("")],
    "twice": [*SMALL, piece("ab")],
    "not-utf8": [*SMALL, (1, message((1, b"\xff")))],
    "long-piece": [*SMALL, piece("x" * 4097)],
    "nan": [*SMALL, piece("c", float("nan"))],
    "type-0": [*SMALL, piece("c", 0, 0)],
    "unused": [*SMALL, piece("c", 0, UNUSED)],
    "two-unknown": [*SMALL, piece("c", 0, UNKNOWN)],
    "byte-without-fallback": [*SMALL, piece("<0x41>", 0, BYTE)],
    "byte-misspelt": [*SMALL, piece("<0x4a>", 0, BYTE), trainer((35, 1))],
    "byte-missing": [*SMALL, *BYTES[1:], trainer((35, 1))],
    "too-many": [*SMALL, *[piece(f"p{i}") for i in range(512)]],
    "number-for-text": [*SMALL, (1, message((1, 3)))],
    "text-for-number": [*SMALL, trainer((3, "x"))],
    "piece-is-a-number": [*SMALL, (1, 3)],
    "charsmap-cut": [*SMALL, (3, b"\x12\x09")],
}
RAW = {"empty": b"", "cut-varint": b"\x0a", "cut-bytes": b"\x0a\x05a", "group": b"\x0b\x0c", "field-0": b"\x02\x00",
       "cut-32": b"\x3d\x00", "cut-64": b"\x39\x00", "fixed-64": b"\x39" + bytes(8), "long-varint": b"\x30" + b"\xff" * 9 + b"\x02",
       "wide-tag": b"\xff\xff\xff\xff\xff\x01\x00"}
CONFIGS = {
    "llama": '{"tokenizer_class":"LlamaTokenizer","bos_token":"<s>","eos_token":{"__type":"AddedToken","content":"</s>"},'
             '"unk_token":"<unk>","pad_token":null,"add_bos_token":true,"add_eos_token":true,"legacy":false}',
    "added": '{"added_tokens_decoder":{"1":{"content":"<s>","special":true},"500":{"content":"ba","special":false},'
             '"501":{"content":" é","lstrip":true,"special":true}},"bos_token":"<s>"}',
    "other-class": '{"tokenizer_class":"XGLMTokenizer","add_bos_token":false}',
    "contradiction": '{"added_tokens_decoder":{"3":{"content":"x"}}}',
    "beyond": '{"added_tokens_decoder":{"512":{"content":"x"}}}',
    "class-number": '{"tokenizer_class":3}',
    "legacy-number": '{"legacy":3}',
    "bos-number": '{"bos_token":3}',
    "chat": '{"chat_template":3}',
    "not-json": "{",
    "add-eos-nothing": '{"add_eos_token":3}',
}


def seed(model, config="", text=TEXT):
    text, config = text.encode()[:255], config.encode()
    return bytes([len(text)]) + text + struct.pack("<H", len(config)) + config + model


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.iterdir():
        old.unlink()
    for name, fields in MODELS.items():
        (OUT / name).write_bytes(seed(message(*fields)))
    for name, model in RAW.items():
        (OUT / f"wire-{name}").write_bytes(seed(model))
        (OUT / f"wire-{name}-inside").write_bytes(seed(message(*SMALL, (2, model))))
    for name, config in CONFIGS.items():
        (OUT / f"config-{name}").write_bytes(seed(message(*SMALL), config))
    (OUT / "trained").write_bytes(seed(make_sentencepiece(400)[0], CONFIGS["llama"]))
    print(f"{OUT}: {len(list(OUT.iterdir()))} files")


if __name__ == "__main__":
    main()
