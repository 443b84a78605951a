#!/usr/bin/python3
"""Decode through two expert nodes against one process, on this machine: what a pool costs when its members share the cores.

Usage: bench_pool.py BIN_DIR [--layers N] [--model DIR]

Makes a checkpoint of OLMoE-1B-7B's shape with N layers (8; random weights) unless one is given, then measures tokens per second at batch
1, 8 and 32: one process with 2 threads; then etcd, a coordinator with 2 threads and two nodes with 1 thread each, with replication 2
(the plan evens out every step) and 1 (printed beside its imbalance). Every stream has random tokens of its own; rates are those of the
time in which all streams decode. The bandwidth probe of bench_kernels stands beside each measurement.
"""
import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import urllib.request

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
from coordinator import Coordinator, clean_env, free_ports, run_json  # noqa: E402

BATCHES = (1, 8, 32)


def start(*args):
    return subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8", env=clean_env())


def metric(http, name):
    with urllib.request.urlopen(http + "/metrics", timeout=60) as page:
        return [float(v) for v in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", page.read().decode(), re.M)]


def decode(conclave, coordinator, batch, n_tokens, vocabulary=50000):
    """Tokens per second of all streams together, by the server's own clock of each stream's decode."""
    rates = [0.0] * batch

    def run(i):
        ids = random.Random(1000 * batch + i).sample(range(vocabulary), 16)
        last = run_json(conclave, coordinator, "generate", "--tokens", ",".join(map(str, ids)), "--ignore-eos", "--max-tokens", str(n_tokens),
                        "--seed", str(i), "--top-k", "1")[-1]
        rates[i] = (n_tokens - 1) / last["timings"]["decode_seconds"]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(batch)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)


def probe(binary):
    out = subprocess.run([os.path.join(binary, "bench_kernels"), "--only", "head", "--seconds", "0.05", "2"], capture_output=True,
                         encoding="utf-8").stdout
    found = re.search(r"bandwidth ([\d.]+) GB/s", out)
    return float(found.group(1)) if found else float("nan")


def measure(name, conclave, binary, coordinator, http):
    rates = []
    for batch in BATCHES:
        n_tokens = 40 if batch == 1 else 24
        decode(conclave, coordinator, batch, 6)
        before = probe(binary)
        rows = metric(http, "conclave_node_rows_total")
        rate = decode(conclave, coordinator, batch, n_tokens)
        rows = [b - a for a, b in zip(rows, metric(http, "conclave_node_rows_total"))]
        share = f", busiest node {max(rows) * len(rows) / sum(rows):.2f} of the mean in rows" if len(rows) > 1 else ""
        print(f"{name:34s} batch {batch:2d} {rate:8.1f} tokens/s, bandwidth {before:.1f} and {probe(binary):.1f} GB/s{share}", flush=True)
        rates.append(rate)
    return rates


def http_of(coordinator):
    return "http://127.0.0.1:" + coordinator.log_match(r"http on port (\d+)").group(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--model")
    a = parser.parse_args()
    program = {name: os.path.join(a.bin, name) for name in ("conclave", "conclave-coordinator", "conclave-node")}
    with tempfile.TemporaryDirectory() as folder:
        model = a.model or os.path.join(folder, "model")
        if not a.model:
            subprocess.run(["/usr/bin/python3", os.path.join(ROOT, "tools", "make_checkpoint.py"), model, "--shape", "olmoe-1b-7b", "--layers",
                            str(a.layers), "--no-tokenizer"], check=True)
        common = ["--http", "127.0.0.1:0", "--cache-dir", os.path.join(folder, "cache")]
        with Coordinator(program["conclave-coordinator"], model, "--threads", "2", *common) as one:
            alone = measure("one process, 2 threads", program["conclave"], a.bin, one, http_of(one))
        client, peer = free_ports(2)
        url, peer_url = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        etcd = start("etcd", "--name", "bench", "--data-dir", os.path.join(folder, "etcd"), "--log-level", "error", "--listen-client-urls", url,
                     "--advertise-client-urls", url, "--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url,
                     "--initial-cluster", "bench=" + peer_url)
        try:
            for replication in ("2", "1"):
                member = ["--etcd", url, "--cluster", "bench-" + replication, "--cache-dir", os.path.join(folder, "cache")]
                nodes = [start(program["conclave-node"], "--model", model, *member, "--id", f"node-{i}", "--listen", "127.0.0.1:0", "--threads",
                               "1") for i in range(2)]
                try:
                    with Coordinator(program["conclave-coordinator"], model, *member, "--threads", "2", "--min-nodes", "2", "--replication",
                                     replication, "--http", "127.0.0.1:0") as pool:
                        rates = measure(f"two nodes, replication {replication}", program["conclave"], a.bin, pool, http_of(pool))
                finally:
                    for node in nodes:
                        node.terminate()
                        node.wait()
                for batch, mine, theirs in zip(BATCHES, rates, alone):
                    print(f"two nodes, replication {replication}: batch {batch:2d} at {mine / theirs:.3f} of one process", flush=True)
        finally:
            etcd.terminate()
            etcd.wait()


main()
