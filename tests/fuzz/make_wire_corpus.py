#!/usr/bin/env python3
"""Writes the seed corpus of fuzz_wire: one good frame of every type and one file per rule of docs/wire.md that it breaks.

usage: make_wire_corpus.py tests/fuzz/corpus/fuzz_wire"""
import pathlib
import struct
import sys

out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def write(name, kind, body, magic=b"CNCW", version=4, length=None, crc=None):
    head = magic + struct.pack("<HHI", version, kind, 16 + len(body) if length is None else length)
    crc = crc32c(head + body) if crc is None else crc
    (out / name).write_bytes(head + struct.pack("<I", crc) + body)


def name(text):
    return struct.pack("B", len(text)) + text


def hello(role=2, incarnation=7, d_model=16, message=4096, rows=8, picks=16, member=b"n0", cluster=b"conclave",
          numeric=b"f32-1", nonce=b"", mac=b"", tail=b"", finger=bytes(32)):
    return (struct.pack("<HQ", role, incarnation) + finger + struct.pack("<IQII", d_model, message, rows, picks)
            + name(member) + name(cluster) + name(numeric) + name(nonce) + name(mac) + tail)


write("hello", 1, hello(role=1))
write("hello-proofs", 1, hello(nonce=bytes(range(32)), mac=bytes(32)))
write("proof", 8, bytes(range(32)))
write("proof-short", 8, bytes(31))
write("proof-long", 8, bytes(33))
write("hello-short-head", 1, hello()[:40])
write("hello-short-member", 1, hello()[:67])
write("hello-reader", 1, hello(role=3))
write("hello-role", 1, hello(role=4))
write("hello-limits", 1, hello(rows=0))
write("hello-empty-member", 1, hello(member=b""))
write("hello-long-member", 1, hello(member=b"m" * 64))
write("hello-bad-cluster", 1, hello(cluster=b"a b"))
write("hello-empty-class", 1, hello(numeric=b""))
write("hello-nonce-31", 1, hello(nonce=bytes(31)))
write("hello-mac-1", 1, hello(mac=b"x"))
write("hello-tail", 1, hello(tail=b"x"))
write("hello-other-cluster", 1, hello(role=1, cluster=b"other"))
write("hello-other-class", 1, hello(role=1, numeric=b"bf16-1"))
write("hello-other-model", 1, hello(role=1, finger=bytes(31) + b"x"))
write("hello-same-role", 1, hello(role=2))

REQUEST = struct.pack("<QQIII", 1, 2, 3, 0, 4)


def dispatch(groups, index, n_rows, d_model=2, dtype=1, reserved=0, n_picks=None, rows=None):
    size = 4 if dtype == 1 else 2
    rows = bytes(n_rows * d_model * size) if rows is None else rows
    n_picks = len(index) if n_picks is None else n_picks
    return (REQUEST + struct.pack("<QIHHIII", 9, d_model, dtype, reserved, n_rows, len(groups), n_picks)
            + b"".join(struct.pack("<iI", e, n) for e, n in groups) + b"".join(struct.pack("<I", i) for i in index) + rows)


write("dispatch", 2, dispatch([(1, 2), (5, 1)], [0, 2, 1], 3))
write("dispatch-bf16", 2, dispatch([(0, 1)], [0], 1, dtype=2))
write("dispatch-short", 2, dispatch([(1, 1)], [0], 1)[:30])
write("dispatch-width-0", 2, dispatch([(1, 1)], [0], 1, d_model=0))
write("dispatch-width-huge", 2, dispatch([(1, 1)], [0], 1, d_model=1 << 21, rows=b""))
write("dispatch-dtype", 2, dispatch([(1, 1)], [0], 1, dtype=9))
write("dispatch-reserved", 2, dispatch([(1, 1)], [0], 1, reserved=1))
write("dispatch-no-rows", 2, dispatch([(1, 1)], [0], 0))
write("dispatch-no-groups", 2, dispatch([], [], 1))
write("dispatch-bytes", 2, dispatch([(1, 1)], [0], 1) + b"xxxx")
write("dispatch-negative-expert", 2, dispatch([(-1, 1)], [0], 1))
write("dispatch-same-expert", 2, dispatch([(4, 1), (4, 1)], [0, 0], 1))
write("dispatch-empty-group", 2, dispatch([(4, 0), (5, 1)], [0], 1))
write("dispatch-too-many-picks", 2, dispatch([(4, 1), (5, 0xFFFFFFFF)], [0, 0], 1))
write("dispatch-picks-left", 2, dispatch([(4, 1)], [0, 0], 1))
write("dispatch-row-range", 2, dispatch([(4, 1)], [1], 1))
write("dispatch-row-twice", 2, dispatch([(4, 2)], [0, 0], 1))
write("dispatch-counts-overflow", 2, dispatch([(4, 1)], [0], 0xFFFFFFFF, rows=bytes(8), n_picks=0xFFFFFFFF))


def result(n_picks=1, d_model=2, dtype=1, reserved=0, rows=None):
    return (REQUEST + struct.pack("<IHHII", d_model, dtype, reserved, n_picks, 0)
            + (bytes(n_picks * d_model * 4) if rows is None else rows))


write("result", 3, result(3))
write("result-short", 3, result()[:20])
write("result-width", 3, result(d_model=0))
write("result-none", 3, result(0))
write("result-bytes", 3, result(2, rows=bytes(15)))
write("refuse", 4, REQUEST + struct.pack("<H", 2) + name(b"expert 9"))
write("refuse-text", 4, REQUEST + struct.pack("<H", 2) + name(b"\xff\xfe"))
write("refuse-long", 4, REQUEST + struct.pack("<H", 2) + name(b"x" * 201))
write("ping", 5, struct.pack("<QQQ", 77, 5, 9))
write("ping-short", 5, struct.pack("<QQ", 77, 5))
write("ping-tail", 5, struct.pack("<QQQB", 77, 5, 9, 1))


def holds(after=3, upto=5, latest=7, blocks=((0, 0, 5), (1, 128, 1 << 63)), n=None):
    return (struct.pack("<QQQH", after, upto, latest, len(blocks) if n is None else n)
            + b"".join(struct.pack("<IIQ", *block) for block in blocks))


write("holds", 9, holds())
write("holds-nothing", 9, holds(after=0, upto=1, latest=1, blocks=()))
write("holds-full", 9, holds(blocks=[(i, 64, i) for i in range(29)]))
write("holds-blocks", 9, holds(blocks=[(i, 64, i) for i in range(30)]))
write("holds-short", 9, holds(n=3))
write("holds-tail", 9, holds(n=1))
write("holds-first", 9, holds(blocks=((0, 63, 1),)))
write("holds-first-huge", 9, holds(blocks=((0, 1 << 31, 1),)))
write("holds-backwards", 9, holds(after=5))
write("holds-beyond", 9, holds(latest=4))
write("pong", 6, struct.pack("<QIIQQ", 77, 1, 2, 3, 4))
write("pong-short", 6, struct.pack("<QIIQ", 77, 1, 2, 3))
write("goodbye", 7, struct.pack("<H", 1) + name(b"draining"))
write("goodbye-nul", 7, struct.pack("<H", 1) + name(b"a\0b"))
write("goodbye-tail", 7, struct.pack("<H", 1) + name(b"") + b"x")
write("version", 5, struct.pack("<QQQ", 77, 5, 9), version=3)
write("type-0", 0, b"")
write("type-12", 12, b"")


def fetch(part=2, offset=100, length=4096):
    return bytes(range(32)) + struct.pack("<IQI", part, offset, length)


def piece(part=2, offset=100, size=112, data=b"abcdefghijkl", n=None):
    return bytes(range(32)) + struct.pack("<IQQI", part, offset, size, len(data) if n is None else n) + data


write("fetch", 10, fetch())
write("fetch-short", 10, fetch()[:-1])
write("fetch-tail", 10, fetch() + b"x")
write("fetch-nothing", 10, fetch(length=0))
write("fetch-much", 10, fetch(length=65537))
write("piece", 11, piece())
write("piece-none", 11, piece(size=0, data=b""))
write("piece-end", 11, piece(offset=112, data=b""))
write("piece-short", 11, piece(n=13))
write("piece-tail", 11, piece(n=11))
write("piece-beyond", 11, piece(size=111))
write("piece-nothing", 11, piece(data=b""))
write("piece-of-none", 11, piece(size=0))
write("piece-huge", 11, piece(size=1 << 40, data=bytes(65537)))
write("magic", 5, struct.pack("<QQ", 77, 5), magic=b"CNCX")
write("length", 5, struct.pack("<QQ", 77, 5), length=99)
write("checksum", 5, struct.pack("<QQ", 77, 5), crc=1)
(out / "header-short").write_bytes(b"CNCW\x01")
