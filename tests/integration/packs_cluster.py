"""Packs in a cluster: a node brings one, another reads it from there, coordinators read its part of the router; and the default set changes for
all of them, to what one process with the same pack gives, while streams that are pinned to the base go on with the same tokens.

Usage: packs_cluster.py CONCLAVE COORDINATOR NODE VECTORS DESCRIPTORS"""
import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import unittest

try:
    import grpc
    from messages import Messages
except ImportError:
    print("skipped: python3-grpcio and python3-protobuf are not installed")
    sys.exit(77)

from coordinator import WAIT_S, Coordinator, clean_env, wait_for
from members import Etcd, Process

if shutil.which("etcd") is None:
    print("skipped: etcd-server is not installed")
    sys.exit(77)

CONCLAVE, COORDINATOR, NODE, VECTORS, DESCRIPTORS = sys.argv[1:6]
MODEL, PACK = os.path.join(VECTORS, "olmoe-gqa"), os.path.join(VECTORS, "packs", "olmoe-gqa")
IDS = ",".join(str((7 * i) % 60) for i in range(1, 25))


def stored(etcd, key):
    kvs = etcd.post("kv/range", key=base64.b64encode(f"/conclave/default/{key}".encode()).decode()).get("kvs", [])
    return json.loads(base64.b64decode(kvs[0]["value"])) if kvs else None


def digest_of(pack):
    with open(os.path.join(pack, "pack.json"), "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def begun(model, manifest):
    """The catalogue of a cluster that had none, with the addition of the pack under way (docs/catalogue.md)."""
    digest = hashlib.sha256(manifest).hexdigest()
    pack, n = json.loads(manifest), model["n_experts"]
    added = {layer["layer"]: len(layer["experts"]) for layer in pack["layers"]}

    def expert_set(more):
        text, layers = f"conclave-set 1\n{model['fingerprint']}\n", []
        for layer in range(model["n_layers"]):
            ids = range(n + (added.get(layer, 0) if more else 0))
            hashes = [hashlib.sha256(f"conclave-expert 1\n{digest}\n{layer}\n{i - n}\n".encode()).hexdigest() for i in ids]
            text += ",".join(str(i) if i < n else f"{i}:{hashes[i]}" for i in ids) + "\n"
            layers.append(f"0-{ids[-1]}")
        return {"id": hashlib.sha256(text.encode()).hexdigest(), "layers": layers}

    base, target = expert_set(False), expert_set(True)
    return {"v": 1, "number": 1, "sets": [base, target], "names": [], "default": base["id"], "former": [], "log": [],
            "packs": [{"kind": "add", "name": pack["name"], "version": pack["version"], "hash": digest, "since": 0,
                       "layers": [[layer, count, n] for layer, count in sorted(added.items())]}],
            "pending": {"number": 1, "begun": 1, "deadline": 600001, "who": "a test", "what": "add", "target": target["id"]}}


class PacksOfACluster(unittest.TestCase):
    def setUp(self):
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.etcd = Etcd(os.path.join(self.folder, "etcd"))
        self.stack.callback(self.etcd.stop)

    def node(self, name, *args):
        node = Process(NODE, "--model", MODEL, "--etcd", self.etcd.url, "--id", name, "--cache-dir", os.path.join(self.folder, name), *args)
        self.stack.callback(node.stop)
        return node.registered()

    def coordinator(self, name, *args):
        return self.stack.enter_context(Coordinator(COORDINATOR, MODEL, "--threads", "1", "--etcd", self.etcd.url, "--id", name, "--replication", "2",
                                                    "--cache-dir", os.path.join(self.folder, name), *args))

    def ask(self, server, command, *args, code=0):
        done = subprocess.run([CONCLAVE, command, "--server", server.address, "--json", *args], capture_output=True, encoding="utf-8",
                              timeout=WAIT_S, env=clean_env(), check=False)
        self.assertEqual(done.returncode, code, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()] if code == 0 else done.stderr

    def change(self, server, *args):
        return self.ask(server, *args, "--why", "a test", "--by", "tester")[-1]["result"]

    def score(self, server, *args):
        reply = self.ask(server, "score", "--tokens", IDS, "--experts", *args)[-1]
        return json.dumps(reply["tokens"]), reply["set_id"]

    def all_serve(self, servers, tokens, set_id):
        for server in servers:
            wait_for(lambda server=server: self.score(server)[1] == set_id)
            self.assertEqual(self.score(server), (tokens, set_id))

    def may_include(self, server):
        return subprocess.run([CONCLAVE, "score", "--server", server.address, "--tokens", IDS, "--set-include", "olmoe-gqa"], env=clean_env(),
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=WAIT_S, check=False).returncode == 0

    def alone(self):
        """What one process answers, with the pack and without it."""
        with Coordinator(COORDINATOR, MODEL, "--threads", "1", "--cache-dir", os.path.join(self.folder, "alone"), "--pack", PACK) as server:
            return self.score(server), self.score(server, "--set", "base")

    def test_the_default_changes_for_all(self):
        served, base = self.alone()
        self.node("a", "--pack", PACK)
        self.node("b")
        servers = [self.coordinator("c"), self.coordinator("d")]
        self.all_serve(servers, *base)

        def stream():
            replies = self.ask(servers[1], "generate", "--tokens", IDS, "--max-tokens", "48", "--ignore-eos", "--seed", "3", "--set", "base")
            return [t for reply in replies for t in reply.get("token_ids", [])]

        expected, going, seen = stream(), threading.Event(), []

        def pinned():
            while not going.is_set():
                seen.append(stream() == expected)

        self.assertEqual(len(expected), 48)
        thread = threading.Thread(target=pinned)
        thread.start()
        try:
            for words, says in (("nobody", "no node offers"), (PACK, "nodes bring packs")):
                self.assertIn(says, self.ask(servers[0], "packs", "add", words, code=1))
            [offered] = self.ask(servers[1], "packs")[0]["packs"]
            self.assertEqual((offered["name"], offered.get("active", False), offered["source"]), ("olmoe-gqa", False, "node a"))
            self.ask(servers[0], "packs", "add", "olmoe-gqa", "--dry-run")
            with open(f"/proc/{servers[0].process.pid}/maps", encoding="utf-8") as maps:
                self.assertNotIn(digest_of(PACK), maps.read())  # it was read for a look alone
            self.all_serve(servers, *base)
            self.assertEqual(self.change(servers[0], "packs", "add", "olmoe-gqa")["set_after"], served[1])
            self.assertEqual(self.score(servers[0]), served)  # whoever asked need not wait
            self.all_serve(servers, *served)
            pruned = self.change(servers[1], "experts", "prune", "0:1")["set_after"]
            self.assertEqual(self.score(servers[1])[1], pruned)
            wait_for(lambda: self.score(servers[0])[1] == pruned)
            self.assertEqual(self.score(servers[0]), self.score(servers[1]))
            self.change(servers[0], "experts", "restore", "--all")
            self.all_serve(servers, *served)
            self.change(servers[1], "packs", "remove", "olmoe-gqa")
            self.all_serve(servers, *base)
            servers.append(self.coordinator("e"))
            self.assertEqual(self.score(servers[2]), base)
            wait_for(lambda: self.may_include(servers[2]))
            self.assertEqual(self.score(servers[2], "--set-include", "olmoe-gqa"), served)
            self.change(servers[0], "packs", "rollback")
            self.all_serve(servers, *served)
            self.change(servers[1], "sets", "define", "plain", "--exclude", "olmoe-gqa")  # a name beside the default needs less than it
            late = self.coordinator("f")
            self.assertEqual(self.score(late), served)  # from its first answer on
            self.change(late, "sets", "use", "base")
            self.all_serve([*servers, late], *base)
        finally:
            going.set()
            thread.join()
        self.assertTrue(seen and all(seen))
        entries = self.ask(servers[1], "sets", "log")[0]["entries"]
        self.assertEqual([e["who"] for e in entries if not e.get("undone")], ["tester"] * 7)

    def done_by(self, server):
        return [e["who"] for e in self.ask(server, "sets", "log")[0]["entries"] if not e.get("undone")]

    def test_what_joins_is_switched_on_by_itself(self):
        served, base = self.alone()
        rules = ("--accept-packs", f"other@{'0' * 64},olmoe-gqa@{digest_of(PACK)}")
        self.node("b")
        servers = [self.coordinator("c", *rules), self.coordinator("d", *rules)]
        self.all_serve(servers, *base)
        a = self.node("a", "--pack", PACK)
        self.all_serve(servers, *served)
        self.assertEqual(self.done_by(servers[0]), ["accept-packs"])
        self.change(servers[1], "packs", "remove", "olmoe-gqa")
        self.all_serve(servers, *base)
        a.stop()  # what people took out does not come again: not with the node, nor with a coordinator
        self.node("a", "--pack", PACK)
        servers.append(self.coordinator("e", "--accept-packs", "offered"))
        self.change(servers[0], "sets", "define", "plain")
        self.all_serve(servers, *base)
        self.change(servers[2], "packs", "add", "olmoe-gqa")
        self.all_serve(servers, *served)
        self.assertEqual(self.done_by(servers[2]), ["accept-packs"] + ["tester"] * 3)

    def test_wrong_rules_are_refused_at_the_start(self):
        for rule, etcd, says in (("german", self.etcd.url, '"german": must be NAME@SHA256'), ("german@12", self.etcd.url, '"german@12": after @ must be'),
                                 ("offered", None, "--accept-packs offered: packs are offered by the nodes of a cluster: --etcd is needed")):
            done = subprocess.run([COORDINATOR, "--model", MODEL, "--cache-dir", self.folder, "--accept-packs", rule, *(("--etcd", etcd) if etcd else ())],
                                  check=False, capture_output=True, encoding="utf-8", timeout=WAIT_S)
            self.assertEqual((done.returncode, says in done.stderr), (2, True), done.stderr)

    def test_what_one_cannot_prepare_is_undone_for_all(self):
        self.node("a", "--pack", PACK)
        servers = [self.coordinator("c"), self.coordinator("d", "--cache-dir", "")]
        base = self.score(servers[0])
        self.assertIn("is undone: coordinator d: pack olmoe-gqa 1: there is no directory", self.ask(servers[0], "packs", "add", "olmoe-gqa", code=1))
        self.assertIn("there is no directory", self.ask(servers[1], "packs", "add", "olmoe-gqa", code=1))
        self.all_serve(servers, *base)
        self.assertEqual(len(self.ask(servers[0], "sets", "log")[0]["entries"]), 1)
        # Whoever is second is refused, or comes after: none is lost, and none is done in part.
        asked = [subprocess.Popen([CONCLAVE, "experts", "prune", f"0:{i + 1}", "--server", server.address, "--by", str(i)], env=clean_env(),
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8") for i, server in enumerate(servers)]
        errors = [p.communicate()[1] for p in asked]
        done = [str(i) for i, p in enumerate(asked) if p.returncode == 0]
        for i in {"0", "1"} - set(done):
            self.assertRegex(errors[int(i)], "under way|faster|pending")
        self.assertTrue(done)
        entries = self.ask(servers[0], "sets", "log")[0]["entries"]
        self.assertEqual(sorted(e["who"] for e in entries if not e.get("undone")), done)
        catalogue = stored(self.etcd, "catalogue")
        default = next(s for s in catalogue["sets"] if s["id"] == catalogue["default"])
        self.assertTrue(default["layers"][0].startswith({"0": "0,2-", "1": "0-1,3-", "01": "0,3-"}["".join(done)]))
        wait_for(lambda: {self.score(server)[1] for server in servers} == {catalogue["default"]})
        self.assertEqual(self.score(servers[0]), self.score(servers[1]))

    def test_what_a_node_cannot_load_is_undone_with_its_reason(self):
        key, private = (os.path.join(self.folder, name) for name in ("key.pem", "private.pem"))
        for words in (("genpkey", "-algorithm", "ed25519", "-out", private), ("pkey", "-in", private, "-pubout", "-out", key)):
            subprocess.run(["openssl", *words], check=True)
        self.node("a", "--pack", PACK)
        self.node("b", "--pack-key", key)
        server = self.coordinator("c")
        base = self.score(server)
        self.assertRegex(self.ask(server, "packs", "add", "olmoe-gqa", code=1),
                         r"is undone: node b: layer \d expert \d: pack olmoe-gqa 1 could not be read from another node: its pack is not signed")
        self.all_serve([server], *base)

    def test_a_node_that_dies_leaves_no_half(self):
        served, base = self.alone()
        a = self.node("a", "--pack", PACK)
        self.node("b")
        servers = [self.coordinator("c"), self.coordinator("d")]
        self.all_serve(servers, *base)
        adding = subprocess.Popen([CONCLAVE, "packs", "add", "olmoe-gqa", "--server", servers[0].address, "--timeout", "10"], env=clean_env(),
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: stored(self.etcd, "catalogue") is not None or adding.poll() is not None)
        a.stop(signal.SIGKILL)
        adding.wait()
        self.node("a", "--pack", PACK)
        catalogue = wait_for(lambda: (c := stored(self.etcd, "catalogue")) and not c.get("pending") and c)
        self.all_serve(servers, *{served[1]: served, base[1]: base}[catalogue["default"]])

    def placed(self, layer):
        """The experts of a layer that have an owner."""
        spans = [span.split("-") for owners in stored(self.etcd, f"placement/{layer}")["owners"] for span in owners["experts"].split(",")]
        return {i for span in spans for i in range(int(span[0]), int(span[-1]) + 1)}

    def longer(self):
        """The model with room for long answers, and the pack for it."""
        model, pack = shutil.copytree(MODEL, os.path.join(self.folder, "model")), shutil.copytree(PACK, os.path.join(self.folder, "pack"))
        for path, key, value in ((os.path.join(model, "config.json"), "max_position_embeddings", lambda: 8192),
                                 (os.path.join(pack, "pack.json"), "base", lambda: self.fingerprint(model))):
            with open(path, encoding="utf-8") as f:
                changed = {**json.load(f), key: value()}
            with open(path, "w", encoding="utf-8") as f:
                json.dump(changed, f)
        return model, pack

    def fingerprint(self, model):
        said = subprocess.run([CONCLAVE, "manifest", model, "--cache-dir", self.folder], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              encoding="utf-8").stdout
        return said.split()[1]

    def test_a_stream_keeps_the_experts_of_its_set(self):
        model, pack = self.longer()
        self.node("a", "--model", model, "--pack", pack)
        server = self.coordinator("c", "--model", model, "--keep-unused-ms", "1000")
        messages = Messages.of_file(DESCRIPTORS)
        # More than is held on the way, whose windows do not grow: so the stream waits at the gate for who does not read it.
        asked = messages.v1("GenerateRequest", token_ids=messages.v1("TokenIds", ids=map(int, IDS.split(","))),
                            sampling=messages.v1("Sampling", max_tokens=4000, seed=3, ignore_eos=True, logprobs=20),
                            set=messages.v1("ExpertSet", id="base"))
        channel = self.stack.enter_context(grpc.insecure_channel(server.address, [("grpc.http2.bdp_probe", 0)]))
        generate = channel.unary_stream("/conclave.v1.Inference/Generate", request_serializer=lambda m: m.SerializeToString(),
                                        response_deserializer=messages.v1("GenerateResponse").FromString)

        def tokens(replies):
            return [t for reply in replies for t in reply.token_ids]

        expected = tokens(generate(asked, timeout=WAIT_S))
        self.change(server, "packs", "add", "olmoe-gqa")
        stream = generate(asked, timeout=WAIT_S)
        first = next(stream)  # it runs
        self.change(server, "experts", "prune", "0:1")
        self.change(server, "packs", "remove", "olmoe-gqa")
        wait_for(lambda: 8 not in self.placed(0))  # what nobody has any more has gone
        self.assertIn(1, self.placed(0))
        self.assertEqual((len(expected), tokens([first, *stream])), (4000, expected))
        wait_for(lambda: 1 not in self.placed(0))

    def test_a_pack_outlives_who_brought_it(self):
        served, base = self.alone()
        a, b = self.node("a", "--pack", PACK), self.node("b")
        server = self.coordinator("c")
        self.all_serve([server], *base)
        self.change(server, "packs", "add", "olmoe-gqa")
        wait_for(lambda: [pack["hash"] for pack in stored(self.etcd, "nodes/b")["packs"]] == [digest_of(PACK)])
        a.stop(signal.SIGKILL)
        b.stop()
        self.node("b")  # what it has read it offers again
        self.assertEqual(self.score(self.coordinator("d")), served)

    def test_a_pack_of_another_model_is_refused_at_the_start(self):
        other = os.path.join(VECTORS, "packs", "molm-mlp")
        done = subprocess.run([NODE, "--model", MODEL, "--etcd", self.etcd.url, "--cache-dir", self.folder, "--pack", other], check=False,
                              capture_output=True, encoding="utf-8", timeout=WAIT_S)
        self.assertEqual(done.returncode, 2)
        self.assertIn(f"--pack {other}: pack.family", done.stderr)

    def test_a_pack_goes_from_node_to_node(self):
        with open(os.path.join(PACK, "pack.json"), "rb") as f:
            manifest = f.read()
        self.node("a", "--pack", PACK)
        b = self.node("b")
        self.stack.enter_context(Coordinator(COORDINATOR, MODEL, "--etcd", self.etcd.url, "--id", "c", "--replication", "2",
                                             "--cache-dir", os.path.join(self.folder, "c")))
        digest = hashlib.sha256(manifest).hexdigest()
        self.assertEqual([pack["hash"] for pack in stored(self.etcd, "nodes/a")["packs"]], [digest])
        self.assertEqual(stored(self.etcd, "nodes/b")["packs"], [])
        catalogue = begun(stored(self.etcd, "model"), manifest)
        target = catalogue["sets"][1]["layers"]
        self.etcd.post("kv/put", key=base64.b64encode(b"/conclave/default/catalogue").decode(),
                       value=base64.b64encode(json.dumps(catalogue).encode()).decode())
        for name in "ab":
            wait_for(lambda name=name: stored(self.etcd, f"ready/{name}")["experts"] == target)
        b.says("was read from another node")
        with open(os.path.join(self.folder, "b", "packs", digest, "pack.json"), "rb") as f:
            self.assertEqual(f.read(), manifest)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[6:]])
