"""Work that is left out is left out: MoE++ with a known share of zero-computation picks, and MoLM whose stick is soon used up.

Usage: savings.py CONCLAVE COORDINATOR NODE MAKE_CHECKPOINT VECTORS [unittest arguments]

The counters of /metrics, the bytes of the frames between coordinator and nodes, and the share that the checkpoint was made for must say
the same. docs/wire.md has the sizes of frames.
"""
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest

from coordinator import WAIT_S, Coordinator, run_json
from members import Etcd, Process
from pool_case import CONCLAVE, COORDINATOR, MAKE_CHECKPOINT, NODE

IDS = list(range(100, 300))  # two hundreds of consecutive ids: each holds the share exactly
N_LAYERS, D_MODEL, ROW_BYTES = 3, 64, 64 * 4
DISPATCH_HEAD, RESULT_HEAD, GROUP_BYTES, PICK_BYTES = 72, 60, 8, 4


class Metrics:
    def __init__(self, coordinator):
        self.read = coordinator.metrics

    def during(self, work, n_rows):
        """What each counter grew by while work() sent n_rows rows through the layers. Figures are published after a step."""
        before, end = self.read(), time.monotonic() + WAIT_S
        work()
        while True:
            grown = {name: value - before.get(name, 0) for name, value in self.read().items()}
            if grown["conclave_layer_rows_total"] >= n_rows or time.monotonic() > end:
                return grown
            time.sleep(0.01)


def picks(grown, layer, kind):
    return grown[f'conclave_expert_picks_total{{layer="{layer}",kind="{kind}"}}']


def traffic(grown, what, direction):
    return grown[f'conclave_dispatch_{what}_total{{direction="{direction}"}}']


class Savings(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = folder.name

    def make(self, name, *args):
        path = os.path.join(self.folder, name)
        subprocess.run(["/usr/bin/python3", MAKE_CHECKPOINT, path, "--shape", "tiny", "--dtype", "f32", "--no-tokenizer", *args], check=True,
                       capture_output=True)
        return path

    def serve(self, model, *args):
        return Coordinator(COORDINATOR, model, "--threads", "1", "--http", "127.0.0.1:0", "--cache-dir", "", "--no-prefix-cache", *args)

    def read_prompt(self, coordinator):
        """All of IDS in one step."""
        grown = Metrics(coordinator).during(
            lambda: run_json(CONCLAVE, coordinator, "generate", "--tokens", ",".join(map(str, IDS)), "--max-tokens", "1"), len(IDS))
        self.assertEqual(grown["conclave_layer_rows_total"], len(IDS))
        return grown

    # ------------------------------------------------------------------------------------------ MoE++
    def check_counters(self, grown, share):
        """Picks by kind, the histogram and the bytes, in every layer. In return the rows that had work for a node, and all picks for nodes."""
        both, n_local = round(100 * share * share) / 100 * len(IDS), round(2 * share * len(IDS))
        for layer in range(N_LAYERS):
            local = {kind: picks(grown, layer, kind) for kind in ("constant", "copy", "zero")}
            self.assertEqual(sum(local.values()), n_local)
            self.assertEqual(picks(grown, layer, "ffn"), 2 * len(IDS) - n_local)
            if share > 0:
                self.assertTrue(all(local.values()), local)
            name = "conclave_ffn_experts_per_token"
            up_to = [grown[f'{name}_bucket{{layer="{layer}",le="{n}"}}'] for n in (0, 1, 2)]
            self.assertEqual(up_to, [both, n_local - both, len(IDS)])  # one local pick: n_local - 2 both
            self.assertEqual(grown[f'conclave_bytes_not_sent_total{{layer="{layer}"}}'], (n_local + both) * ROW_BYTES)
        return N_LAYERS * (len(IDS) - both), N_LAYERS * (2 * len(IDS) - n_local)

    def check_in_process(self, share):
        with self.serve(self.make(f"moe++-{share}", "--family", "moe++", "--zero-share", str(share))) as coordinator:
            before = self.rows_of_experts(coordinator)
            grown = self.read_prompt(coordinator)
            n_hit = sum(after > before[expert] for expert, after in self.rows_of_experts(coordinator).items())
        rows, ffn_picks = self.check_counters(grown, share)
        frames = N_LAYERS if ffn_picks > 0 else 0
        self.assertEqual(traffic(grown, "frames", "sent"), frames)
        self.assertEqual(traffic(grown, "frames", "received"), frames)
        self.assertEqual(traffic(grown, "bytes", "received"), frames * RESULT_HEAD + ffn_picks * ROW_BYTES)
        self.assertEqual(traffic(grown, "bytes", "sent"),
                         frames * DISPATCH_HEAD + n_hit * GROUP_BYTES + ffn_picks * PICK_BYTES + rows * ROW_BYTES)

    def rows_of_experts(self, coordinator):
        """Of the FFN experts, ids 0 to 7."""
        return {name: value for name, value in Metrics(coordinator).read().items()
                if re.fullmatch(r'conclave_expert_rows_total\{layer="\d+",expert="[0-7]"\}', name)}

    def test_no_pick_is_local(self):
        self.check_in_process(0.0)

    def test_a_fifth_of_the_picks_is_local(self):
        self.check_in_process(0.2)

    def test_two_fifths_of_the_picks_are_local(self):
        self.check_in_process(0.4)

    def test_three_fifths_of_the_picks_are_local(self):
        self.check_in_process(0.6)

    def test_a_model_of_local_picks_alone_sends_nothing(self):
        self.check_in_process(1.0)

    def test_nodes_get_what_is_not_local(self):
        model = self.make("moe++-nodes", "--family", "moe++", "--zero-share", "0.4")
        etcd = Etcd(os.path.join(self.folder, "etcd"))
        self.addCleanup(etcd.stop)
        nodes = [Process(NODE, "--model", model, "--etcd", etcd.url, "--id", f"node-{i}", "--cache-dir", "") for i in range(2)]
        self.addCleanup(lambda: [node.stop() for node in nodes])
        for node in nodes:
            node.registered()
        with self.serve(model, "--etcd", etcd.url, "--id", "coordinator", "--min-nodes", "2") as coordinator:
            grown = self.read_prompt(coordinator)
        rows, ffn_picks = self.check_counters(grown, 0.4)
        frames = traffic(grown, "frames", "sent")
        self.assertEqual(traffic(grown, "bytes", "received"), frames * RESULT_HEAD + ffn_picks * ROW_BYTES)
        sent = traffic(grown, "bytes", "sent") - frames * DISPATCH_HEAD - ffn_picks * PICK_BYTES
        self.assertGreaterEqual(sent, rows * ROW_BYTES)  # a row goes once to each node that has one of its experts
        self.assertLessEqual(sent, ffn_picks * (ROW_BYTES + GROUP_BYTES))

    # ------------------------------------------------------------------------------------------ MoLM
    def test_an_early_exit_skips_half_of_the_keys_and_changes_no_bit(self):
        model = self.make("molm", "--family", "molm", "--score-scale", "20")
        answers, skipped = [], []
        for args in ((), ("--no-early-exit",)):
            with self.serve(model, *args) as coordinator:
                grown = Metrics(coordinator).during(lambda: answers.append(run_json(
                    CONCLAVE, coordinator, "generate", "--tokens", ",".join(map(str, IDS)), "--seed", "1", "--ignore-eos", "--max-tokens",
                    "20", "--logprobs", "3")), len(IDS) + 19)
                skipped.append(grown["conclave_attention_keys_skipped_total"])
                keys = grown["conclave_attention_keys_seen_total"] + skipped[-1]
        tokens, logprobs = ([[entry for chunk in chunks for entry in chunk.get(name, [])] for chunks in answers]
                            for name in ("token_ids", "logprobs"))
        self.assertEqual(len(tokens[0]), 20)
        self.assertEqual(tokens[0], tokens[1])
        self.assertEqual(logprobs[0], logprobs[1])
        print(f"early exit: {skipped[0]:.0f} of {keys:.0f} keys skipped")
        self.assertEqual(skipped[1], 0)
        self.assertGreaterEqual(skipped[0], keys / 2)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]] + sys.argv[6:])
