#!/usr/bin/env python3
"""Writes the seed corpus of fuzz_catalogue: records of a model of 2 layers with experts 0 to 4, the last one the coordinator's."""
import hashlib
import json
import pathlib

OUT = pathlib.Path(__file__).parent / "corpus" / "fuzz_catalogue"
HASHES = {"german": "a" * 64, "fix": "f" * 64}


def expert_hash(pack, layer, place):
    return hashlib.sha256(f"conclave-expert 1\n{HASHES[pack]}\n{layer}\n{place}\n".encode()).hexdigest()


# Layer 0 has 5 and 6 of german, 7 of fix; layer 1 has 5 of fix.
ADDED = {(0, 5): ("german", 0), (0, 6): ("german", 1), (0, 7): ("fix", 0), (1, 5): ("fix", 0)}


def ranges(ids):
    parts, ids = [], sorted(ids)
    while ids:
        n = 1
        while n < len(ids) and ids[n] == ids[0] + n:
            n += 1
        parts.append(f"{ids[0]}-{ids[n - 1]}" if n > 1 else f"{ids[0]}")
        ids = ids[n:]
    return ",".join(parts)


def expert_set(*layers):
    text = "conclave-set 1\n" + "0" * 64 + "\n"
    for number, ids in enumerate(layers):
        text += ",".join(str(i) + (":" + expert_hash(ADDED[number, i][0], number, ADDED[number, i][1]) if (number, i) in ADDED else "")
                         for i in sorted(ids)) + "\n"
    return {"id": hashlib.sha256(text.encode()).hexdigest(), "layers": [ranges(ids) for ids in layers]}


BASE = expert_set(range(5), range(5))
GERMAN = expert_set(range(7), range(5))
BOTH = expert_set([0, 2, 3, 4, 5, 6, 7], [0, 1, 3, 4, 5])
PRUNED = expert_set([0, 2, 7], [3, 5])
PACK_GERMAN = {"kind": "add", "name": "german", "version": "1", "hash": HASHES["german"], "since": 5, "by": "ann", "layers": [[0, 2, 5]]}
PACK_FIX = {"kind": "replace", "name": "fix", "version": "2.0", "hash": HASHES["fix"], "since": 7, "layers": [[0, 1, 7, [1]], [1, 1, 5, [2]]]}
ENTRY = {"number": 1, "at": 5, "who": "ann", "why": "\u00e4 \"q\"", "what": "add german 1", "before": BASE["id"], "after": GERMAN["id"]}
PENDING = {"number": 3, "begun": 8, "deadline": 9, "who": "bob", "what": "prune 2 experts", "target": PRUNED["id"]}
SHADOW = {"pack": HASHES["german"], "share": 500, "since": 8, "by": "ann", "set": GERMAN["id"]}
NEW = {"v": 1, "number": 0, "packs": [], "sets": [BASE], "names": [], "default": BASE["id"], "former": [], "log": []}
WHOLE = {"v": 1, "number": 3, "packs": [PACK_GERMAN, PACK_FIX], "sets": [BOTH, GERMAN, BASE, PRUNED],
         "names": [{"name": "few", "set": PRUNED["id"]}, {"name": "mine", "set": GERMAN["id"]}], "default": BOTH["id"],
         "former": [{"set": GERMAN["id"], "until": 7}, {"set": BASE["id"], "until": 5}],
         "log": [ENTRY, {**ENTRY, "number": 2, "undone": "node b fell silent"}], "pending": PENDING}


def whole(**more):
    return {**WHOLE, **more}


def packs(*changes):
    return whole(packs=[{**PACK_GERMAN, **changes[0]}, {**PACK_FIX, **(changes[1] if len(changes) > 1 else {})}])


def sets(**more):
    return whole(sets=[{**BOTH, **more}, GERMAN, BASE, PRUNED])


def pending(**more):
    return whole(pending={**PENDING, **more})


def shadow(**more):
    return whole(shadow={**SHADOW, **more})


SEEDS = {
    "shadow": shadow(), "shadow_pending": {**pending(shadow=HASHES["german"], share=0), "shadow": SHADOW},
    "shadow_share": shadow(share=10001), "shadow_share_none": shadow(share=None), "shadow_pack": shadow(pack="b" * 64), "shadow_set": shadow(set=""),
    "shadow_since": shadow(since="8"), "shadow_list": whole(shadow=[]), "shadow_by": shadow(by="b" * 64),
    "shadow_pending_named": pending(shadow=HASHES["german"], share=1, name="other"),
    "shadow_pending_rollback": pending(shadow=HASHES["german"], share=1, rollback=True, target=GERMAN["id"]),
    "shadow_pending_share": pending(shadow=HASHES["german"]), "shadow_pending_pack": pending(shadow="german", share=1),
    "shadow_many": {**shadow(), "names": [{"name": f"n{i:02}", "set": BASE["id"]} for i in range(63)]},
    "new": NEW,
    "whole": WHOLE,
    "nothing_pending": {k: v for k, v in WHOLE.items() if k != "pending"},
    "rollback_pending": pending(rollback=True, target=GERMAN["id"]),
    "name_pending": pending(name="other"),
    "v_2": whole(v=2), "no_v": whole(v=None), "list": [], "number": 7, "number_negative": whole(number=-1), "number_huge": whole(number=1 << 60),
    "number_text": whole(number="3"), "packs_no_list": whole(packs={}), "packs_numbers": whole(packs=[1, 2]), "packs_many": whole(packs=[1] * 1025),
    "pack_twice": whole(packs=[PACK_GERMAN, {**PACK_GERMAN, "layers": [[0, 2, 7]]}]),
    "pack_kind": packs({"kind": "subtract"}), "pack_name": packs({"name": "base"}), "pack_name_long": packs({"name": "n" * 64}),
    "pack_version": packs({"version": "1 2"}), "pack_hash": packs({"hash": "A" * 64}), "pack_hash_short": packs({"hash": "a"}),
    "pack_since": packs({"since": "5"}), "pack_by": packs({"by": "a\u0007"}), "pack_no_layers": packs({"layers": []}),
    "pack_layers_many": packs({"layers": [[0, 1, 5]] * 3}), "pack_layers_twice": packs({"layers": [[0, 1, 5], [0, 1, 6]]}),
    "pack_layer_beyond": packs({"layers": [[2, 2, 5]]}), "pack_layer_none": packs({"layers": [[0, 0, 5]]}),
    "pack_layer_many": packs({"layers": [[0, 1025, 5]]}), "pack_layer_first": packs({"layers": [[0, 2, 6]]}),
    "pack_layer_text": packs({"layers": [[0, "2", 5]]}), "pack_layer_number": packs({"layers": [0]}),
    "pack_replaced_of_add": packs({"layers": [[0, 2, 5, [1, 2]]]}),
    "pack_not_replaced": packs({}, {"layers": [[0, 1, 7], [1, 1, 5]]}), "pack_replaced_few": packs({}, {"layers": [[0, 1, 7, []], [1, 1, 5, [2]]]}),
    "pack_replaced_local": packs({}, {"layers": [[0, 1, 7, [4]], [1, 1, 5, [2]]]}),
    "pack_replaced_text": packs({}, {"layers": [[0, 1, 7, ["1"]], [1, 1, 5, [2]]]}),
    "pack_replaced_twice": packs({}, {"layers": [[0, 2, 7, [1, 1]], [1, 1, 5, [2]]]}),
    "sets_no_list": whole(sets=1), "sets_many": whole(sets=[BASE] * 82), "sets_numbers": whole(sets=[1]), "set_twice": whole(sets=[BASE] + WHOLE["sets"]),
    "set_id": sets(id="0" * 64), "set_id_long": sets(id="0" * 65), "set_layers": sets(layers=["0-4"]), "set_layers_many": sets(layers=["0-4"] * 3),
    "set_layer_number": sets(layers=[1, 2]), "set_few": sets(layers=["0", "0-4"]), "set_empty": sets(layers=["", "0-4"]),
    "set_beyond": sets(layers=["0-8", "0-4"]), "set_far_beyond": sets(layers=["0-2147483647", "0-4"]), "set_huge": sets(layers=["0-2147483648", "0-4"]),
    "set_descends": sets(layers=["4,3", "0-4"]), "set_backwards": sets(layers=["4-3", "0-4"]), "set_of_one": sets(layers=["3-3", "0-4"]),
    "set_comma": sets(layers=["0,1,", "0-4"]), "set_zero": sets(layers=["00-1", "0-4"]), "set_open": sets(layers=["0-", "0-4"]),
    "names_no_list": whole(names="few"), "names_many": whole(names=[{"name": "a", "set": BASE["id"]}] * 64),
    "name_bad": whole(names=[{"name": "a b", "set": BASE["id"]}]), "name_base": whole(names=[{"name": "base", "set": BASE["id"]}]),
    "name_twice": whole(names=[{"name": "a", "set": BASE["id"]}] * 2), "name_of_none": whole(names=[{"name": "a", "set": "0" * 64}]),
    "name_no_set": whole(names=[{"name": "a"}]), "no_default": whole(default=None), "default_none": whole(default="0" * 64),
    "former_many": whole(former=[{"set": BASE["id"], "until": 1}] * 17), "former_until": whole(former=[{"set": BASE["id"]}]),
    "former_none": whole(former=[{"set": "", "until": 1}]), "log_no_list": whole(log=None), "log_many": whole(log=[ENTRY] * 129),
    "log_descends": whole(log=[ENTRY, ENTRY]), "log_beyond": whole(log=[{**ENTRY, "number": 4}]), "log_0": whole(log=[{**ENTRY, "number": 0}]),
    "log_at": whole(log=[{**ENTRY, "at": -1}]), "log_why": whole(log=[{**ENTRY, "why": "y" * 256}]), "log_number": whole(log=[7]),
    "pending_number": pending(number=2), "pending_0": pending(number=0), "pending_name": pending(name="base"), "pending_target": pending(target="x"),
    "pending_begun": pending(begun=None), "pending_deadline": pending(deadline=1.5), "pending_rollback": pending(rollback=1),
    "pending_name_many": {**pending(name="other"), "names": [{"name": f"n{i:02}", "set": BASE["id"]} for i in range(63)]},
    "pending_name_again": {**pending(name="n62"), "names": [{"name": f"n{i:02}", "set": BASE["id"]} for i in range(63)]},
    "file": {"layers": ["0-1,3", {"layer": 1, "experts": "0-4"}]}, "file_layer": {"layers": ["0-4", {"layer": 0, "experts": "0-4"}]},
    "file_text": {"layers": [{"layer": 0, "experts": 1}, "0-4"]}, "file_ids": {"experts": [{"layer": 0, "ids": [0, 1]}, {"layer": 1, "ids": [2, 4]}]},
    "file_sets": {"sets": [{"id": "x", "experts": [{"layer": 0, "ids": [0, 5]}, {"layer": 1, "ids": [2, 4]}]}]}, "file_few": {"layers": ["0", "0-4"]},
    "pending_rollback_to_none": {**pending(rollback=True), "former": []}, "pending_list": whole(pending=[]),
}
TEXTS = {"empty": "", "cut": json.dumps(WHOLE)[:-1], "deep": "[" * 100, "twice": '{"v":1,"v":1}', "nul": '{"v":1,"number":0,"packs":[{"name":"a\\u0000"}]}'}

OUT.mkdir(parents=True, exist_ok=True)
for name, value in SEEDS.items():
    (OUT / name).write_text(json.dumps(value, separators=(",", ":"), ensure_ascii=False), encoding="utf-8")
for name, text in TEXTS.items():
    (OUT / name).write_text(text, encoding="utf-8")
