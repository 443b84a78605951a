#!/usr/bin/env python3
"""Writes the seed corpus of fuzz_transport_notes: programs for the other end of a connection that has met.

The first byte: 1 the end that hears has called, else it was called; 2 it offers shared memory alone, else the channel too. Then codes:

  0 raw bytes (how many, bytes)   1 ASK for shared memory, with a door that is there   2 READ, with the token of the memory that was
  handed in, if one was   3 HERE, with memory that was handed in   4 ASK for shared memory, at a door that is not there

usage: make_notes_corpus.py tests/fuzz/corpus/fuzz_transport_notes"""
import pathlib
import sys

out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
NONE, ASK, HERE, READ = range(4)
SHM, RDMA, UCX_TCP, TLS = 1, 2, 3, 4


def write(name, *codes):
    (out / name).write_bytes(bytes(codes))


def note(kind, body=b"", pieces=1):
    data = bytes([kind]) + len(body).to_bytes(2, "little") + body
    size = -(-len(data) // pieces)
    cut = [data[i:i + size] for i in range(0, len(data), size)]
    return [byte for piece in cut for byte in [0, len(piece), *piece]]


for how in range(4):
    write(f"nothing-{how}", how)
    write(f"none-{how}", how, *note(NONE))
    write(f"none-in-pieces-{how}", how, *note(NONE, b"abc", 6))
    write(f"none-often-{how}", how, *note(NONE) * 4)
    write(f"two-notes-in-one-piece-{how}", how, 0, 6, NONE, 0, 0, NONE, 0, 0)
    write(f"shared-memory-{how}", how, *([3] if how & 1 else [1, 2]))
    write(f"wrong-token-{how}", how, 1, *note(READ, bytes(32)))
    write(f"short-token-{how}", how, 1, *note(READ, bytes(31)))
    write(f"nobodys-door-{how}", how, 4, *note(NONE))
    write(f"asked-twice-{how}", how, 1, 1)
    write(f"here-without-memory-{how}", how, *note(HERE))
    write(f"here-twice-{how}", how, *note(HERE), *note(HERE))
    write(f"read-too-soon-{how}", how, *note(READ, bytes(32)))
    for carrier in (0, SHM, RDMA, UCX_TCP, TLS, 255):
        write(f"ask-{carrier}-{how}", how, *note(ASK, bytes([carrier]) + bytes(16)), *note(NONE))
        write(f"ask-{carrier}-short-{how}", how, *note(ASK, bytes([carrier])))
    write(f"ask-down-{how}", how, *note(ASK, bytes([RDMA, 9])), 1)
    write(f"ask-empty-{how}", how, *note(ASK))
    write(f"unknown-{how}", how, *note(7, b"x"))
    write(f"too-long-{how}", how, 0, 3, ASK, 255, 255)
    write(f"longest-{how}", how, 0, 3, ASK, 0, 8, *[0, 200, *bytes(200)] * 11)
    write(f"above-the-longest-{how}", how, 0, 3, ASK, 52, 8, *[0, 200, *b"\xff" * 200] * 11)
    write(f"asked-often-{how}", how, *[1] * 8)
    write(f"longest-here-{how}", how, 0, 3, HERE, 1, 8, *[0, 200, *bytes(200)] * 11)
