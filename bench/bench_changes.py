#!/usr/bin/python3
"""What packs and sets that change cost the streams of one process, on this machine, beside the goals. Nothing is asserted.

Usage: bench_changes.py BIN_DIR [--layers N] [--experts N] [--rounds N] [--streams N]

Makes a checkpoint of OLMoE-1B-7B's shape with N layers (8; random weights) and a pack with --experts (4) new experts for each layer, and serves
it with 2 threads. Then, while --streams (16) answers are under way:

  gaps    between two tokens of a stream, as its client sees them: of --rounds (5) additions and removals of the pack, each from the command to
          the second token of every stream after it, beside those of the seconds before. Every addition loads the experts anew.
  undo    from the rollback's request to the beginning of the first step with a request of the set that it leads back to, and to that request's
          token. Another client asks every 20 ms for a token meanwhile. With the streams and without, of an addition and of a removal.
  sets    tokens per second of all streams over 8 sets, each without another expert of each layer, against all under one of them, by turns;
          medians of --rounds. By the server's own clock of each stream's decode.
"""
import argparse
import concurrent.futures
import os
import statistics
import tempfile
import time

from streaming import Streaming  # first: it says where the others are
from coordinator import Coordinator
from streams import Stub, Unjudged, percentiles

N_SETS = 8
KEEP_UNUSED_S = 2  # experts that went are loaded anew when the next round adds them; a rollback comes sooner
HEALTHY_S = 3
PROBE_S, N_PROBES = 0.02, 24
GAP_GOAL, UNDO_GOAL_S, SETS_GOAL = 2, 0.1, 0.95


class Bench(Streaming):
    def __init__(self, a, folder):
        super().__init__(a, folder)
        self.pack = os.path.join(folder, "bench")
        self.make("make_pack.py", "random", self.pack, "--model", self.model, "--conclave", self.program("conclave"), "--experts", str(a.experts))

    # ------------------------------------------------------------------------------------------ gaps
    def streams(self):
        """Answers that are longer than what is measured of them: none begins meanwhile."""
        streams = Unjudged([self.stub], [self.question(i, 3500) for i in range(self.a.streams)], self.a.streams)
        streams.advance()
        return streams

    def gaps_during(self, streams, work):
        begun = time.monotonic()
        work()
        streams.advance(2)
        return [b - a for gaps in streams.gaps for a, b in list(gaps) if b > begun]

    def gaps(self):
        changes = {"packs add": lambda: self.stub.change("AddPack", pack=self.pack),
                   "packs remove": lambda: self.stub.change("RemovePack", pack="bench")}
        found, healthy, streams = {name: [] for name in changes}, [], self.streams()
        try:
            for _ in range(self.a.rounds):
                for name, change in changes.items():
                    time.sleep(KEEP_UNUSED_S + 1)
                    healthy += self.gaps_during(streams, lambda: time.sleep(HEALTHY_S))
                    found[name] += self.gaps_during(streams, change)
        finally:
            streams.cancel()
        p50, p99, longest = percentiles(healthy)
        self.step = p50
        print(f"{'gaps, healthy':26s} p50 {1e3 * p50:.1f} p99 {1e3 * p99:.1f} longest {1e3 * longest:.1f} ms, {len(healthy)} gaps of"
              f" {self.a.streams} streams")
        for name, these in found.items():
            _, p99_now, longest_now = percentiles(these)
            print(f"{'gaps, ' + name:26s} p99 {1e3 * p99_now:.1f} longest {1e3 * longest_now:.1f} ms, {len(these)} gaps in {self.a.rounds}"
                  f" changes: the longest is {longest_now / p99:.2f} of the healthy p99 (goal: at most {GAP_GOAL})", flush=True)

    # ------------------------------------------------------------------------------------------ undo
    def probe(self, wanted):
        """Of one token: when its step began, by its own prefill, and when it came; None: under another set."""
        chunks = list(self.stub.generate(self.question(0, 1)._replace(prompt=[0]), []))
        now = time.monotonic()
        return (now - chunks[-1].timings.prefill_seconds, now) if chunks[0].set_id == wanted else None

    def undo(self, wanted):
        """Seconds from the rollback's request to the first step of a request of that set, to its token, and to the rollback's own answer."""
        with concurrent.futures.ThreadPoolExecutor(N_PROBES) as threads:
            begun = time.monotonic()
            rollback = threads.submit(lambda: (self.stub.change("Rollback"), time.monotonic())[1])
            probes = []
            while not any(p.done() and p.result() for p in probes):
                probes.append(threads.submit(self.probe, wanted))
                time.sleep(PROBE_S)
            times = [p.result() for p in probes]
            first, answered = min(t for t in times if t)
            return first - begun, answered - begun, rollback.result() - begun

    def undos(self, what):
        taken = {"an addition": [], "a removal": []}
        for _ in range(self.a.rounds):
            added = self.stub.change("AddPack", pack=self.pack)
            taken["an addition"].append(self.undo(added.set_before))
            self.stub.change("AddPack", pack=self.pack)
            removed = self.stub.change("RemovePack", pack="bench")
            taken["a removal"].append(self.undo(removed.set_before))
            self.stub.change("RemovePack", pack="bench")
        for name, these in taken.items():
            first, token, told = (statistics.median(seconds) for seconds in zip(*these))
            longest = max(seconds[0] for seconds in these)
            print(f"{'undo of ' + name:26s} {what}: {1e3 * first:.1f} ms to the first step under the old set, longest {1e3 * longest:.1f} (goal: at"
                  f" most {1e3 * UNDO_GOAL_S:.0f}), {1e3 * token:.1f} ms to its token; {1e3 * told:.1f} ms to the rollback's own answer; a step of"
                  f" {self.a.streams} streams has {1e3 * self.step:.1f} ms", flush=True)

    def undos_while_streaming(self):
        streams = self.streams()
        try:
            self.undos(f"{self.a.streams} streams")
        finally:
            streams.cancel()

    # ------------------------------------------------------------------------------------------ sets
    def define_sets(self):
        experts, = self.stub.admin("ListSets", "ListSetsResponse", set="base", experts=True).sets
        expert_list = self.v1.admin_pb2.ExpertList
        for i in range(N_SETS):
            lists = [expert_list(layer=layer.layer, ids=[id for id in layer.ids if id != i]) for layer in experts.experts]
            self.stub.change("DefineSet", name=f"without-{i}", experts=lists)

    def decode(self, n_sets, n_tokens):
        def rate(i):
            *_, last = self.stub.generate(self.question(i, n_tokens, f"without-{i % n_sets}"), [])
            return (n_tokens - 1) / last.timings.decode_seconds

        with concurrent.futures.ThreadPoolExecutor(self.a.streams) as threads:
            return sum(threads.map(rate, range(self.a.streams)))

    def sets(self):
        self.define_sets()
        rates = {1: [], N_SETS: []}
        for n_sets in rates:
            self.decode(n_sets, 6)
        for _ in range(self.a.rounds):
            for n_sets, these in rates.items():
                these.append(self.decode(n_sets, 32))
        one, many = (statistics.median(these) for these in rates.values())
        ranges = {n_sets: f"{min(these):.1f} to {max(these):.1f}" for n_sets, these in rates.items()}
        print(f"{'sets':26s} {self.a.streams} streams over {N_SETS} sets {many:.1f} tokens/s ({ranges[N_SETS]}), under one {one:.1f} ({ranges[1]}):"
              f" {many / one:.3f} of it (goal: at least {SETS_GOAL})", flush=True)

    def run(self):
        with Coordinator(self.program("conclave-coordinator"), self.model, "--threads", "2", "--cache-dir", self.folder, "--keep-unused-ms",
                         str(1000 * KEEP_UNUSED_S), "--pack-dir", self.folder) as server:
            self.stub = Stub(self.v1, server.address)
            self.gaps()
            self.undos("idle")
            self.undos_while_streaming()
            self.sets()
            self.stub.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=16)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Bench(a, folder).run()


main()
