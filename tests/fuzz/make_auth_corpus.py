#!/usr/bin/env python3
"""Writes seeds of fuzz_auth: sound token files and one file per rule they break, what is in their place later, and what was sent.

usage: make_auth_corpus.py tests/fuzz/corpus"""
import pathlib
import sys

NAMES = ",".join("abcdefghijklmnop")
INPUTS = {
    "one": ("one\n", "Bearer one"),
    "blanks": ("\r\n # no token\n\tone \r\n#two\nthree", "bearer three"),
    "sets": ("one sets=de,fr-1\ntwo\t sets=A.b_c\nthree\n", "BEARER two"),
    "sets_most": (f"one sets={NAMES}\n", "Bearer one"),
    "sets_many": (f"one sets={NAMES},q\n", ""),
    "set_long": ("one sets=" + 63 * "a" + "\n", "Bearer one"),
    "set_too_long": ("one sets=" + 64 * "a" + "\n", ""),
    "sets_none": ("one sets=\n", ""),
    "sets_gap": ("one sets=a,,b\n", ""),
    "sets_end": ("one sets=a,\n", ""),
    "sets_character": ("one sets=a/b\n", ""),
    "sets_key": ("one set=a\n", ""),
    "twice": ("one sets=a\none sets=a\none sets=a\n", "Bearer one"),
    "twice_differs": ("one sets=a\none\n", ""),
    "token_longest": (256 * "x" + "\n", "Bearer " + 256 * "x"),
    "token_long": (257 * "x" + "\n", ""),
    "tokens_most": ("".join(f"t{i}\n" for i in range(64)), "Bearer t63"),
    "tokens_many": ("".join(f"t{i}\n" for i in range(65)), ""),
    "token_character": ("\u00fc\n", ""),
    "empty": ("", "Bearer "),
    "comment_only": ("# one\n", "Bearer # one"),
    "sent_cut": ("one\n", "Bearer on"),
    "sent_longer": ("one\n", "Bearer one "),
    "sent_zeroes": ("one\n", "Bearer one\0\0"),
    "sent_longest": ("one\n", "Bearer " + 256 * "o"),
    "sent_long": ("one\n", "Bearer " + 257 * "o"),
    "sent_scheme": ("one\n", "Basic one"),
    "sent_nothing": ("one\n", ""),
    "sent_line": ("one sets=a\n", "Bearer one sets=a"),
}
CHANGED = {
    "token": ("one\n", "two\n", "Bearer one"),
    "sets": ("one\n", "one sets=a\n", "Bearer one"),
    "to_nothing": ("one\n", "", "Bearer one"),
    "to_bad": ("one\n", "two\nthree sets=\n", "Bearer two"),
}

if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1]) / "fuzz_auth"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (text, sent) in INPUTS.items():
        (folder / name).write_bytes("\0".join((text, "one\nlater sets=a\n", sent)).encode())
    for name, parts in CHANGED.items():
        (folder / f"changed_{name}").write_bytes("\0".join(parts).encode())
