"""Processes that benchmarks start and end: etcd, members of a cluster."""
import contextlib
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "integration"))
from coordinator import clean_env, free_ports  # noqa: E402


def start(*args):
    return subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8", env=clean_env())


@contextlib.contextmanager
def running(processes):
    try:
        yield processes
    finally:
        for process in processes:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def etcd(folder):
    """Its URL."""
    client, peer = free_ports(2)
    url, peer_url = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    with running([start("etcd", "--name", "bench", "--data-dir", os.path.join(folder, "etcd"), "--log-level", "error", "--listen-client-urls",
                        url, "--advertise-client-urls", url, "--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url,
                        "--initial-cluster", "bench=" + peer_url)]):
        yield url
