#!/usr/bin/env python3
"""Corpora of fuzz_pickle and fuzz_zip, made from the files of torch.save: make_torch_corpus.py tests/fuzz/corpus"""
import io
import os
import struct
import sys
import zipfile
import zlib

VECTORS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "vectors", "torch")


def text(s):
    return b"X" + struct.pack("<I", len(s)) + s


def integer(n):
    return b"\x8a\x08" + struct.pack("<q", n)


def rebuild(numel=6, offset=0, size=(2, 3), stride=(3, 1), kind=b"FloatStorage", hooks=b"ccollections\nOrderedDict\n)R", more=b"", key=b"0"):
    ints = lambda values: b"(" + b"".join(integer(v) for v in values) + b"t"
    storage = b"(" + text(b"storage") + b"ctorch\n" + kind + b"\n" + text(key) + text(b"cpu") + integer(numel) + b"tQ"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + integer(offset) + ints(size) + ints(stride) + b"\x89" + hooks + more + b"tR"


def state(*entries):
    return b"\x80\x02}(" + b"".join(text(name) + value for name, value in entries) + b"u."


PICKLES = {
    "ok": state((b"w", rebuild())),
    "ok_parameter": state((b"w", b"ctorch._utils\n_rebuild_parameter\n(" + rebuild() + b"\x88}tR")),
    "ok_empty_tensor": state((b"w", rebuild(0, 0, (0, 3)))),
    "bad_result_tuple": b"\x80\x02}q\0" + text(b"w") + b"r\1\0\0\0" + rebuild() + b"sh\0" + b"\x85.",
    "bad_no_entries": b"\x80\x02]K\1a(K\2M\3\0e}" + b".",
    "ok_build": b"\x80\x02ccollections\nOrderedDict\n)R" + text(b"w") + rebuild() + b"s}" + text(b"_metadata") + b"}sb.",
    "bad_build_plain": b"\x80\x02}}b.",
    "bad_build_list": b"\x80\x02ccollections\nOrderedDict\n)R]b.",
    "bad_twice": state((b"w", rebuild()), (b"w", rebuild())),
    "bad_global": b"\x80\x02cos\nsystem\n" + text(b"id") + b"\x85R.",
    "bad_global_line": b"\x80\x02c" + b"a" * 200,
    "bad_call_storage": b"\x80\x02ctorch\nFloatStorage\n)R.",
    "bad_call_text": b"\x80\x02" + text(b"x") + b")R.",
    "bad_ordered_dict": b"\x80\x02ccollections\nOrderedDict\n]\x85R.",
    "bad_protocol": b"\x80\x04}.",
    "bad_protocol_twice": b"\x80\x02\x80\x02}.",
    "bad_first": b"}.",
    "bad_opcode": b"\x80\x02N.",
    "bad_no_stop": b"\x80\x02}",
    "bad_behind": b"\x80\x02}..",
    "bad_two_results": b"\x80\x02}}.",
    "bad_result": b"\x80\x02K\1.",
    "bad_no_tensor": state((b"w", b"K\1")),
    "bad_empty": b"\x80\x02}.",
    "bad_key": b"\x80\x02}K\1" + rebuild() + b"s.",
    "bad_odd": b"\x80\x02}(" + text(b"w") + b"u.",
    "bad_set_in_list": b"\x80\x02]" + text(b"w") + b"K\1s.",
    "bad_set_items_in_list": b"\x80\x02](" + text(b"w") + b"K\1u.",
    "bad_append": b"\x80\x02}K\1a.",
    "bad_appends": b"\x80\x02}(K\1e.",
    "bad_no_mark": b"\x80\x02t.",
    "bad_no_mark_items": b"\x80\x02u.",
    "bad_no_mark_appends": b"\x80\x02e.",
    "bad_mark_taken": b"\x80\x02(\x85.",
    "bad_mark_kept": b"\x80\x02(q\0.",
    "bad_stack_empty": b"\x80\x02a.",
    "bad_stack_mark": b"\x80\x02(R.",
    "bad_top_empty": b"\x80\x02K\1a.",
    "bad_tuple3": b"\x80\x02K\1K\1\x87.",
    "bad_memo": b"\x80\x02h\7.",
    "bad_memo_far": b"\x80\x02}r\xff\xff\xff\xff.",
    "bad_text_length": b"\x80\x02X\xff\xff\xff\xffa.",
    "bad_text_utf8": b"\x80\x02" + text(b"\xff\xfe") + b".",
    "bad_long": b"\x80\x02\x8a\x09" + b"\1" * 9 + b".",
    "bad_truncated": b"\x80\x02J\1",
    "bad_name_long": state((b"n" * 513, rebuild())),
    "bad_name_nul": state((b"a\0b", rebuild())),
    "bad_name_control": state((b"a\n\xc3\xbc", b"K\1")),
    "bad_persistent": b"\x80\x02K\1Q.",
    "bad_persistent_what": b"\x80\x02(K\1K\1K\1K\1K\1tQ.",
    "bad_args": state((b"w", rebuild(more=b"}"))),
    "bad_hooks": state((b"w", rebuild(hooks=b"}" + text(b"h") + b"K\1s"))),
    "bad_rank": state((b"w", rebuild(1, 0, (1,) * 9, (1,) * 9))),
    "bad_rank_differs": state((b"w", rebuild(stride=(1,)))),
    "bad_size_kind": state((b"w", b"ctorch._utils\n_rebuild_tensor_v2\n(" + rebuild()[38:-40] + b"tR")),
    "bad_negative": state((b"w", rebuild(size=(-1, 3)))),
    "bad_beyond": state((b"w", rebuild(offset=1))),
    "bad_many": state((b"w", rebuild(size=(3, 3)))),
    "bad_repeats": state((b"w", rebuild(stride=(0, 1)))),
    "bad_overflow_shape": state((b"w", rebuild(size=(1 << 62, 8)))),
    "bad_overflow_stride": state((b"w", rebuild(stride=((1 << 63) - 1, (1 << 63) - 1)))),
    "bad_overflow_bytes": state((b"w", rebuild(numel=(1 << 63) - 1, size=(1,), stride=(1,)))),
    "bad_parameter": state((b"w", b"ctorch._utils\n_rebuild_parameter\n(K\1\x88}tR")),
    "bad_size_list": state((b"w", rebuild().replace(b"(" + integer(2) + integer(3) + b"t", b"]"))),
}


def archive(entries, method=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as z:
        for name, data in entries:
            z.writestr(zipfile.ZipInfo(name), data, method)
    return out.getvalue()


def model(pickle=PICKLES["ok"], storage=b"\0" * 24, extra=(), version=b"3\n", order=b"little"):
    return archive([("m/data.pkl", pickle), ("m/byteorder", order), ("m/data/0", storage), ("m/version", version)] + list(extra))


def patched(data, at, new):
    return data[:at] + new + data[at + len(new):]


def zip64(data):
    """The same with a zip64 end record, its sentinels in the short one."""
    end = data[-22:]
    n, size, offset = struct.unpack("<HII", end[10:20])
    at = len(data) - 22
    long_end = struct.pack("<IQHHIIQQQQ", 0x06064b50, 44, 45, 45, 0, 0, n, n, size, offset)
    locator = struct.pack("<IIQI", 0x07064b50, 0, at, 1)
    return data[:-22] + long_end + locator + end[:8] + b"\xff" * 12 + end[20:]


def zip64_entry():
    """A directory whose first row has its sizes in a zip64 field, as its local header does."""
    payload = PICKLES["ok"]
    crc = zlib.crc32(payload)
    name = b"m/data.pkl"
    wide = struct.pack("<HHQQ", 1, 16, len(payload), len(payload))
    local = struct.pack("<IHHHHHIIIHH", 0x04034b50, 45, 0, 0, 0, 0, crc, 0xffffffff, 0xffffffff, len(name), len(wide)) + name + wide + payload
    wide = struct.pack("<HHQQQ", 1, 24, len(payload), len(payload), 0)
    row = struct.pack("<IHHHHHHIIIHHHHHII", 0x02014b50, 45, 45, 0, 0, 0, 0, crc, 0xffffffff, 0xffffffff, len(name), len(wide), 0, 0, 0, 0, 0xffffffff)
    row += name + wide
    return local + row + struct.pack("<IHHHHIIH", 0x06054b50, 0, 0, 1, 1, len(row), len(local), 0)


OK = model()
ZIPS = {
    "ok": OK,
    "ok_zip64_end": zip64(OK),
    "bad_zip64_alone": zip64_entry(),
    "ok_no_byteorder": archive([("m/data.pkl", PICKLES["ok"]), ("m/data/0", b"\0" * 24), ("m/version", b"3\n")]),
    "bad_empty": b"",
    "bad_truncated": OK[:-1],
    "bad_comment": OK[:-2] + b"\1\0",
    "bad_disk": patched(OK, len(OK) - 18, b"\1\0"),
    "bad_counts": patched(OK, len(OK) - 14, b"\7\0\7\0"),
    "bad_count_low": patched(OK, len(OK) - 14, b"\1\0\1\0"),
    "bad_directory": patched(OK, len(OK) - 10, b"\1\0\0\0"),
    "bad_end64_place": patched(zip64(OK), len(zip64(OK)) - 22 - 12, b"\1\0\0\0"),
    "bad_end64_disks": patched(zip64(OK), len(zip64(OK)) - 22 - 4, b"\2\0\0\0"),
    "bad_end64_record": patched(zip64(OK), len(zip64(OK)) - 22 - 20 - 52, b"\1\0\0\0"),
    "bad_end64_differs": patched(zip64(OK), len(zip64(OK)) - 14, b"\1\0\1\0"),
    "bad_compressed": archive([("m/data.pkl", PICKLES["ok"])], zipfile.ZIP_DEFLATED),
    "bad_encrypted": patched(OK, OK.index(b"PK\1\2") + 8, b"\1\0"),
    "bad_row": patched(OK, OK.index(b"PK\1\2"), b"PK\1\3"),
    "bad_row_disk": patched(OK, OK.index(b"PK\1\2") + 34, b"\1\0"),
    "bad_row_length": patched(OK, OK.index(b"PK\1\2") + 28, b"\xff\xff"),
    "bad_row_extra": patched(OK, OK.index(b"PK\1\2") + 28, b"\6\0\4\0"),
    "bad_offset": patched(OK, OK.index(b"PK\1\2") + 42, b"\xff\xff\xff\x7f"),
    "bad_offset_other": patched(OK, OK.index(b"PK\1\2") + 42, b"\4\0\0\0"),
    "bad_local_name": patched(OK, 30, b"n"),
    "bad_descriptor": patched(patched(OK, 6, b"\x08\0"), OK.index(b"PK\1\2") + 8, b"\x08\0"),
    "bad_zip64_field": patched(zip64_entry(), zip64_entry().index(b"PK\1\2") + 42, b"\0\0\0\0"),
    "bad_zip64_local": patched(zip64_entry(), 44, b"\1"),
    "bad_crc": OK.replace(b"little", b"lIttle"),
    "bad_crc_storage": patched(OK, OK.index(b"m/data/0") + 8, b"\1"),
    "bad_crc_version": OK.replace(b"m/version3\n", b"m/version4\n"),
    "bad_big_endian": model(order=b"big"),
    "bad_version": model(version=b"99"),
    "bad_version_absent": archive([("m/data.pkl", PICKLES["ok"]), ("m/data/0", b"\0" * 24)]),
    "bad_no_pickle": archive([("m/version", b"3\n")]),
    "bad_two_pickles": model(extra=[("n/data.pkl", b"")]),
    "bad_twice": model(extra=[("m/x", b""), ("m/y", b"")]).replace(b"m/y", b"m/x"),
    "bad_name_absolute": model(extra=[("/x", b"")]),
    "bad_name_parent": model(extra=[("a/../x", b"")]),
    "bad_name_folder": model(extra=[("a/", b"")]),
    "bad_name_control": model(extra=[("a\1", b"")]),
    "bad_storage_absent": model(state((b"w", rebuild(key=b"9")))),
    "bad_storage_key_long": model(state((b"w", rebuild(key=b"9" * 2000)))),
    "bad_storage_size": model(storage=b"\0" * 23),
    "bad_storage_types": model(state((b"a", rebuild()), (b"b", rebuild(kind=b"IntStorage")))),
    "bad_blown_up": model(state((b"w", rebuild(600, 0, (6, 100), (100, 1)) + b"q\0"), *[(b"%d" % i, b"h\0") for i in range(300)]),
                          b"\0" * 2400),
    "bad_legacy": open(os.path.join(VECTORS, "2.15.0/legacy/pytorch_model.bin"), "rb").read(),
}


def write(folder, inputs):
    os.makedirs(folder, exist_ok=True)
    for name, data in inputs.items():
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data)


if __name__ == "__main__":
    corpus = sys.argv[1]
    for version in ("1.13.1", "2.15.0"):
        for name in ("single/pytorch_model", "sharded/pytorch_model-00002-of-00002"):
            path = os.path.join(VECTORS, version, name + ".bin")
            kept = "torch_%s_%s" % (version, name.split("/")[0])
            with zipfile.ZipFile(path) as z:
                entry = [n for n in z.namelist() if n.endswith("/data.pkl")][0]
                PICKLES[kept] = z.read(entry)
            with open(path, "rb") as f:
                ZIPS[kept] = f.read()
    write(os.path.join(corpus, "fuzz_pickle"), PICKLES)
    write(os.path.join(corpus, "fuzz_zip"), ZIPS)
