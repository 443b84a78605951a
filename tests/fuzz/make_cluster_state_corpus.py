#!/usr/bin/env python3
"""Writes the seed corpus of fuzz_cluster_state: lines of KEY SPACE VALUE; `--` ends the first state, a KEY alone is deleted; after
`signed` records need a mac."""
import hashlib
import hmac
import json
import pathlib

OUT = pathlib.Path(__file__).parent / "corpus" / "fuzz_cluster_state"
INC = "00000000000000a1"


def record(key, value):
    return f"{key} {json.dumps(value, separators=(',', ':'))}\n"


def node(node_id, **more):
    value = {"v": 1, "incarnation": INC, "address": "h:1", "device": "cpu", "zone": "z", "version": "1", "memory_bytes": 1 << 20,
             "expert_bytes": 4096, "draining": False, "packs": []}
    return record(f"nodes/{node_id}", {**value, **more})


def ready(node_id, experts=("0,4,9", ""), **more):
    return record(f"ready/{node_id}", {"v": 1, "incarnation": INC, "epoch": 1, "experts": list(experts), **more})


def layer(i, epoch=1, owners=(("0,4", (0,)), ("1", (1,)), ("2,9", (0, 1)))):
    return record(f"placement/{i}", {"v": 1, "epoch": epoch, "owners": [{"experts": e, "nodes": list(n)} for e, n in owners]})


def placement(**more):
    return record("placement", {"v": 1, "epoch": 1, "replication": 2, "n_layers": 2, "nodes": ["a", "b"], **more})


def model(**more):
    return record("model", {"v": 1, "fingerprint": "0" * 64, "family": "olmoe", "numeric_class": "f32-1", "n_layers": 2, "n_experts": 5,
                            "k": 2, "d_model": 16, "expert_bytes": 4096, **more})


def policy(**more):
    return record("policy", {"v": 1, "replication": 2, "min_nodes": 3, **more})


def signed(lines, secret=b"the secret of a fuzzer", cluster="fuzz", key_of=lambda key: key):
    """As cluster/seal.c does."""
    derived = hmac.digest(secret, b"conclave record 1 key", hashlib.sha256)
    out = "signed\n"
    for line in lines.splitlines():
        key, _, value = line.partition(" ")
        mac = hmac.new(derived, f"{cluster}\0{key_of(key)}\0{value}".encode(), hashlib.sha256).hexdigest()
        out += f'{key} {value[:-1]},"mac":"{mac}"}}\n' if value else line + "\n"
    return out


PACK = "a" * 64


def expert_set(*layers):
    """As docs/catalogue.md has it; 6 to 9 of the first layer are the pack's."""
    text = "conclave-set 1\n" + "0" * 64 + "\n"
    for number, ids in enumerate(layers):
        added = {i: hashlib.sha256(f"conclave-expert 1\n{PACK}\n0\n{i - 6}\n".encode()).hexdigest() for i in ids if number == 0 and i > 5}
        text += ",".join(f"{i}:{added[i]}" if i in added else str(i) for i in ids) + "\n"
    return {"id": hashlib.sha256(text.encode()).hexdigest(), "layers": [f"{ids[0]}-{ids[-1]}" for ids in layers]}


BASE = expert_set(range(6), range(6))
MORE = expert_set(range(10), range(6))


def catalogue(number=1, default=MORE, pending=None, **more):
    packs = [{"kind": "add", "name": "german", "version": "1", "hash": PACK, "since": 5, "by": "ann", "layers": [[0, 4, 6]]}]
    entry = {"number": number, "at": 5, "who": "ann", "what": "add german 1", "before": BASE["id"], "after": MORE["id"]}
    value = {"v": 1, "number": number, "packs": packs, "sets": [BASE, MORE], "names": [], "default": default["id"], "former": [
        {"set": (BASE if default is MORE else MORE)["id"], "until": 5}], "log": [entry] if pending is None else []}
    if pending is not None:
        value["pending"] = {"number": number, "begun": 8, "deadline": 9, "who": "bob", "what": "add german 1", "target": MORE["id"]}
        value["former"] = []
        value["sets"] = [BASE, MORE]
    return record("catalogue", {**value, **more})


BEGUN = catalogue(default=BASE, pending=True)
COORDINATOR = record("coordinators/c", {"v": 1, "incarnation": INC, "address": "h:2", "epoch_applied": 1})
SETTLED = {"v": 1, "incarnation": INC, "address": "h:2", "epoch_applied": 0, "epoch_settled": 1}
CONTROLLER = record("controller", {"v": 1, "id": "c", "incarnation": INC})
NODES = node("a") + node("b", draining=True)
WHOLE = model() + policy() + catalogue() + NODES + ready("a") + ready("b", ["1-3", "0,4"]) + COORDINATOR + CONTROLLER + layer(0) + layer(1) + placement()
SEEDS = {
    "whole": WHOLE,
    "vanished": WHOLE + "--\nnodes/a\nnodes/b\nready/a\n",
    "same_epoch": WHOLE + "--\n" + COORDINATOR,
    "torn": WHOLE + "--\n" + layer(1, 2),
    "next_epoch": WHOLE + "--\n" + layer(0, 2) + layer(1, 2) + placement(epoch=2),
    "twice_on_a_node": NODES + layer(0, owners=[("0", (0, 0))]) + layer(1) + placement(),
    "no_such_node": NODES + layer(0, owners=[("0", (7,))]) + layer(1) + placement(),
    "too_many_replicas": NODES + layer(0) + layer(1, owners=[("0-4", (0, 1))]) + placement(replication=1),
    "owners_no_array": record("placement/0", {"v": 1, "epoch": 1, "owners": [1, 2, 3, 4, 5]}) + layer(1) + placement(),
    "no_owners": layer(0, owners=[]) + layer(1) + placement(),
    "owners_not_an_array": record("placement/0", {"v": 1, "epoch": 1, "owners": 3}) + layer(1) + placement(),
    "nodes_no_array": record("placement/0", {"v": 1, "epoch": 1, "owners": [{"experts": "0", "nodes": 1}]}) + layer(1) + placement(),
    "no_nodes": layer(0, owners=[("0", ())]) + layer(1) + placement(),
    "expert_in_two_entries": layer(0, owners=[("0-2", (0,)), ("2", (0,))]) + layer(1) + placement(),
    "local_expert": layer(0, owners=[("4-5", (0,))]) + layer(1) + placement(),
    "later_expert": layer(0, owners=[("0-4,9,20-30", (0,))]) + layer(1, owners=[("0-2147483647", (1,))]) + placement(),
    "range_backwards": layer(0, owners=[("3-1", (0,))]) + layer(1) + placement(),
    "range_of_one": layer(0, owners=[("3-3", (0,))]) + layer(1) + placement(),
    "range_open": layer(0, owners=[("3-", (0,))]) + layer(1) + placement(),
    "id_beyond": layer(0, owners=[("2147483648", (0,))]) + layer(1) + placement(),
    "id_leading_zero": layer(0, owners=[("01", (0,))]) + layer(1) + placement(),
    "list_ends_with_comma": layer(0, owners=[("0,", (0,))]) + layer(1) + placement(),
    "list_descends": layer(0, owners=[("4,0", (0,))]) + layer(1) + placement(),
    "layer_without_epoch": record("placement/0", {"v": 1}) + placement(),
    "other_shape": placement(n_layers=9),
    "bad_node_id": placement(nodes=["a/b"]),
    "epoch_0": placement(epoch=0),
    "epoch_huge": placement(epoch=1 << 60),
    "no_replication": record("placement", {"v": 1, "epoch": 1}),
    "no_n_layers": record("placement", {"v": 1, "epoch": 1, "replication": 1}),
    "no_node_list": record("placement", {"v": 1, "epoch": 1, "replication": 1, "n_layers": 2}),
    "placement_no_json": "placement {\n",
    "ready_of_another": node("a") + ready("a", incarnation="00000000000000a2"),
    "ready_bad_id": node("a") + ready("a", ["g1", ""]),
    "ready_local": node("a") + ready("a", ["0-5", ""]),
    "ready_later": node("a") + ready("a", ["0-4,9-12", "100"]),
    "ready_nul": node("a") + ready("a", ["0\u0000", ""]),
    "ready_number": node("a") + ready("a", [7, ""]),
    "ready_one_layer": node("a") + ready("a", ["0-4"]),
    "ready_no_json": node("a") + "ready/a [\n",
    "node_no_address": node("a", address=""),
    "node_long_zone": node("a", zone="z" * 64),
    "node_control": node("a", zone="z\u0007"),
    "node_no_expert_bytes": node("a", expert_bytes=0),
    "node_negative": node("a", memory_bytes=-1),
    "node_incarnation_0": node("a", incarnation="0" * 16),
    "node_incarnation_short": node("a", incarnation="00ff"),
    "node_bad_bool": node("a", draining="yes"),
    "v_2": record("nodes/a", {"v": 2}),
    "no_v": record("nodes/a", {}),
    "no_object": "nodes/a 7\ncoordinators/c []\ncontroller true\n",
    "coordinator_bad": record("coordinators/c", {"v": 1, "incarnation": INC}),
    "coordinator_settled": WHOLE + "--\n" + record("coordinators/c", {**SETTLED, "settled": ["0-4", "0"]}),
    "coordinator_settled_nothing": record("coordinators/c", SETTLED),
    "coordinator_missed": NODES + record("coordinators/c", {**SETTLED, "epoch_settled": 0, "missed": ["b", "nobody"]}),
    "coordinator_missed_bad": NODES + record("coordinators/c", {**SETTLED, "epoch_settled": 0, "missed": ["b", "a/b"]}),
    "coordinator_missed_no_array": NODES + record("coordinators/c", {**SETTLED, "epoch_settled": 0, "missed": "b"}),
    "coordinator_settled_beyond": record("coordinators/c", {**SETTLED, "settled": ["0-9", "0-9"]}),
    "controller_bad": record("controller", {"v": 1, "id": ""}),
    "model_class": model(numeric_class="bf16-1"),
    "model_layers": model(n_layers=3),
    "model_no_k": model(k=None),
    "policy_changed": WHOLE + "--\n" + policy(replication=1),
    "policy_gone": WHOLE + "--\npolicy\n",
    "policy_0": WHOLE + "--\n" + policy(replication=0),
    "policy_huge": WHOLE + "--\n" + policy(min_nodes=1 << 60),
    "policy_text": policy(replication="2"),
    "policy_no_min_nodes": record("policy", {"v": 1, "replication": 1}),
    "signed": signed(WHOLE),
    "signed_next_epoch": signed(WHOLE + "--\n" + layer(0, 2) + layer(1, 2) + placement(epoch=2)),
    "signed_by_another": signed(WHOLE, secret=b"another secret"),
    "signed_as_another_key": signed(NODES, key_of=lambda key: "nodes/z"),
    "unsigned": "signed\n" + WHOLE,
    "replaced_by_unsigned": signed(WHOLE) + "--\n" + NODES + layer(1, 2),
    "epoch_absurd": WHOLE + "--\n" + layer(0, (1 << 53) - 1),
    "no_key_of_ours": WHOLE + "placement/2 {}\nnodes/a/b {}\nunknown {}\n",
    "policy_no_json": "policy {\n",
    "catalogue_begun": BEGUN + NODES + COORDINATOR + "--\n" + record("coordinators/c", {**SETTLED, "epoch_settled": 0, "prepared": 1}),
    "catalogue_done": BEGUN + NODES + layer(0) + layer(1) + placement() + "--\n" + catalogue(),
    "catalogue_of_a_placement": NODES + layer(0) + layer(1) + placement() + "--\n" + BEGUN,
    "catalogue_gone": WHOLE + "--\ncatalogue\n",
    "catalogue_no_json": WHOLE + "--\ncatalogue {\n",
    "catalogue_older": catalogue(number=7) + "--\n" + catalogue(number=6),
    "catalogue_begun_again": catalogue() + "--\n" + BEGUN,
    "catalogue_of_others": catalogue() + "--\n" + catalogue(number=2).replace(PACK, "b" * 64),
    "catalogue_other_experts": catalogue() + "--\n" + record("catalogue", {"v": 1, "number": 2, "packs": [], "sets": [BASE], "names": [],
                                                                          "default": BASE["id"], "former": [], "log": []}),
    "coordinator_failed": record("coordinators/c", {**SETTLED, "epoch_settled": 0, "failed": 1, "why": "no memory"}),
    "coordinator_failed_long": record("coordinators/c", {**SETTLED, "epoch_settled": 0, "failed": 1, "why": "x" * 256}),
    "coordinator_prepared_text": record("coordinators/c", {**SETTLED, "epoch_settled": 0, "prepared": "1"}),
    "node_packs": node("a", packs=[{"hash": PACK, "name": "german", "version": "1"}, {"hash": "b" * 64, "name": "fix", "version": "2"}])
                  + node("b", packs=[{"hash": "c" * 64, "name": "fix", "version": "3"}]) + "--\nnodes/b\n",
    "node_packs_hash": node("a", packs=[{"hash": "A" * 64, "name": "german", "version": "1"}]),
    "node_packs_name": node("a", packs=[{"hash": PACK, "version": "1"}]),
    "node_packs_many": node("a", packs=[{"hash": PACK, "name": "g", "version": "1"}] * 70),
    "node_packs_text": node("a", packs="german") + node("b", packs=["german"]),
    "many_nodes": "".join(node(f"n{i}") for i in range(258)),
    "many_coordinators": "".join(COORDINATOR.replace("/c", f"/c{i}") for i in range(66)),
}

OUT.mkdir(parents=True, exist_ok=True)
for name, text in SEEDS.items():
    (OUT / name).write_text(text, encoding="utf-8")
