"""A cluster of real processes that a scenario breaks: etcd, coordinators, nodes. Whatever was started is gone at the end."""
import base64
import contextlib
import json
import os
import shutil
import signal
import time

from coordinator import WAIT_S, Coordinator
from members import Etcd, Forwarder, Process
from streams import Stub


def wait_for(what, condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {WAIT_S} s")
        time.sleep(0.01)


class Cluster:
    """site: programs, model and so on (chaos.py). hosts: of members.Hosts; member number i runs on the host i, etcd and coordinators on 0."""

    def __init__(self, site, name, stack, hosts=None):
        self.site, self.stack, self.hosts = site, stack, hosts
        self.folder = os.path.join(site.folder, name)
        os.makedirs(self.folder)
        self.nodes, self.coordinators, self.stubs = {}, {}, {}
        self.brings = {}  # what else a node of that name is started with
        self.etcd = Etcd(os.path.join(self.folder, "etcd"), self.address(0), self.program(shutil.which("etcd")))
        stack.callback(self.etcd_gone)

    # ------------------------------------------------------------------------------------------ members
    def address(self, i):
        return self.hosts.address(i) if self.hosts else "127.0.0.1"

    def program(self, path, i=0):
        return self.hosts.program(i, path) if self.hosts else path

    def args(self, id, etcd_url=None):
        return ("--model", self.site.model, "--etcd", etcd_url or self.etcd.url, "--cache-dir", self.site.folder, "--secret-file",
                self.site.secret, "--transport", "tls", "--id", id)

    def node(self, id):
        """Started. A drain may take as long as it needs: what it waits for is what is broken here."""
        i = int(id.rpartition("-")[2]) if self.hosts else 0
        node = Process(self.program(self.site.node, i), *self.args(id), "--listen", f"{self.address(i)}:0", "--drain-timeout-ms",
                       str(WAIT_S * 1000), *self.brings.get(id, ()))
        self.stack.callback(lambda: node.process.poll() is None and node.stop(signal.SIGKILL))
        self.nodes[id] = node
        return node

    def join(self, id):
        """In return when it has been reached."""
        return self.node(id).ready()

    def coordinator(self, id, *args, etcd_url=None):
        """Started and ready: the stub of its API."""
        coordinator = Coordinator(self.program(self.site.coordinator), *self.args(id, etcd_url)[1:], "--threads", "1", "--http", "127.0.0.1:0",
                                  *args)
        self.stack.callback(lambda: coordinator.process.poll() is None and coordinator.stop(signal.SIGKILL))
        address = coordinator.address
        if self.hosts:
            way = Forwarder(address, self.hosts.names[0])
            self.stack.callback(way.close)
            address = way.address
        self.coordinators[id], self.stubs[id] = coordinator, Stub(self.site.v1, address)
        self.stack.callback(self.stubs[id].close)
        return self.stubs[id]

    def start(self, n_nodes, replication, *ids):
        """Nodes node-0 and so on, and a coordinator for each id: their stubs, when every expert is where it should be."""
        for node in [self.node(f"node-{i}") for i in range(n_nodes)]:
            node.registered()
        stubs = [self.coordinator(id, "--min-nodes", str(n_nodes), "--replication", str(replication)) for id in ids or ("coordinator",)]
        self.whole(replication)
        return stubs

    # ------------------------------------------------------------------------------------------ what is known of it
    def ended(self):
        """Members that nobody ended, and their exit codes."""
        members = {**self.nodes, **self.coordinators}
        return [f"{id} ended with code {m.process.poll()}" for id, m in members.items() if m.process.poll() is not None]

    def living(self):
        return [self.stubs[id] for id, c in self.coordinators.items() if c.process.poll() is None]

    def owners(self):
        """Per expert, the nodes that have it."""
        reply = self.living()[0].admin("ListExperts", "ListExpertsResponse")
        return [{r.node_id for r in expert.replicas if r.ready} for expert in reply.experts]

    def step_on(self, n_rows=100):
        """Waits until every living coordinator has computed more. Tokens that come to us may have been under way before the fault."""
        def rows(stub):
            return stub.admin("GetExpertStats", "GetExpertStatsResponse").tokens
        before = [(id, self.stubs[id], rows(self.stubs[id])) for id, c in self.coordinators.items() if c.process.poll() is None]
        for id, stub, was in before:
            wait_for(f"further steps of {id}", lambda stub=stub, was=was: rows(stub) >= was + n_rows)

    def whole(self, replication):
        """Waits until as many living nodes have every expert, and nobody else has one."""
        def is_whole():
            owners = self.owners()
            return owners and all(len(o) >= replication and o <= set(self.nodes) for o in owners)
        wait_for(f"{replication} copies of every expert on {', '.join(sorted(self.nodes))}", is_whole)

    def serves(self, id):
        """Waits until rows are computed by the node. The figure starts again with each connection."""
        def rows():
            return sum(n.rows for n in self.living()[0].admin("GetCluster", "GetClusterResponse").nodes if n.id == id)
        before = rows()
        wait_for(f"rows at {id}", lambda: rows() not in (0, before))

    def etcd_connected(self, id):
        return self.coordinators[id].metrics()["conclave_etcd_connected"] == 1

    # ------------------------------------------------------------------------------------------ the catalogue
    def records(self, prefix):
        """What etcd has under keys that begin so, by the rest of the key."""
        begin = f"/conclave/default/{prefix}".encode()
        key, end = (base64.b64encode(k).decode() for k in (begin, begin + b"\xff"))
        kvs = self.etcd.post("kv/range", key=key, range_end=end).get("kvs", [])
        return {base64.b64decode(kv["key"])[len(begin):].decode(): json.loads(base64.b64decode(kv["value"])) for kv in kvs}

    def catalogue(self):
        return self.records("catalogue").get("", {"number": 0, "log": []})

    def default_experts(self, id):
        """How many experts each layer of the default set of a coordinator has; the set's id."""
        reply = self.stubs[id].admin("ListSets", "ListSetsResponse", set="default", experts=True).sets[0]
        return [len(layer.ids) for layer in reply.experts], reply.id

    # ------------------------------------------------------------------------------------------ etcd
    def etcd_gone(self):
        if self.etcd.process.poll() is None:
            self.etcd.stop(signal.SIGKILL)

    def mark(self):
        """A key that is gone when etcd was wiped, or goes back to what was before."""
        self.etcd.post("kv/put", key="bWFyaw==", value="bWFyaw==")

    def is_marked(self):
        return "kvs" in self.etcd.post("kv/range", key="bWFyaw==")

    @contextlib.contextmanager
    def without_etcd(self, id):
        """etcd is dead, and the coordinator with this name has noticed; gives whether its process has ended."""
        self.etcd_gone()
        wait_for("a coordinator without etcd", lambda: not self.etcd_connected(id))
        yield self.etcd.process.poll() == -signal.SIGKILL
        self.etcd.start()
        wait_for("a coordinator with etcd again", lambda: self.etcd_connected(id))
