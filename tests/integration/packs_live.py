"""Packs that come and go in one coordinator, over the API, against the oracle's answers: added it is the concatenated checkpoint, removed it is to the
bit what it was; pruned it is the oracle's --absent, restored what it was. A request of another set sees nothing of it.

Usage: packs_live.py CONCLAVE COORDINATOR DESCRIPTORS"""
import json
import os
import sys
import tempfile

try:
    import grpc
    from messages import Messages
except ImportError:
    print("skipped: python3-grpcio and python3-protobuf are not installed")
    sys.exit(77)

import oracle
from coordinator import WAIT_S, Coordinator
from packs_oracle import PACKS, VECTORS, as_served, ask, compare

ADMIN = "/conclave.v1.Admin/"


class Admin:
    def __init__(self, address, descriptors):
        self.messages = Messages.of_file(descriptors)
        self.channel = grpc.insecure_channel(address)

    def change(self, method, **fields):
        """The result of a change: the last message of its stream."""
        call = self.channel.unary_stream(ADMIN + method, request_serializer=lambda m: m.SerializeToString(),
                                         response_deserializer=self.messages.v1("ChangeProgress").FromString)
        return list(call(self.messages.v1(method + "Request", **fields), timeout=WAIT_S))[-1].result

    def lists(self, layers):
        return [self.messages.v1("ExpertList", layer=layer, ids=ids) for layer, ids in enumerate(layers)]


def scores(conclave, server, expected, *args):
    return oracle.run_json(conclave, server, "score", "--tokens", ",".join(map(str, expected["token_ids"])), "--top", "9", "--experts", *args)


def load(name, *names):
    return oracle.load(os.path.join(VECTORS, *names, name, "expected.safetensors"))


def same(a, b):
    """But for the id of the set, which is drawn from its members."""
    assert [reply["tokens"] for reply in a] == [reply["tokens"] for reply in b]


def check_added(conclave, server, admin, name, config):
    pack, alone = os.path.join(VECTORS, "packs", name), load(PACKS[name])
    before = scores(conclave, server, alone)
    result = admin.change("AddPack", pack=pack)
    assert sum(len(l.ids) for l in result.added) == 2 * len(result.added) and not result.removed
    compare(f"{name}, a pack added", ask(conclave, server, config, as_served(config, load(name, "packs"))))
    same(scores(conclave, server, alone, "--set", "base"), before)
    admin.change("RemovePack", pack=name.replace("+", "p"))
    same(scores(conclave, server, alone), before)
    admin.change("Rollback")
    compare(f"{name}, rolled back to the pack", ask(conclave, server, config, as_served(config, load(name, "packs"))))
    admin.change("UseSet", set="base")
    same(scores(conclave, server, alone), before)


def check_pruned(conclave, server, admin, config):
    """Experts 1 and 5 of layer 0 and 0 of layer 1: tests/vectors/README.md."""
    alone, absent = load("olmoe-gqa"), oracle.load(os.path.join(VECTORS, "olmoe-gqa", "expected_absent.safetensors"))
    before = scores(conclave, server, alone)
    admin.change("DefineSet", name="whole", include=["base"])
    admin.change("PruneExperts", experts=admin.lists([[1, 5], [0]]))
    compare("olmoe-gqa, pruned", ask(conclave, server, config, absent))
    same(scores(conclave, server, alone, "--set", "whole"), before)
    admin.change("RestoreExperts")
    same(scores(conclave, server, alone), before)
    check_refused(admin)


def check_refused(admin):
    """Rows that a caller has counted are checked like all that it says."""
    def used(**fields):
        return admin.messages.v1("ExpertUsage", **fields)

    for usage, says in (([used(layer=9, ids=[0], rows=[1])], "layers"), ([used(layer=0, ids=[0, 1], rows=[1])], "2 ids, 1 rows"),
                        ([used(layer=0, ids=[99], rows=[1])], "there is none"), ([used(layer=0, ids=[0], rows=[2**63])], "more rows")):
        try:
            admin.change("PruneExperts", usage=usage)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and says in error.details(), error
        else:
            raise AssertionError(f"{usage} was taken")


def main():
    conclave, program, descriptors = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        for name, model in PACKS.items():
            with open(os.path.join(VECTORS, model, "config.json"), encoding="utf-8") as f:
                config = json.load(f)
            with Coordinator(program, os.path.join(VECTORS, model), "--cache-dir", folder, "--pack-dir", os.path.join(VECTORS, "packs")) as server:
                admin = Admin(server.address, descriptors)
                check_added(conclave, server, admin, name, config)
                if name == "olmoe-gqa":
                    check_pruned(conclave, server, admin, config)
                admin.channel.close()
    print(f"{len(PACKS)} coordinators took packs in and let them go")


if __name__ == "__main__":
    main()
