#!/usr/bin/env python3
"""Writes the seed corpus of fuzz_link: programs for two ends of a link.

The first byte chooses the secrets: 0 none, 1 the same, 2 different ones, 3 only the node's; and 4: a reader is in the place of the
coordinator. Then come codes; the high bit
means the node (or its frames), else the coordinator:

  0 connect   1 give its oldest frame to the other   2 the same, and keep it   3 drop it   4 damage it (place 2, bit)
  5 put a frame in, for it (type, half of the body's length, body)   6 time passes (times 10 ms; high bit: it computes)
  7 its epoch   8 it drains   9 it cannot send   10 it wants nobody   11 the node loads or drops (block,
  experts)   12 its connection ends   13 the reader asks (part, half of the offset, length - 1)   14 the node answers

usage: make_link_corpus.py tests/fuzz/corpus/fuzz_link"""
import pathlib
import sys

out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
N = 0x80

MEET = [0, 1, N | 1, 1]


def write(name, *codes):
    (out / name).write_bytes(bytes(codes))


def put_in(to, kind, body):
    return [to | 5, kind, len(body) // 2, *body]


for secrets in range(8):
    write(f"meet-{secrets}", secrets, *MEET, 7, 9, 6, 30, 1, N | 1, 6, 30, 1, N | 1)
    for kind in range(0, 13):
        for to, who in ((0, "coordinator"), (N, "node")):
            body = bytes([1, 0] + [0] * 30)
            write(f"put-in-{secrets}-{who}-{kind}", secrets, 0, *put_in(to, kind, body), *MEET, *put_in(to, kind, body))
write("silent", 1, *MEET, *[6, 25] * 12)
write("silent-busy", 1, *MEET, *[N | 6, 25] * 40)
write("late", 1, 0, 6, 250)
write("late-proof", 1, 0, 1, N | 1, 6, 250, 1)
write("drain", 1, *MEET, N | 8, 1, 6, 1, N | 1, 6, 30, 1, N | 1)
write("drain-before", 1, N | 8, 1, *MEET, 6, 1, N | 1)
write("no-room", 1, *MEET, 9, 1, 7, 5, 6, 1, 9, 0, 6, 2, 1, N | 1)
write("no-room-hello", 1, 9, 1, 0, 9, 0, 0, 1)
write("no-room-answer", 1, N | 9, 1, 0, 1)
write("unwanted", 1, N | 10, 1, 0, 1, N | 1, 6, 250)
write("unwanted-node", 1, 10, 1, *MEET)
write("replay-hello", 1, 0, 2, 2)
write("replay-proof", 1, 0, 1, N | 1, 2, 2)
write("proof-of-before", 1, 0, 1, N | 1, 2, 0, 1, N | 1, 1)
write("damage-hello", 1, 0, 4, 20, 0, 3, 1)
write("damage-answer", 1, 0, 1, N | 4, 40, 1, 3, N | 1)
write("damage-proof", 1, 0, 1, N | 1, 4, 10, 0, 0, 1)
write("goodbye", 1, *MEET, *put_in(0, 7, bytes([2, 0, 1, 120])))
write("goodbye-draining", 0, *MEET, *put_in(0, 7, bytes([1, 0, 1, 120])), *put_in(0, 7, bytes([1, 0, 1, 120])))
write("lost", 1, *MEET, 12, N | 12, *MEET)
LOADS = [code for i in range(64) for code in (11, i, i + 1)]
write("holds", 1, *LOADS, *MEET, 6, 1, N | 1, N | 1, N | 1, 11, 5, 0, 6, 1, N | 1)
write("holds-lost", 1, *LOADS, *MEET, 6, 1, N | 1, N | 3, N | 1, 6, 25, 1, 6, 25, 1)
write("holds-twice", 1, *MEET, 11, 1, 1, 6, 1, N | 2, 11, 1, 2, 6, 1, N | 1, N | 1)
write("holds-no-room", 1, *MEET, N | 9, 1, 11, 1, 1, 6, 1, N | 9, 0, 6, 1)
write("holds-put-in", 1, *MEET, *put_in(0, 9, bytes([0] * 8 + [1] + [0] * 7 + [1] + [0] * 7 + [1, 0] + [3, 0, 0, 0] + [64, 0, 0, 0] + [7] * 8)))
write("ping-put-in", 1, *LOADS, *MEET, *put_in(N, 5, bytes(24)), 6, 1, *put_in(N, 5, bytes(24)))
ASK = [13, 0, 10, 99, 1, N | 14, N | 1]
write("read", 5, *MEET, *ASK, *ASK, 13, 0, 140, 255, 1, N | 14, N | 1, 13, 0, 150, 1, 1, N | 14, N | 1, 13, 1, 0, 0, 1, N | 14, N | 1)
write("read-twice", 5, *MEET, 13, 0, 0, 5, 2, 1)
write("read-piece-twice", 5, *MEET, 13, 0, 0, 5, 1, N | 14, N | 2, N | 1)
write("read-damaged", 5, *MEET, 13, 0, 0, 5, 1, N | 14, N | 4, 40, 0, 3, N | 1)
write("read-no-room", 4, *MEET, 9, 1, 13, 0, 0, 5, 9, 0, *ASK, N | 9, 1, *ASK)
write("read-silent", 4, *MEET, *[6, 250] * 5)
write("read-unanswered", 4, *MEET, 13, 0, 0, 5, 1, *[6, 250] * 5)
write("read-put-in", 4, *MEET, 13, 0, 0, 5, 1, *put_in(0, 11, bytes(36 + 8) + bytes([9, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0]) + bytes(6)))
