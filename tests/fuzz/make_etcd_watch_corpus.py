#!/usr/bin/env python3
"""Writes the seed corpus of fuzz_etcd_watch: the first byte is the size of the pieces, then what etcd answers."""
import base64
import json
import pathlib

OUT = pathlib.Path(__file__).parent / "corpus" / "fuzz_etcd_watch"


def b64(text):
    return base64.b64encode(text.encode()).decode()


def kv(key, value=None, mod=12, create=10, lease=0):
    out = {"key": b64(key), "create_revision": str(create), "mod_revision": str(mod), "version": "1"}
    if value is not None:
        out["value"] = b64(value)
    if lease:
        out["lease"] = str(lease)
    return out


def line(result):
    return json.dumps({"result": {"header": {"revision": "12", "raft_term": "2"}, **result}}, separators=(",", ":")) + "\n"


CREATED = line({"created": True})
PUT = line({"events": [{"kv": kv("/conclave/c/nodes/a", '{"v":1}', lease=7587)}]})
DELETE = line({"events": [{"type": "DELETE", "kv": {"key": b64("/conclave/c/nodes/a"), "mod_revision": "13"}}]})
SEEDS = {
    "created": CREATED,
    "put": CREATED + PUT,
    "delete": CREATED + PUT + DELETE,
    "two_events": CREATED + line({"events": [{"kv": kv("/a", "1")}, {"kv": kv("/b", "22")}]}),
    "empty_value": line({"events": [{"kv": kv("/a")}]}),
    "padding": line({"events": [{"kv": kv("/aa", "1234")}, {"kv": kv("/aaa", "12345")}]}),
    "canceled": line({"created": True, "canceled": True, "cancel_reason": "etcdserver: permission denied"}),
    "canceled_silent": line({"canceled": True}),
    "compacted": CREATED + line({"canceled": True, "compact_revision": "15"}) + PUT,
    "error": '{"error":{"grpc_code":14,"http_code":503,"message":"transport is closing"}}\n',
    "no_result": "{}\n",
    "blank_lines": "\n \r\n" + CREATED + "\n\n" + PUT,
    "no_newline": CREATED + PUT[:-1],
    "half": CREATED + PUT[:50],
    "bad_base64": line({"events": [{"kv": {"key": "a=b=", "mod_revision": "1"}}]}),
    "short_base64": line({"events": [{"kv": {"key": "abc", "mod_revision": "1"}}]}),
    "nul_in_key": line({"events": [{"kv": {"key": b64("a\0b"), "mod_revision": "1"}}]}),
    "no_key": line({"events": [{"kv": {"value": b64("x")}}]}),
    "number_revision": line({"events": [{"kv": {"key": b64("a"), "mod_revision": 9}}]}),
    "bad_revision": line({"events": [{"kv": {"key": b64("a"), "mod_revision": "9x"}}]}),
    "negative_revision": line({"events": [{"kv": {"key": b64("a"), "mod_revision": -9}}]}),
    "bad_compact": line({"created": True, "compact_revision": "x"}),
    "deep": "[" * 100 + "]" * 100 + "\n",
    "not_json": "404 page not found\n",
    "long_line": "x" * 5000,
    "range": json.dumps({"header": {"revision": "9"}, "kvs": [kv("/a", "1"), kv("/b", "22")], "count": "2"}),
    "range_bad": json.dumps({"header": {"revision": "9"}, "kvs": [kv("/a", "1"), 7]}),
    "txn": json.dumps({"header": {"revision": "9"}, "succeeded": True, "responses": [{"response_put": {}}]}),
    "grant": json.dumps({"header": {"revision": "9"}, "ID": "7587", "TTL": "15"}),
    "keepalive": json.dumps({"result": {"header": {"revision": "9"}, "ID": "7587", "TTL": "15"}}),
    "login": json.dumps({"header": {}, "token": "abc.12"}),
    "lease_gone": json.dumps({"error": "etcdserver: requested lease not found", "code": 5}),
    "denied": json.dumps({"error": "etcdserver: user name is empty", "message": "etcdserver: user name is empty", "code": 3}),
    "no_space": json.dumps({"error": "etcdserver: mvcc: database space exceeded", "code": 8}),
    "forbidden": json.dumps({"error": "etcdserver: permission denied", "code": 7}),
    "bad_header": json.dumps({"header": {"revision": "x"}}),
}

OUT.mkdir(parents=True, exist_ok=True)
for i, (name, text) in enumerate(SEEDS.items()):
    (OUT / name).write_bytes(bytes([i % 9]) + text.encode())
