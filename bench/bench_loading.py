#!/usr/bin/python3
"""What nodes that load experts cost the streams that they serve meanwhile, on this machine. Nothing is asserted.

Usage: bench_loading.py BIN_DIR [--layers N] [--streams N] [--bandwidths SIZE,...] [--rounds N]

Makes a checkpoint of OLMoE-1B-7B's shape with N layers (2; random weights) and serves it with a coordinator and two nodes of one thread
each. While --streams (4) answers are under way the policy goes from one copy of each expert to two: each node then loads as much as it has.
Gaps between two tokens of a stream, as its client sees them, from the command until all is loaded, beside those of the seconds before; then
one copy again, and so --rounds (2) times, for each --load-bandwidth (0, which is no limit, 512M, the default, 100M and 20M).
"""
import argparse
import contextlib
import tempfile
import time

from streaming import Streaming  # first: it says where the others are
from coordinator import Coordinator
from processes import etcd, running, start
from streams import Stub, Unjudged, percentiles

N_NODES, N_EXPERTS = 2, 64
HEALTHY_S, WAIT_S, LOOK_S = 4, 300, 0.1
EXPERT_BYTES = 3 * 2048 * 1024 * 2


class Bench(Streaming):
    @contextlib.contextmanager
    def pool(self, url, bandwidth):
        member = ["--etcd", url, "--cluster", f"bench-{bandwidth}", "--cache-dir", self.folder]
        nodes = [start(self.program("conclave-node"), "--model", self.model, *member, "--id", f"node-{i}", "--listen", "127.0.0.1:0",
                       "--threads", "1", "--load-bandwidth", bandwidth) for i in range(N_NODES)]
        with running(nodes), Coordinator(self.program("conclave-coordinator"), self.model, *member, "--threads", "1", "--min-nodes",
                                         str(N_NODES), "--replication", "1") as coordinator:
            yield coordinator

    def wait_for_copies(self, stub, n):
        """Until the nodes hold n of each expert, and no more."""
        end = time.monotonic() + WAIT_S
        while sum(node.n_experts for node in stub.admin("GetCluster", "GetClusterResponse").nodes) != n * self.a.layers * N_EXPERTS:
            if time.monotonic() > end:
                raise RuntimeError(f"the nodes do not get to {n} copies in {WAIT_S} s")
            time.sleep(LOOK_S)

    def copies(self, stub, n):
        stub.admin("SetPolicy", "SetPolicyResponse", replication=n)
        self.wait_for_copies(stub, n)

    def gaps_during(self, streams, work):
        """Those that begin and end in it, and its seconds."""
        begun = time.monotonic()
        work()
        ended = time.monotonic()
        return [b - a for gaps in streams.gaps for a, b in list(gaps) if a > begun and b < ended], ended - begun

    def measure(self, url, bandwidth):
        healthy, loading, seconds = [], [], []
        with self.pool(url, bandwidth) as server:
            stub = Stub(self.v1, server.address)
            questions = [self.question(i, 3500) for i in range(self.a.streams)]
            self.wait_for_copies(stub, 1)
            streams = Unjudged([stub], questions, self.a.streams)
            try:
                streams.advance(20)
                for _ in range(self.a.rounds):
                    healthy += self.gaps_during(streams, lambda: time.sleep(HEALTHY_S))[0]
                    these, took = self.gaps_during(streams, lambda: self.copies(stub, 2))
                    loading += these
                    seconds.append(took)
                    self.copies(stub, 1)
                    streams.advance(5)
            finally:
                streams.cancel()
            stub.close()
        self.report(bandwidth, healthy, loading, max(seconds))

    def report(self, bandwidth, healthy, loading, seconds):
        before, now = percentiles(healthy), percentiles(loading)
        share = self.a.layers * N_EXPERTS * EXPERT_BYTES / N_NODES
        names = f"--load-bandwidth {bandwidth}"
        for what, gaps, (p50, p99, longest) in (("healthy", healthy, before), ("loading", loading, now)):
            print(f"{names:24s} {what}: p50 {1e3 * p50:.1f} p99 {1e3 * p99:.1f} longest {1e3 * longest:.1f} ms, {len(gaps)} gaps", flush=True)
        print(f"{names:24s} loading/healthy: p50 {now[0] / before[0]:.2f} p99 {now[1] / before[1]:.2f} longest {now[2] / before[2]:.2f};"
              f" {share / 1e6:.0f} MB into each node in {seconds:.1f} s at most", flush=True)

    def run(self):
        with etcd(self.folder) as url:
            for bandwidth in self.a.bandwidths:
                self.measure(url, bandwidth)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--bandwidths", type=lambda text: text.split(","), default=["0", "512M", "100M", "20M"])
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Bench(a, folder).run()


main()
