"""The other processes of a cluster, for the Python tests: etcd, expert nodes, and hosts to run them on."""
import base64
import contextlib
import ctypes
import functools
import json
import os
import selectors
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request

from coordinator import WAIT_S, clean_env, first_line, free_ports

CLONE_NEWNET = 0x40000000


class Etcd:
    def __init__(self, folder, host="127.0.0.1", program="etcd", certificates=None, name="test", run=True):
        self.folder, self.program, self.certificates, self.name = folder, program, certificates, name
        client, peer = free_ports(2)
        self.url, self.peer = f"{'https' if certificates else 'http'}://{host}:{client}", f"http://{host}:{peer}"
        if run:
            self.start()

    def start(self, members=None):
        quick = [] if members else ["--heartbeat-interval", "20", "--election-timeout", "200"]  # alone, it waits that long before it elects itself
        self.process = subprocess.Popen(
            [self.program, "--name", self.name, "--data-dir", self.folder, "--log-level", "error", "--listen-client-urls", self.url,
             "--advertise-client-urls", self.url, "--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.peer,
             "--initial-cluster", members or f"{self.name}={self.peer}", *quick, *self.tls()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait()

    def put(self, key, value):
        """A key under a lease of an hour."""
        self.post("kv/put", key=base64.b64encode(key.encode()).decode(), value=base64.b64encode(value.encode()).decode(),
                  lease=self.post("lease/grant", TTL=3600)["ID"])

    def tls(self):
        if self.certificates is None:
            return []
        file = functools.partial(os.path.join, self.certificates)
        return ["--cert-file", file("server.pem"), "--key-file", file("server.key"), "--trusted-ca-file", file("ca.pem"), "--client-cert-auth"]

    def context(self):
        if self.certificates is None:
            return None
        file = functools.partial(os.path.join, self.certificates)
        context = ssl.create_default_context(cafile=file("ca.pem"))
        context.load_cert_chain(file("client.pem"), file("client.key"))
        return context

    def post(self, path, **body):
        """The reply; waits for etcd to be there."""
        context = self.context()
        end = time.monotonic() + WAIT_S
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/v3/{path}", json.dumps(body).encode(), timeout=WAIT_S, context=context) as reply:
                    return json.loads(reply.read())
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)


class Process:
    """One conclave-node. It is registered first, and ready when a coordinator has reached it; the log is kept."""

    def __init__(self, program, *args):
        self.process = subprocess.Popen([program, "--threads", "1", "--drain-timeout-ms", "2000", *args],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", env=clean_env())
        self.log = []
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True)
        self.reader.start()

    def says(self, words):
        """Waits for a line of the log."""
        end = time.monotonic() + WAIT_S
        while not any(words in line for line in list(self.log)):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the node did not say {words!r}: {''.join(self.log)[-2000:]}")
            time.sleep(0.01)
        return self

    def registered(self):
        return self.says(" is registered")

    def ready(self):
        line = first_line(self.process).split()
        if len(line) != 2 or line[0] != "READY":
            raise RuntimeError(f"the node printed {line}: {self.end()[1][-2000:]}")
        self.address = line[1]
        return self

    def end(self):
        """Waits for the process to end by itself: its exit code and log."""
        code = self.process.wait(timeout=WAIT_S)
        self.reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        return code, "".join(self.log)

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.end()


class Hosts:
    """Hosts of one machine, network namespaces joined by a bridge inside the first. OSError: they cannot be made here."""

    def __init__(self, folder, n=3):
        self.folder, self.names, self.made = folder, [f"conclave-{os.getpid()}-{i}" for i in range(n)], []
        try:
            self.make()
        except BaseException as error:
            self.close()
            if isinstance(error, (OSError, subprocess.CalledProcessError)):
                raise OSError(f"network namespaces cannot be made here: {error}") from error
            raise

    def make(self):
        for name in self.names:
            self.ip("netns", "add", name)
            self.made.append(name)
        self.ip("link", "add", "bridge", "type", "bridge", host=0)
        self.ip("address", "add", f"{self.address(0)}/24", "dev", "bridge", host=0)
        for link in ("lo", "bridge"):
            self.ip("link", "set", link, "up", host=0)
        for i, name in list(enumerate(self.names))[1:]:
            self.ip("link", "add", f"to{i}", "type", "veth", "peer", "name", "wire", "netns", name, host=0)
            self.ip("link", "set", f"to{i}", "master", "bridge", "up", host=0)
            self.ip("address", "add", f"{self.address(i)}/24", "dev", "wire", host=i)
            for link in ("lo", "wire"):
                self.ip("link", "set", link, "up", host=i)

    def ip(self, *args, host=None):
        subprocess.run(["ip", *(["-n", self.names[host]] if host is not None else []), *args], check=True, capture_output=True)

    def address(self, i):
        return f"10.213.0.{i + 1}"

    def program(self, i, program):
        """A program that runs the given one there."""
        path = os.path.join(self.folder, f"{os.path.basename(program)}-on-{self.names[i]}")
        with open(path, "w", encoding="utf-8") as f:
            f.write(f'#!/bin/sh\nexec ip netns exec {self.names[i]} {os.path.abspath(program)} "$@"\n')
        os.chmod(path, 0o755)
        return path

    def close(self):
        for name in self.made:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def on_host(name, work):
    """What work() returns in the network namespace of this name (None: where we are). A thread of its own enters it."""
    if name is None:
        return work()
    result = []

    def enter():
        fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"namespace {name} cannot be entered")
            result.append(work())
        finally:
            os.close(fd)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if not result:
        raise OSError(f"nothing came of it in namespace {name}")
    return result[0]


class Forwarder:
    """A port of ours that leads to another one, maybe on another host, until it is cut: connections end and new ones are refused."""

    def __init__(self, target, host=None):
        """target: HOST:PORT; host: the network namespace from which it is called."""
        name, port = target.rsplit(":", 1)
        self.target, self.host = (name, int(port)), host
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.selector, self.other = selectors.DefaultSelector(), {}
        self.is_cut, self.is_closed = threading.Event(), threading.Event()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        while not self.is_closed.is_set():
            for key, _ in self.selector.select(0.02):
                if key.fileobj is self.listener:
                    self.accept()
                elif key.fileobj in self.other:
                    self.pump(key.fileobj)
            if self.is_cut.is_set():
                for end in list(self.other):
                    self.drop(end)
        for end in list(self.other):
            self.drop(end)
        self.listener.close()

    def accept(self):
        near = self.listener.accept()[0]
        try:
            far = None if self.is_cut.is_set() else on_host(self.host, lambda: socket.create_connection(self.target, 5))
        except OSError:
            far = None
        if far is None:
            near.close()
            return
        for a, b in ((near, far), (far, near)):
            a.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            a.settimeout(5)
            self.other[a] = b
            self.selector.register(a, selectors.EVENT_READ)

    def pump(self, end):
        try:
            data = end.recv(1 << 16)
            self.other[end].sendall(data)
        except OSError:
            data = b""
        if not data:
            self.drop(end)

    def drop(self, end):
        other = self.other.pop(end, None)
        if other is not None:
            self.selector.unregister(end)
            end.close()
            self.drop(other)

    @contextlib.contextmanager
    def cut(self):
        self.is_cut.set()
        try:
            yield
        finally:
            self.is_cut.clear()

    def close(self):
        self.is_closed.set()
        self.thread.join()
