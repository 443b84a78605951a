"""The cluster of a demo: etcd, two expert nodes and a coordinator on this machine, and nodes that join later. It ends with the stack."""
import json
import os
import signal
import subprocess
import sys
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path.insert(0, os.path.join(ROOT, "tests", "integration"))
from coordinator import WAIT_S, Coordinator, clean_env  # noqa: E402
from members import Etcd, Process  # noqa: E402


def run(*command, **settings):
    done = subprocess.run(command, capture_output=True, encoding="utf-8", **settings)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def wait_for(what):
    end = time.monotonic() + WAIT_S
    while not what():
        if time.monotonic() > end:
            sys.exit(f"it did not come about in {WAIT_S} s")
        time.sleep(0.01)


def make_model(folder):
    """A small one with random weights."""
    path = os.path.join(folder, "model")
    run(os.path.join(ROOT, "tools", "make_checkpoint.py"), path, "--shape", "tiny")
    return path


def make_pack(folder, name, model, programs):
    """Two experts for each layer, with random weights."""
    path = os.path.join(folder, name)
    run(os.path.join(ROOT, "tools", "make_pack.py"), "random", path, "--model", model, "--conclave", os.path.join(programs, "conclave"), "--experts", "2",
        "--scale", "1.5", env={**clean_env(), "XDG_CACHE_HOME": folder})
    return path


class Cluster:
    def __init__(self, stack, folder, programs, model):
        self.stack, self.folder, self.programs, self.model = stack, folder, programs, model
        self.etcd = Etcd(os.path.join(folder, "etcd"))
        stack.callback(self.etcd.stop)
        for node in [self.node("a"), self.node("b")]:
            node.registered()
        server = stack.enter_context(Coordinator(os.path.join(programs, "conclave-coordinator"), model, *self.member("coordinator"), "--min-nodes", "2",
                                                 "--threads", "1"))
        self.address = server.address

    def member(self, name):
        return "--etcd", self.etcd.url, "--id", name, "--cache-dir", self.folder

    def node(self, name, *args):
        node = Process(os.path.join(self.programs, "conclave-node"), "--model", self.model, *self.member(name), *args)
        self.stack.callback(node.stop, signal.SIGKILL)  # nobody waits for a drain
        return node

    def command(self, *args):
        return [os.path.join(self.programs, "conclave"), *args, "--server", self.address]

    def ask(self, *args):
        return run(*self.command(*args), env=clean_env())

    def join(self, name, pack):
        """In return when the coordinator knows of the node's pack."""
        self.node(name, "--pack", pack)
        wait_for(lambda: json.loads(self.ask("packs", "--json")).get("packs"))

    def rows(self, by):
        """What the experts of each pack, or of each layer, have computed."""
        return {group["name"]: int(group["rows"]) for group in json.loads(self.ask("experts", "stats", "--by", by, "--json"))["groups"]}
