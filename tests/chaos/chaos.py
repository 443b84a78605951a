#!/usr/bin/python3
"""Kills, stops, slows and cuts off real members of a cluster, and changes its packs, while streams run, and compares every token with one process's.

    chaos.py --bin build/release/bin                            all scenarios in full
    chaos.py --bin build/release/bin --short                    what make test runs
    chaos.py --bin build/release/bin --scenarios etcd --seed 7  one of them, with faults in another order

One line per scenario; docs/chaos.md says how to read it. Exit code 1 when anything was lost, repeated or different, when a request
failed, when a fault did not take effect, and with --gaps when a gap was too long on a quiet machine.
"""
import argparse
import collections
import contextlib
import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

try:
    import grpc
except ImportError:
    print("skipped: python3-grpcio is not installed")
    sys.exit(77)

HERE = os.path.dirname(os.path.realpath(__file__))
ROOT = os.path.join(HERE, "..", "..")
sys.path.insert(0, os.path.join(HERE, "..", "integration"))
sys.dont_write_bytecode = True

from cluster import Cluster, wait_for  # noqa: E402
from coordinator import Coordinator  # noqa: E402
from faults import Partition, Slowed, stopped  # noqa: E402
from members import Forwarder, Hosts  # noqa: E402
from python_client import lay_out  # noqa: E402
from streams import Streams, Stub, Unjudged, make_questions, percentiles, reference, said  # noqa: E402

MAKE_CHECKPOINT = os.path.join(ROOT, "tools", "make_checkpoint.py")
MAKE_PACK = os.path.join(ROOT, "tools", "make_pack.py")
N_STREAMS = 16
N_TOKENS = {"short": 200, "full": 600}
N_TOKENS_UNDER_A_SET = 40  # of answers under whatever set is the default: short, so that each set has some that begin
PRUNED = (((0, (1, 5)), (1, (0,))), ((2, (3, 16)),), ((0, (2,)), (3, (7, 8, 17))))  # experts of layers; 16 and 17 are a pack's
WARM_CYCLES = 8  # of packs that come and go, until the KV cache and the buffers have been written once
RESIDENT_SLACK_KIB = 8 * 1024  # what an allocator may keep beyond; the experts of 200 cycles would be some 50 MiB
# "some" of /proc/pressure/cpu before the streams begin, as a share of the time: above it a gap tells of others' work. Chosen.
QUIET_PRESSURE = 0.10


class Skipped(Exception):
    pass


class Site:
    """What all scenarios share: programs, model, questions and their answers by one process."""

    def __init__(self, args, folder):
        self.folder, self.seed, self.short = folder, args.seed, args.short
        self.coordinator, self.node, self.conclave = (os.path.join(args.bin, name) for name in ("conclave-coordinator", "conclave-node", "conclave"))
        self.model, self.secret, client = (os.path.join(folder, name) for name in ("model", "secret", "client"))
        lay_out(client)
        sys.path.insert(0, client)
        self.v1 = importlib.import_module("conclave")
        with open(self.secret, "w", encoding="ascii") as file:
            file.write("the secret of a cluster that suffers\n")
        subprocess.run(["/usr/bin/python3", MAKE_CHECKPOINT, self.model, "--shape", "tiny", "--layers", "4", "--dtype", "f32", "--no-tokenizer",
                        "--set", "num_experts=16", "--set", "max_position_embeddings=1024"], check=True, capture_output=True)
        self.questions = make_questions(N_STREAMS, N_TOKENS["short" if args.short else "full"])
        with Coordinator(self.coordinator, self.model, "--threads", "1", "--cache-dir", folder) as alone:
            stub = Stub(self.v1, alone.address)
            self.expected = reference(stub, self.questions)
            stub.close()


class Run:
    """One scenario under way: its cluster, its streams, and what was done to them."""

    def __init__(self, site, name, stack):
        self.site, self.name, self.stack = site, name, stack
        self.random = random.Random(f"{site.seed}/{name}")
        self.n_injections = self.n_effective = 0
        self.notes, self.faults, self.cluster, self.streams, self.others, self.pressure = [], [], None, None, None, []

    def begin(self, n_nodes, replication, *coordinators, hosts=None, may_go_on=False):
        self.cluster = Cluster(self.site, self.name, self.stack, hosts)
        self.flow(self.cluster.start(n_nodes, replication, *coordinators), may_go_on)
        return self.cluster

    def flow(self, stubs, may_go_on=False, questions=None, others=None):
        """others: what further streams ask, of whatever set is the default."""
        self.pressure.append(cpu_pressure())
        if others:
            self.others = Unjudged(stubs, others, N_STREAMS)
            self.stack.callback(self.others.cancel)
        self.streams = Streams(stubs, questions or self.site.questions, self.site.expected, N_STREAMS, may_go_on)
        self.stack.callback(self.streams.cancel)
        self.streams.undisturbed(1 if self.site.short else 10)

    def end(self):
        for streams in filter(None, (self.streams, self.others)):
            streams.finish()
        self.pressure.append(cpu_pressure())

    @contextlib.contextmanager
    def injection(self):
        with self.streams.injection():
            self.n_injections += 1
            yield
            if self.cluster:
                self.cluster.step_on()

    def note_gap(self, what):
        """The longest of the last injection, for scenarios whose injections differ."""
        self.notes.append(f"{what}: {1000 * max(self.streams.faults[-N_STREAMS:]):.0f} ms")

    def took(self, yes):
        self.n_effective += bool(yes)

    def a_node(self):
        """A node that serves rows now."""
        id = self.random.choice(sorted(self.cluster.nodes))
        self.cluster.serves(id)
        return id


def cpu_pressure(seconds=0.5):
    """The share of a moment in which somebody waited for a core. None: this kernel does not tell."""
    def total():
        with open("/proc/pressure/cpu", encoding="ascii") as file:
            return int(file.readline().rpartition("=")[2]) / 1e6
    try:
        before, start = total(), time.monotonic()
        time.sleep(seconds)
        return (total() - before) / (time.monotonic() - start)
    except OSError:
        return None


# ---------------------------------------------------------------------------------------------- scenarios
def kill(run, replication, n):
    """kill -9 of a node in mid-decode. With copies it comes back at once or later; of ten times another one comes in its place once, and
    once the others take over first. Without copies they always do."""
    cluster = run.begin(3, replication)
    for i in range(n):
        id = run.a_node()
        with run.injection():
            run.took(cluster.nodes.pop(id).stop(signal.SIGKILL)[0] == -signal.SIGKILL)
            if replication > 1 and i % 10 == 4:
                cluster.join(f"node-{3 + i}")
            elif replication > 1 and i % 10 == 9:
                cluster.whole(replication)
            elif replication > 1 and run.random.random() < 0.5:
                cluster.join(id)
        if len(cluster.nodes) < 3:
            cluster.join(id)
        cluster.whole(replication)
    run.end()


def stop(run, *seconds):
    """SIGSTOP of a node at replication 2."""
    cluster = run.begin(3, 2)
    for duration in seconds:
        pid = cluster.nodes[run.a_node()].process.pid
        with run.injection(), stopped(pid) as took:
            run.took(took)
            time.sleep(duration)
        run.note_gap(f"{duration} s")
        cluster.whole(2)
    run.end()


def slow(run, seconds):
    """A node at a tenth of its speed, at replication 2."""
    cluster = run.begin(3, 2)
    before, start = sum(run.streams.n_tokens), time.monotonic()
    time.sleep(1)
    healthy = (sum(run.streams.n_tokens) - before) / (time.monotonic() - start)
    pid = cluster.nodes[run.a_node()].process.pid
    with run.injection(), Slowed(pid) as slowed:
        before, start = sum(run.streams.n_tokens), time.monotonic()
        time.sleep(seconds)
        rate = (sum(run.streams.n_tokens) - before) / (time.monotonic() - start)
        run.took(slowed.share() > 0.5)  # the line tells the share: of a busy machine it is less than 90 %
        run.notes.append(f"{slowed.share():.0%} of the time it stood still, {healthy:.0f} -> {rate:.0f} tokens/s")
    run.end()


def etcd(run, rounds, *seconds):
    """etcd killed and restarted, wiped, and restored from an older snapshot; nodes join in between, so that the snapshot is old."""
    cluster = run.begin(3, 2)
    folder, snapshot = cluster.etcd.folder, cluster.etcd.folder + "-snapshot"
    for i in range(rounds):
        with run.injection(), cluster.without_etcd("coordinator") as died:
            shutil.rmtree(snapshot, ignore_errors=True)
            shutil.copytree(folder, snapshot)
            time.sleep(run.random.choice(seconds))
            run.took(died)
        cluster.join(f"node-{3 + i}")
        cluster.whole(2)
        for replacement in (None, snapshot):
            cluster.mark()
            with run.injection():
                with cluster.without_etcd("coordinator") as died:
                    shutil.rmtree(folder)
                    if replacement:
                        shutil.copytree(replacement, folder)
                    time.sleep(run.random.choice(seconds))
                run.took(died and not cluster.is_marked())
            cluster.whole(2)
    run.end()


def join_drain(run, cycles):
    """A node joins, another one drains."""
    cluster = run.begin(3, 2)
    for i in range(cycles):
        with run.injection():
            cluster.join(f"node-{3 + i}")
            run.took(True)  # it printed READY
            cluster.serves(f"node-{3 + i}")
        leaving = run.a_node()
        with run.injection():
            run.took(cluster.nodes[leaving].stop()[0] == 0)
            del cluster.nodes[leaving]
        cluster.whole(2)
    run.end()


def coordinators(run, n):
    """Two coordinators, one killed; its streams are resumed on the other with resume_from."""
    cluster = run.begin(3, 2, "a", "b", may_go_on=True)
    for _ in range(n):
        which = run.random.choice((0, 1))
        wait_for("streams of both coordinators", lambda: run.streams.served_by.count(which) >= N_STREAMS // 4)
        before = run.streams.counts["resumed"]
        with run.injection():
            took = cluster.coordinators["ab"[which]].stop(signal.SIGKILL)[0] == -signal.SIGKILL
            wait_for("streams that are resumed", lambda: run.streams.counts["resumed"] > before)
            run.took(took)
        run.streams.targets[which] = cluster.coordinator("ab"[which])
        cluster.whole(2)
    run.end()


def alone(run, seconds):
    """One of two coordinators has no etcd for a while; meanwhile two nodes join and two others drain, so that some experts keep no owner."""
    cluster = run.cluster = Cluster(run.site, run.name, run.stack)
    stubs = cluster.start(3, 2, "b")  # first, so that it is the controller
    way = Forwarder(cluster.etcd.url.rpartition("//")[2])
    run.stack.callback(way.close)
    run.flow([*stubs, cluster.coordinator("a", etcd_url=f"http://{way.address}")])
    with run.injection():
        with way.cut():
            wait_for("a coordinator without etcd", lambda: not cluster.etcd_connected("a"))
            end = time.monotonic() + seconds
            for id in ("node-3", "node-4"):
                cluster.join(id)
            leaving = [cluster.nodes.pop(id) for id in ("node-0", "node-1")]
            for node in leaving:
                node.process.send_signal(signal.SIGTERM)
            time.sleep(max(0, end - time.monotonic()))
            cluster.step_on()  # not only when etcd is there again
            cut = not cluster.etcd_connected("a") and cluster.etcd_connected("b")
        wait_for("a coordinator with etcd again", lambda: cluster.etcd_connected("a"))
        run.took(cut and [node.end()[0] for node in leaving] == [0, 0])
    cluster.whole(2)
    run.end()


def partition(run, seconds):
    """Three hosts, a node on each; between the first, where the coordinator is, and another one nothing passes, or nothing one way."""
    try:
        hosts = Hosts(run.site.folder)
    except OSError as error:
        raise Skipped(str(error)) from error
    run.stack.callback(hosts.close)
    cluster = run.begin(3, 2, hosts=hosts)
    network = Partition(hosts)
    for what, ways in (("both ways", [(0, 1), (1, 0)]), ("to a node", [(0, 2)]), ("from a node", [(2, 0)])):
        for id in cluster.nodes:
            cluster.serves(id)  # again: one host at a time is cut off
        with run.injection(), network.cut(*ways) as took:
            run.took(took)
            time.sleep(seconds)
        run.note_gap(what)
        cluster.whole(2)
    run.end()


def packs(run, cycles):
    """Packs come and go in a coordinator that has its experts in its own process. The streams are pinned to the checkpoint's own experts; as
    many others take the default set of the moment, and a server that has the packs from its start tells what each of their answers is."""
    site = run.site
    paths = [make_pack(site, run.name, *args) for args in (("first", "--experts", "2"), ("second", "--experts", "1", "--seed", "5"))]
    server = Coordinator(site.coordinator, site.model, "--threads", "1", "--cache-dir", site.folder, "--keep-unused-ms", "100", "--pack-dir",
                         site.folder)
    run.stack.enter_context(server)
    stub = Stub(site.v1, server.address)
    run.stack.callback(stub.close)
    others = make_questions(N_STREAMS, N_TOKENS_UNDER_A_SET)
    stub.change("DefineSet", name="pinned", include=["base"])  # a name keeps experts loaded that the default set leaves out
    run.flow([stub], questions=[question._replace(set="pinned") for question in site.questions], others=others)
    lists, sets, resident = site.v1.admin_pb2.ExpertList, {}, []

    def change(method, **fields):
        with run.injection():
            result = stub.change(method, **fields)
            wait_for("an answer under the new set", lambda: result.set_after in list(run.others.set_ids))
            run.took(result.set_before != result.set_after)
        if result.set_after not in sets:
            sets[result.set_after] = stub.admin("ListSets", "ListSetsResponse", set=result.set_after, experts=True).sets[0].experts

    sets[run.others.set_ids[0]] = stub.admin("ListSets", "ListSetsResponse", set="default", experts=True).sets[0].experts
    for i in range(cycles):
        change("AddPack", pack=paths[0])
        change("PruneExperts", experts=[lists(layer=layer, ids=ids) for layer, ids in PRUNED[i % len(PRUNED)]])
        change("Rollback" if i % 2 else "RestoreExperts")
        change("UpdatePack", pack="first", to=paths[1])
        change("RemovePack", pack="second")
        resident.append(server.resident_kib())
    run.end()
    with Coordinator(site.coordinator, site.model, "--threads", "1", "--cache-dir", site.folder, "--pack", ",".join(paths)) as fresh:
        run.others.judge({id: answers_of(site, fresh, others, id, experts) for id, experts in sets.items()})
    run.notes.append(f"{run.others.counts['tokens']} of the tokens under {len(sets)} default sets, the others pinned; resident "
                     f"{', '.join(f'{resident[n - 1] / 1024:.1f} MiB after {n}' for n in sorted({1, min(WARM_CYCLES, cycles), cycles}))} cycles")
    if cycles > WARM_CYCLES and resident[-1] > resident[WARM_CYCLES - 1] + RESIDENT_SLACK_KIB:
        run.faults.append("resident memory grew")


PHASES = {  # of the change after the one of that number, or later
    "begun": lambda cluster, number: cluster.catalogue()["number"] > number,
    "prepared": lambda cluster, number: PHASES["done"](cluster, number) or any(
        record.get("prepared", 0) > number for record in cluster.records("coordinators/").values()),
    "done": lambda cluster, number: (c := cluster.catalogue())["number"] > number and not c.get("pending"),
}


def packs_faults(run, rounds):
    """A pack is added to a cluster; when the change has begun, when a coordinator has prepared, and when it is done, a node that has the pack
    is killed, or the coordinator that was asked, or etcd. All agree afterwards: with the whole pack or without it."""
    site, n_experts = run.site, 2
    names = [f"{phase}-{fault}-{i}" for i in range(rounds) for phase in PHASES for fault in ("node", "coordinator", "etcd")]
    paths = [make_pack(site, run.name, name, "--experts", str(n_experts), "--seed", str(i)) for i, name in enumerate(names)]
    cluster = run.cluster = Cluster(site, run.name, run.stack)
    cluster.brings = {id: ("--pack", ",".join(paths)) for id in ("node-0", "node-1")}
    stubs = cluster.start(3, 2, "a", "b")
    stubs[0].change("DefineSet", name="pinned", include=["base"])
    run.flow(stubs, may_go_on=True, questions=[question._replace(set="pinned") for question in site.questions])
    base, _ = cluster.default_experts("b")
    options, n_done = site.v1.admin_pb2.ChangeOptions(timeout_ms=20000), 0

    def add(name, result):
        with contextlib.suppress(grpc.RpcError):
            result.append(cluster.stubs["a"].change("AddPack", pack=name, options=options).set_after)

    for name in names:
        phase, fault, _ = name.split("-")
        number, result = cluster.catalogue()["number"], []
        asking = threading.Thread(target=add, args=(name, result))
        with run.injection():
            asking.start()
            wait_for(f"a change that is {phase}", lambda phase=phase, number=number: PHASES[phase](cluster, number))
            if fault == "node":
                run.took(cluster.nodes.pop("node-0").stop(signal.SIGKILL)[0] == -signal.SIGKILL)
            elif fault == "coordinator":
                run.took(cluster.coordinators["a"].stop(signal.SIGKILL)[0] == -signal.SIGKILL)
            else:
                with cluster.without_etcd("b") as died:
                    run.took(died)
        if fault == "node":
            cluster.join("node-0")
        elif fault == "coordinator":
            run.streams.targets[0] = cluster.coordinator("a")
        asking.join()
        wait_for("an end of the change", lambda number=number: PHASES["done"](cluster, number))
        default = cluster.catalogue()["default"]
        for id in "ab":
            wait_for(f"the default set at {id}", lambda id=id, default=default: cluster.default_experts(id)[1] == default)
            experts, _ = cluster.default_experts(id)
            if experts not in (base, [n + n_experts for n in base]):
                run.faults.append(f"{name}: half of the pack at {id}: {experts}")
        if result and result[0] != default:
            run.faults.append(f"{name}: told that it is done, and it is not")
        if experts != base:
            n_done += 1
            wait_for("a change back", lambda name=name: removed(cluster.stubs["b"], name))
    run.end()
    run.notes.append(f"{n_done} of {len(names)} changes were done, the others undone")


def removed(stub, name):
    """False: another change is under way, or the store does not answer yet."""
    with contextlib.suppress(grpc.RpcError):
        stub.change("RemovePack", pack=name)
        return True
    return False


def make_pack(site, folder, name, *args):
    path = os.path.join(site.folder, f"{folder}-{name}")
    subprocess.run(["/usr/bin/python3", "-B", MAKE_PACK, "random", path, "--name", name, "--model", site.model, "--conclave", site.conclave, *args],
                   check=True, capture_output=True, env={**os.environ, "XDG_CACHE_HOME": site.folder})
    return path


def answers_of(site, server, questions, id, experts):
    """What a server says under a set of just these experts, which must be the one of that id."""
    stub = Stub(site.v1, server.address)
    try:
        same = stub.change("DefineSet", name="asked", experts=experts).set_after
        if same != id:
            raise RuntimeError(f"experts of set {id} are set {same} elsewhere")
        return reference(stub, [question._replace(set=id) for question in questions])
    finally:
        stub.close()


# Of each: in full; in make test (None: not there); what the longest gap may be beyond the healthy one, in seconds: p99 and max.
Scenario = collections.namedtuple("Scenario", "work full short gaps", defaults=(None, None))
SCENARIOS = {
    "kill-2": Scenario(lambda run, n: kill(run, 2, n), (100,), (3,), (0.1, 0.3)),
    "kill-1": Scenario(lambda run, n: kill(run, 1, n), (10,), (1,), (1, 1)),  # a small model: its bytes take no time
    "stop": Scenario(stop, (1, 5, 12, 30), (1,)),
    "slow": Scenario(slow, (20,), (2,)),
    "etcd": Scenario(etcd, (3, 1, 5, 20), (1, 0.5)),
    "join-drain": Scenario(join_drain, (50,), (3,)),
    "coordinators": Scenario(coordinators, (10,), (2,)),
    "alone": Scenario(alone, (60,), (5,)),
    "partition": Scenario(partition, (20,), (1,)),
    "packs": Scenario(packs, (200,), (2,)),
    "packs-faults": Scenario(packs_faults, (2,)),
}


# ---------------------------------------------------------------------------------------------- the line
def milliseconds(seconds):
    found = percentiles(seconds)
    return "p50 {:.0f} p99 {:.0f} max {:.0f} ms".format(*(1000 * s for s in found)) if found else "none"


def judge_gaps(run, bounds):
    """What is said of the gaps, and whether they are too long."""
    if bounds is None:
        return "no bound is set", False
    if any(p is None for p in run.pressure):
        return "not judged: this kernel does not tell the CPU pressure", False
    if max(run.pressure, default=1) > QUIET_PRESSURE:
        return f"not judged: CPU pressure {max(run.pressure, default=1):.0%} without our streams, at most {QUIET_PRESSURE:.0%}", False
    (_, p99, most), (_, quiet_p99, quiet_most) = percentiles(run.streams.faults), percentiles(run.streams.quiet)
    bad = p99 - quiet_p99 > bounds[0] or most - quiet_most > bounds[1]
    return f"beyond healthy at most p99 {1000 * bounds[0]:.0f} max {1000 * bounds[1]:.0f} ms: {'EXCEEDED' if bad else 'kept'}", bad


def report(run, seconds, bounds, why):
    """Prints the line; whether all is well."""
    streams = [s for s in (run.streams, run.others) if s]
    counts = sum((s.counts for s in streams), collections.Counter())
    faults = ([why] if why else []) + run.faults
    faults += [f"{counts[name]} {name}" for name in ("lost", "repeated", "different", "failed") if counts[name]]
    if run.n_effective < run.n_injections:
        faults.append(f"{run.n_injections - run.n_effective} injections without effect")
    faults += run.cluster.ended() if run.cluster else []
    gaps, too_long = judge_gaps(run, bounds) if run.streams and run.streams.faults and not why else ("not judged", False)
    faults += ["gaps too long"] if too_long else []
    print(f"{run.name}: {'FAILED: ' + '; '.join(faults) if faults else 'ok'} | injections {run.n_injections}, took effect {run.n_effective} | "
          f"{N_STREAMS * len(streams)} streams, requests {counts['requests']}, tokens compared {counts['tokens']}, lost {counts['lost']}, repeated "
          f"{counts['repeated']}, different {counts['different']}, failed {counts['failed']}, refused at first {counts['refused']}, resumed "
          f"{counts['resumed']} | longest gap {milliseconds(run.streams.faults if run.streams else [])}, healthy "
          f"{milliseconds(run.streams.quiet if run.streams else [])}; {gaps} | {'; '.join(run.notes + [f'{seconds:.0f} s'])}", flush=True)
    for text, n in sum((s.errors for s in streams), collections.Counter()).most_common(5):
        print(f"    {n} x {text}")
    if faults and run.cluster:
        for id, coordinator in run.cluster.coordinators.items():
            print(f"    log of {id}:", *[line.rstrip() for line in coordinator.log if " request method=" not in line][-15:], sep="\n        ")
    return not faults


def perform(site, name, scenario, args):
    started, why = time.monotonic(), None
    with contextlib.ExitStack() as stack:
        run = Run(site, name, stack)
        try:
            scenario.work(run, *(scenario.short if args.short else scenario.full))
        except Skipped as reason:
            print(f"{name}: skipped: {reason}", flush=True)
            return True
        except Exception as error:  # whatever it was, the other scenarios are run
            why = said(error) if isinstance(error, grpc.RpcError) else f"{type(error).__name__}: {error}"
            if not isinstance(error, TimeoutError):
                traceback.print_exc()
            for streams in filter(None, (run.streams, run.others)):
                streams.cancel()
        return report(run, time.monotonic() - started, scenario.gaps if args.gaps else None, why)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True, metavar="DIR", help="where conclave-coordinator and conclave-node are")
    parser.add_argument("--short", action="store_true", help="few faults, about a minute; without the scenarios that have no short form")
    parser.add_argument("--gaps", action="store_true", help="longest gaps have bounds, too, where nobody else uses the machine")
    parser.add_argument("--seed", type=int, default=1, help="of the order of faults; printed")
    parser.add_argument("--scenarios", default="", metavar="NAME[,NAME]", help=f"of {', '.join(SCENARIOS)}; default: all")
    args = parser.parse_args()
    args.scenarios = [name for name in args.scenarios.replace(",", " ").split()] or [
        name for name, s in SCENARIOS.items() if not args.short or s.short is not None]
    for name in args.scenarios:
        if name not in SCENARIOS or args.short and SCENARIOS[name].short is None:
            parser.error(f"no {'short ' if args.short else ''}scenario {name}")
    return args


def main():
    args = parse_args()
    if shutil.which("etcd") is None:
        print("skipped: etcd-server is not installed")
        return 77
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        site = Site(args, folder)
        bad = [name for name in args.scenarios if not perform(site, name, SCENARIOS[name], args)]
    print(f"{len(args.scenarios) - len(bad)} of {len(args.scenarios)} scenarios are as they must be" + (f"; not {', '.join(bad)}" if bad else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
