#!/usr/bin/python3
"""The chart on a real Kubernetes, broken while streams run. Every token of every answer is compared with one process's, and a table says what
each step did to them: docs/operate.md. Called by run.sh, in the cluster that it brought up.

usage: e2e.py BIN_DIR        exit code 1: something was lost, repeated, different or failed, or a step had no effect"""
import base64
import collections
import contextlib
import hashlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
import urllib.request

import grpc

HERE = os.path.dirname(os.path.realpath(__file__))
for folder in ("../integration", "../chaos", "../chart"):
    sys.path.insert(0, os.path.join(HERE, folder))
sys.dont_write_bytecode = True

from coordinator import Coordinator  # noqa: E402
from python_client import lay_out  # noqa: E402
from release import NAMESPACE, ROOT, WAIT_S, Release, apply, forwarded, get, kubectl, process_of, run, until  # noqa: E402
from streams import CHANNEL, Question, Streams, Stub, make_questions, reference  # noqa: E402
from values import WRONG, merged  # noqa: E402

BIN = os.path.realpath(sys.argv[1])
CONCLAVE, COORDINATOR = os.path.join(BIN, "conclave"), os.path.join(BIN, "conclave-coordinator")
N_STREAMS, N_TOKENS, PAUSE_S = 4, 200, 0.2
PROMPT, N_TEST_TOKENS = [1, 2, 3], 8
PACKS = ("german", "french")
BASE_SET = "base"  # the checkpoint's own experts: what the streams ask, packs or not
SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}


class Site:
    """Model, pack, and what one process answers with either."""

    def __init__(self, folder):
        self.folder, self.model, self.packs = folder, os.path.join(folder, "model"), os.path.join(folder, "packs")
        os.makedirs(folder)
        client = os.path.join(folder, "client")
        lay_out(client)
        sys.path.insert(0, client)
        self.v1 = importlib.import_module("conclave")
        run(sys.executable, os.path.join(ROOT, "tools", "make_checkpoint.py"), self.model, "--shape", "tiny", "--layers", "4", "--dtype", "f32",
            "--no-tokenizer", "--set", "num_experts=16", "--set", "max_position_embeddings=1024")
        os.mkdir(self.packs)
        for seed, name in enumerate(PACKS):
            run(sys.executable, os.path.join(ROOT, "tools", "make_pack.py"), "random", os.path.join(self.packs, name), "--model", self.model,
                "--conclave", CONCLAVE, "--experts", "2", "--scale", "1.5", "--seed", str(seed))
        run("chmod", "-R", "go+rX", folder)
        self.questions = make_questions(N_STREAMS, N_TOKENS, BASE_SET)
        self.of_default = [Question(q.prompt, q.sampling) for q in self.questions]
        with self.alone() as stub:
            self.expected = reference(stub, self.of_default)
            test = Question(PROMPT, dict(max_tokens=N_TEST_TOKENS, ignore_eos=True, temperature=0))
            self.golden = ",".join(map(str, reference(stub, [test])[0]))
        self.with_pack = {}
        for name in PACKS:
            with self.alone("--pack", os.path.join(self.packs, name)) as stub:
                self.with_pack[name] = reference(stub, self.of_default)

    @contextlib.contextmanager
    def alone(self, *args):
        with Coordinator(COORDINATOR, self.model, "--threads", "1", "--cache-dir", self.folder, *args) as alone:
            stub = Stub(self.v1, alone.address)
            yield stub
            stub.close()

    def values(self):
        member = {"resources": SMALL, "drainSeconds": 60, "options": {"threads": 1}}
        return {"image": {"repository": "localhost/conclave", "tag": "e2e", "pullPolicy": "Never"},
                "model": {"existingClaim": "model", "manifest": {"resources": SMALL}}, "placement": {"replication": 1},
                "coordinator": {**member, "drainDelaySeconds": 2}, "experts": member, "test": {"golden": self.golden}}


class Apart(Stub):
    """With a connection of its own, as a client of its own has."""

    def __init__(self, v1, address):
        self.v1, self.channel = v1, grpc.insecure_channel(address, [*CHANNEL, ("grpc.use_local_subchannel_pool", 1)])


class Load(Streams):
    """With a moment between answers: it is there to be compared, not to fill the machine."""

    def answer_to(self, i):
        time.sleep(PAUSE_S)
        return super().answer_to(i)


Row = collections.namedtuple("Row", "what seconds answers tokens wrong failed refused resumed gap problem")


class Trial:
    """The release under test, the load on it, and the table."""

    def __init__(self, site):
        self.site, self.release, self.rows = site, Release("c", site.values()), []
        self.streams = self.stub = None

    # ------------------------------------------------------------------------------------------ the load
    def flow(self):
        stubs = [Apart(self.site.v1, self.release.address()) for _ in range(N_STREAMS)]
        self.stub = stubs[0]
        self.streams = Load(stubs, self.site.questions, self.site.expected, N_STREAMS)

    def still(self):
        """Lets all answers come to their end, within the step that shall count them."""
        self.streams.finish()
        for stub in self.streams.targets:
            stub.close()
        self.streams = None

    @contextlib.contextmanager
    def step(self, what, resumes=False):
        """A line of the table. resumes: the coordinator goes on purpose, and clients take their answers up again; else that is a failure."""
        print(f"== {what}", flush=True)
        streams, begun = self.streams, time.monotonic()
        counts, n_tokens, errors = (collections.Counter(streams.counts), sum(streams.n_tokens), set(streams.errors)) if streams else ({}, 0, set())
        problem = None
        try:
            if streams:
                streams.may_go_on = resumes
                streams.advance()
            yield
            if streams is self.streams is not None:
                streams.advance()
        except Exception as error:  # whatever it is, the table says so
            problem = "".join(traceback.format_exception_only(type(error), error)).strip()
            traceback.print_exc()
        seconds, streams = time.monotonic() - begun, streams or self.streams
        if not streams:
            self.rows.append(Row(what, seconds, *["-"] * 7, problem))
        else:
            new = {key: streams.counts[key] - counts.get(key, 0) for key in ("requests", "lost", "repeated", "different", "failed", "refused", "resumed")}
            wrong = new["lost"] + new["repeated"] + new["different"]
            if wrong or new["failed"]:
                problem = problem or f"wrong tokens or failed answers: {', '.join(set(streams.errors) - errors) or new}"
            self.rows.append(Row(what, seconds, new["requests"], sum(streams.n_tokens) - n_tokens, wrong, new["failed"], new["refused"],
                                 new["resumed"], f"{max(streams.longest_since(begun)):.1f}", problem))
        if problem:
            raise Broken(what)

    def table(self):
        heads = ("step", "seconds", "answers", "tokens compared", "wrong", "failed", "refused at first", "resumed", "longest gap, s")
        lines = [heads, *((row.what, f"{row.seconds:.1f}", *map(str, row[2:-1])) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
        for line in lines:
            print("  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths))))
        for row in self.rows:
            if row.problem:
                print(f"FAILED: {row.what}: {row.problem}")

    # ------------------------------------------------------------------------------------------ what is known of the cluster
    def conclave(self, *words):
        return run(CONCLAVE, *words, "--server", self.release.address())

    def nodes(self):
        cluster, = map(json.loads, self.conclave("nodes", "--json").splitlines())
        return {node["id"]: int(node.get("rows", 0)) for node in cluster.get("nodes", [])}

    def owners(self):
        reply = self.stub.admin("ListExperts", "ListExpertsResponse")
        return [{r.node_id for r in expert.replicas if r.ready} for expert in reply.experts]

    def whole(self, n_experts, n_coordinators=1):
        """Waits until just so many pods are ready, they are the cluster's nodes, and they alone have all experts."""
        def is_whole():
            experts = self.release.ready("expert")
            if len(experts) != n_experts or len(self.release.all_pods()) < n_experts + n_coordinators:
                return False
            with contextlib.suppress(Exception):  # a coordinator that comes or goes
                owners = self.owners()
                return (len(self.release.ready("coordinator")) == n_coordinators and set(self.nodes()) == experts and all(owners)
                        and set().union(*owners) <= experts)
            return False
        until(f"{n_experts} experts' pods and {n_coordinators} coordinators', ready and in use", is_whole)

    def serves(self, pod):
        """Waits until it computes rows for the streams."""
        before = self.nodes().get(pod, 0)
        until(f"rows at {pod}", lambda: self.nodes().get(pod, 0) not in (0, before))


class Broken(Exception):
    pass


# ---------------------------------------------------------------------------------------------- what a cluster has before the chart comes
def prepare(site):
    """The model's and the pack's volumes, and an etcd that outlives releases, as `etcd` of the namespace."""
    for name, path in (("model", site.model), *((pack, os.path.join(site.packs, pack)) for pack in PACKS)):
        shape = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
        apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
               "spec": {**shape, "capacity": {"storage": "1Gi"}, "hostPath": {"path": path, "type": "Directory"}}},
              {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": NAMESPACE},
               "spec": {**shape, "volumeName": name, "resources": {"requests": {"storage": "1Gi"}}}})
    labels = {"app": "etcd"}
    apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "etcd", "namespace": NAMESPACE},
           "spec": {"selector": labels, "ports": [{"port": 2379, "protocol": "TCP"}]}},
          {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "etcd", "namespace": NAMESPACE, "labels": labels},
           "spec": {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 1,
                    "containers": [{"name": "etcd", "image": "localhost/conclave-etcd:e2e", "imagePullPolicy": "Never",
                                    "args": ["/usr/bin/etcd", "--data-dir=/tmp/etcd", "--listen-client-urls=http://0.0.0.0:2379",
                                             "--advertise-client-urls=http://etcd:2379"],
                                    "readinessProbe": {"httpGet": {"path": "/health", "port": 2379}, "periodSeconds": 1}}]}})
    kubectl("wait", "--for=condition=Ready", "pod/etcd", f"--timeout={WAIT_S}s")


# ---------------------------------------------------------------------------------------------- the steps
def install(t):
    t.release.helm("install")
    t.release.test()
    t.flow()
    t.whole(2)


def scale(t):
    with t.step("kubectl scale 2 -> 4"):
        kubectl("scale", "sts", "c-expert", "--replicas", "4")
        t.whole(4)
        t.serves("c-expert-3")
    with t.step("kubectl scale 4 -> 2"):
        kubectl("scale", "sts", "c-expert", "--replicas", "2")
        t.whole(2)


def killed(t, pod, program, component):
    restarts = t.release.restarts(pod)
    os.kill(process_of(pod, program), signal.SIGKILL)
    until(f"{pod} is started again", lambda: t.release.restarts(pod) > restarts and pod in t.release.ready(component))
    t.whole(2)


def kill(t):
    with t.step("kill -9 of an expert's process"):
        t.serves("c-expert-0")
        killed(t, "c-expert-0", "conclave-node", "expert")
        t.serves("c-expert-0")
    with t.step("kill -9 of the coordinator's process", resumes=True):
        resumed = t.streams.counts["resumed"]
        for _ in range(5):  # all streams may just have been between two answers
            killed(t, t.release.coordinator(), "conclave-coordinator", "coordinator")
            if t.streams.counts["resumed"] > resumed:
                break
        assert t.streams.counts["resumed"] > resumed, "no stream was resumed"


def delete(t):
    with t.step("kubectl delete pod, of an expert"):
        uid = t.release.uid("c-expert-1")
        kubectl("delete", "pod", "c-expert-1")
        until("another pod of the name", lambda: t.release.uid("c-expert-1") not in (None, uid))
        t.whole(2)
        t.serves("c-expert-1")
    with t.step("kubectl delete pod, of the coordinator", resumes=True):
        pod = t.release.coordinator()
        kubectl("delete", "pod", pod)
        t.whole(2)
        assert t.release.coordinator() != pod


def drain(t):
    """One node: who is evicted waits for it. The budget lets one of the experts go, and the drain waits with the other."""
    of = "app.kubernetes.io/instance=c,app.kubernetes.io/component="
    with t.step("kubectl drain of the node: experts"):
        said = kubectl("drain", "node1", "--pod-selector", of + "expert", "--delete-emptydir-data", "--timeout", "20s", fails=True)
        assert "disruption budget" in said, said
        assert len(t.release.ready("expert")) == 1, "the budget lets one go"
        kubectl("uncordon", "node1")
        t.whole(2)
    with t.step("kubectl drain of the node: the coordinator", resumes=True):
        kubectl("drain", "node1", "--pod-selector", of + "coordinator", "--delete-emptydir-data", "--timeout", f"{WAIT_S}s")
        assert not t.release.ready("coordinator")
        kubectl("uncordon", "node1")
        t.whole(2)


def upgraded(t, what, values, n_coordinators=1, **how):
    with t.step(f"helm upgrade: {what}", **how):
        before = {t.release.uid(pod) for pod in t.release.pods("expert")}
        t.release.helm("upgrade", values=values)
        t.whole(2, n_coordinators)
        assert not before & {t.release.uid(pod) for pod in t.release.pods("expert")}, "no pod was replaced"


def rolled_back(t, what, **how):
    with t.step(f"helm rollback: {what}", **how):
        run("helm", "rollback", "c", "--wait", "--timeout", f"{WAIT_S}s")
        t.whole(2)


def upgrade(t):
    values, all_options = t.release.values, {"log": {"level": "debug"}}
    upgraded(t, "experts' options", merged(values, {"experts": {"options": {"load-bandwidth": "1G"}}}))
    rolled_back(t, "experts' options")
    # A node that leaves is one too few for the policy, and a coordinator that starts finds one too few.
    t.conclave("placement", "policy", "--min-nodes", "2")
    upgraded(t, "all options, minNodes = replicas", merged(values, all_options, {"placement": {"minNodes": 2}}), resumes=True)
    rolled_back(t, "all options, minNodes = replicas", resumes=True)
    two = merged(values, {"coordinator": {"replicas": 2}})
    with t.step("helm upgrade: two coordinators"):
        t.release.helm("upgrade", values=two)
        t.whole(2, 2)
    upgraded(t, "all options, two coordinators", merged(two, all_options), n_coordinators=2)
    with t.step("helm upgrade: one coordinator again"):
        t.release.helm("upgrade", values=merged(values, all_options))
        t.whole(2)
    with t.step("helm upgrade: the first options", resumes=True):
        t.release.helm("upgrade")
        t.whole(2)


def packs(t):
    def default_is(expected):
        return reference(t.stub, t.site.of_default) == expected

    def removed(pack):
        kubectl("exec", t.release.coordinator(), "--", "conclave", "packs", "remove", pack)
        assert default_is(t.site.expected), "the default set's answers are not those before the pack"
        t.release.helm("upgrade")
        t.whole(2)

    with t.step("helm upgrade: packs.german"):
        t.release.helm("upgrade", values=merged(t.release.values, {"packs": {"german": {"existingClaim": "german"}}}))
        t.whole(3)
    with t.step("conclave packs add german"):
        kubectl("exec", t.release.coordinator(), "--", "conclave", "packs", "add", "german")
        assert default_is(t.site.with_pack["german"]), "the default set's answers are not those of one process with the pack"
    with t.step("conclave packs remove german, helm upgrade without it"):
        removed("german")
    with open(os.path.join(t.site.packs, "french", "pack.json"), "rb") as file:
        accepted = "french@" + hashlib.sha256(file.read()).hexdigest()
    with t.step("helm upgrade: packs.french, acceptPacks", resumes=True):
        t.release.helm("upgrade", values=merged(t.release.values, {"packs": {"french": {"existingClaim": "french"}}, "acceptPacks": [accepted]}))
        t.whole(3)
        until("it is switched on by itself", lambda: default_is(t.site.with_pack["french"]))
    with t.step("conclave packs remove french, helm upgrade without it", resumes=True):
        removed("french")


def refuse(t):
    wrong = WRONG[::2]  # make chart-test has all of them
    with t.step(f"{len(wrong)} wrong values"):
        revision = t.release.revision()
        for values, words in wrong:
            said = t.release.helm("upgrade", values=merged(t.release.values, values), fails=True)
            assert words in said, f"{values}: {said}"
        assert t.release.revision() == revision


def keys():
    """In the etcd that releases share, of cluster default.c."""
    address = get("service", "etcd")["spec"]["clusterIP"]
    ask = json.dumps({"key": base64.b64encode(b"\0").decode(), "range_end": base64.b64encode(b"\0").decode(), "keys_only": True})
    with urllib.request.urlopen(urllib.request.Request(f"http://{address}:2379/v3/kv/range", ask.encode()), timeout=WAIT_S) as answer:
        return [base64.b64decode(kv["key"]).decode() for kv in json.load(answer).get("kvs", [])]


def again(t):
    """What members leave in etcd, and what is still there of members that could not leave, is not taken for the truth."""
    policy = t.conclave("placement", "policy", "--json")
    with t.step("helm uninstall"):
        t.still()
        t.release.uninstall()
        until("all pods are gone", lambda: not t.release.all_pods())
        print("left in etcd:", *keys(), sep="\n  ")
    with t.step("helm install on the same etcd"):
        t.release.helm("install")
        t.release.test()
        t.flow()
        t.whole(2)
        assert t.conclave("placement", "policy", "--json") == policy
    with t.step("every process killed -9, helm uninstall, install"):
        t.still()
        for pod in t.release.all_pods():
            name = pod["metadata"]["name"]
            kubectl("delete", "pod", name, "--grace-period=0", "--force", "--wait=false")
            with contextlib.suppress(AssertionError, ProcessLookupError):
                os.kill(process_of(name, "conclave-coordinator" if "coordinator" in name else "conclave-node"), signal.SIGKILL)
        t.release.uninstall()
        print("left in etcd:", *keys(), sep="\n  ")
        t.release.helm("install")
        t.release.test()
        t.flow()
        t.whole(2)


def certificates(folder, service):
    """An authority, and what it signed: for the server, and for a client."""
    def openssl(*words):
        run("openssl", *words)
    path = {name: os.path.join(folder, name) for name in ("ca.crt", "ca.key", "server.crt", "server.key", "client.crt", "client.key", "request", "names")}
    with open(path["names"], "w", encoding="ascii") as file:
        file.write(f"subjectAltName=DNS:{service},DNS:localhost,IP:127.0.0.1\n")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=authority", "-keyout", path["ca.key"], "-out", path["ca.crt"])
    for who in ("server", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={who}", "-keyout", path[who + ".key"], "-out", path["request"])
        openssl("x509", "-req", "-days", "2", "-in", path["request"], "-CA", path["ca.crt"], "-CAkey", path["ca.key"], "-CAcreateserial",
                "-extfile", path["names"], "-out", path[who + ".crt"])
    return path


def lock(t):
    """A second release beside the first: everything that is off by default."""
    with t.step("a second release: TLS, client certificates, tokens, names for addresses, an etcd of its own, pools"):
        folder = os.path.join(t.site.folder, "locked")
        os.makedirs(folder)
        path = certificates(folder, "s-coordinator")
        tokens = os.path.join(folder, "tokens")
        with open(tokens, "w", encoding="ascii") as file:
            file.write("a-token-of-at-least-some-length\n")
        kubectl("create", "secret", "generic", "api", f"--from-file=tls.crt={path['server.crt']}", f"--from-file=tls.key={path['server.key']}",
                f"--from-file=ca.crt={path['ca.crt']}")
        kubectl("create", "secret", "generic", "client", f"--from-file=tls.crt={path['client.crt']}", f"--from-file=tls.key={path['client.key']}")
        kubectl("create", "secret", "generic", "authority", f"--from-file=ca.crt={path['ca.crt']}")
        kubectl("create", "secret", "generic", "tokens", f"--from-file=tokens={tokens}")
        second = Release("s", merged(t.site.values(), {
            "etcd": {"embedded": {"enabled": True, "image": "localhost/conclave-etcd:e2e", "resources": SMALL}}, "advertise": "dns",
            "tls": {"existingSecret": "api", "clientAuth": "require", "clientCASecret": "authority"}, "auth": {"existingSecret": "tokens"},
            "coordinator": {"adminOnLoopback": True, "health": {"enabled": True}}, "networkPolicy": {"enabled": True},
            "experts": {"replicas": 1, "pools": {"big": {"replicas": 1, "options": {"zone": "b"}}}}, "test": {"clientSecret": "client"}}))
        client = ("--tls-ca", path["ca.crt"], "--tls-cert", path["client.crt"], "--tls-key", path["client.key"], "--token-file", tokens)
        try:
            second.helm("install")
            second.test()
            with forwarded("pod/" + second.coordinator(), 50053):
                nodes, = map(json.loads, run(CONCLAVE, "nodes", "--json", "--server", "127.0.0.1:50053", *client).splitlines())
            assert {node["id"] for node in nodes["nodes"]} == {"s-expert-0", "s-expert-big-0"}, nodes
        finally:  # the steps after this one are about the first
            second.uninstall()


def follow(t):
    """What NOTES and docs/operate.md tell an operator to type."""
    with t.step("the commands of NOTES"):
        notes = run("helm", "get", "notes", "c")
        test, forward, ask = [line.split() for line in notes.splitlines() if line.startswith("  ")]
        assert (test[:2], forward[0], ask[0]) == (["helm", "test"], "kubectl", "conclave"), notes
        run(*test)
        what, port, _ = forward[forward.index("port-forward") + 1:]
        with forwarded(what, port):
            run(CONCLAVE, *ask[1:])
    with t.step("the commands of the runbook"):
        pod = t.release.pods("coordinator")[t.release.coordinator()]
        with urllib.request.urlopen(f"http://{pod['status']['podIP']}:8080/readyz", timeout=WAIT_S) as page:
            assert page.status == 200
        kubectl("describe", "pod", pod["metadata"]["name"])
        for name in t.release.pods("expert"):
            lines = kubectl("logs", name).splitlines()
            for line in lines:
                assert line.startswith("READY ") or json.loads(line), line
            assert lines, name
        for words in (("nodes",), ("placement", "policy"), ("placement",), ("model",)):
            t.conclave(*words)
        run(CONCLAVE, "generate", "--server", t.release.address(), "--tokens", ",".join(map(str, PROMPT)), "--temperature", "0", "--max-tokens",
            str(N_TEST_TOKENS), "--ignore-eos", "--expect", t.site.golden)


STEPS = (follow, scale, kill, delete, drain, upgrade, packs, lock, refuse, again)


def look(t):
    """What there is, for whoever has to find out why."""
    print(subprocess.run(["kubectl", "get", "pods", "-o", "wide"], capture_output=True, text=True).stdout)
    names = subprocess.run(["kubectl", "get", "pods", "-o", "name"], capture_output=True, text=True).stdout
    for name in names.split():
        print(f"-- the end of the log of {name}")
        for how in ((), ("--previous",)):
            print(subprocess.run(["kubectl", "logs", name, "--tail", "15", *how], capture_output=True, text=True).stdout)


def mend(t):
    """After a step that broke off: the release as it was installed, so that the next ones may hold all the same."""
    if t.streams:
        t.streams.may_go_on = True
    with contextlib.suppress(AssertionError):
        t.release.helm("upgrade")
        t.whole(2)


def main():
    work = os.environ["KUBE_WORK"]
    os.environ.update({f"HELM_{name}_HOME": os.path.join(work, "helm") for name in ("CACHE", "CONFIG", "DATA")},
                      KUBECACHEDIR=os.path.join(work, "kube"), XDG_CACHE_HOME=os.path.join(work, "cache"))
    site = Site(os.path.join(work, "site"))
    prepare(site)
    t = Trial(site)
    only = os.environ.get("STEPS", "").split() or [step.__name__ for step in STEPS]
    try:
        with t.step("helm install --wait, helm test"):
            install(t)
        for step in (step for step in STEPS if step.__name__ in only):
            try:
                step(t)
            except Broken:
                look(t)
                mend(t)
        with t.step("the last answers"):
            if t.streams:
                t.still()
    except Broken:
        look(t)
    finally:
        t.table()
    return any(row.problem for row in t.rows)


if __name__ == "__main__":
    sys.exit(main())
