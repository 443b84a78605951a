"""What goes wrong on purpose. Every fault can tell whether it took effect."""
import contextlib
import os
import signal
import socket
import threading
import time

from members import on_host


# ---------------------------------------------------------------------------------------------- processes
def state(pid):
    """R, S, T and so on, of proc(5)."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        return stat.read().rpartition(")")[2].split()[0]


def wait_for_state(pid, stopped, seconds=5):
    """The kernel stops a process when its threads have left what they were doing."""
    end = time.monotonic() + seconds
    while (state(pid) == "T") != stopped and time.monotonic() < end:
        time.sleep(0.0005)
    return (state(pid) == "T") == stopped


@contextlib.contextmanager
def stopped(pid):
    """Gives whether it stands still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield wait_for_state(pid, True)
    finally:
        os.kill(pid, signal.SIGCONT)


class Slowed:
    """A process that may run for 10 of every 100 ms. share(): of the time that has passed, how much it stood still."""

    ON_S, OFF_S = 0.010, 0.090

    def __init__(self, pid):
        self.pid, self.stood, self.begun, self.done = pid, 0.0, time.monotonic(), threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)

    def work(self):
        while not self.done.is_set():
            with stopped(self.pid) as took:
                since = time.monotonic()
                self.done.wait(self.OFF_S)
                self.stood += (time.monotonic() - since) if took else 0
            self.done.wait(self.ON_S)

    def share(self):
        return self.stood / (time.monotonic() - self.begun)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


# ---------------------------------------------------------------------------------------------- the network
NOWHERE = "02:00:00:00:00:01"  # a hardware address that nobody has: what is sent there is lost without a word


class Partition:
    """Between hosts of members.Hosts: what one sends to another is lost, one way or both."""

    def __init__(self, hosts):
        self.hosts = hosts

    def device(self, i):
        return "bridge" if i == 0 else "wire"

    @contextlib.contextmanager
    def cut(self, *ways):
        """ways: pairs (from, to). Gives whether just these are lost, of all ways between the hosts named."""
        for a, b in ways:
            self.hosts.ip("neigh", "replace", self.hosts.address(b), "lladdr", NOWHERE, "dev", self.device(a), "nud", "permanent", host=a)
        try:
            yield all(self.reaches(a, b) != ((a, b) in ways) for pair in ways for a, b in (pair, pair[::-1]))
        finally:
            for a, b in ways:
                self.hosts.ip("neigh", "del", self.hosts.address(b), "dev", self.device(a), host=a)

    def reaches(self, a, b):
        """Whether a datagram arrives."""
        def socket_at(i):
            s = on_host(self.hosts.names[i], lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            s.bind((self.hosts.address(i), 0))
            s.settimeout(0.2)
            return s

        with socket_at(a) as sender, socket_at(b) as receiver:
            for _ in range(3):
                sender.sendto(b"?", receiver.getsockname())
                with contextlib.suppress(TimeoutError):
                    return receiver.recv(1) == b"?"
        return False
