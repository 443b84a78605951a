"""What the Python tests share: a coordinator process and the command line beside it."""
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request

WAIT_S = 300


def clean_env():
    """Without our own variables; a sanitizer's quarantine is kept small, so that resident memory tells something."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("CONCLAVE_")}
    env["ASAN_OPTIONS"] = ":".join(filter(None, [env.get("ASAN_OPTIONS"), "quarantine_size_mb=2", "thread_local_quarantine_size_kb=64"]))
    return env


def free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def resident_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def resident_of_file_kib(pid, suffix):
    """How much of the mapped files of this name is in the process's memory."""
    total, inside = 0, False
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as smaps:
        for line in smaps:
            if "-" in line.split()[0]:
                inside = line.rstrip().endswith(suffix)
            elif inside and line.startswith("Rss:"):
                total += int(line.split()[1])
    return total


def first_line(process):
    """Of its standard output; a process that does not come to it is killed."""
    timer = threading.Timer(WAIT_S, process.kill)
    timer.start()
    try:
        return process.stdout.readline()
    finally:
        timer.cancel()


def wait_for(what):
    """The first value of a question that is one."""
    end = time.monotonic() + WAIT_S
    while not (value := what()):
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.05)
    return value


class Coordinator:
    """Starts PROGRAM --model DIR on a free port and waits for its READY line. Logs are kept in .log."""

    def __init__(self, program, model, *args):
        self.process = subprocess.Popen([program, "--model", model, "--listen", "127.0.0.1:0", *args], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, encoding="utf-8", env=clean_env())
        self.log = []
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True)
        self.reader.start()
        line, is_ready = [], False
        try:
            line = first_line(self.process).split()
            is_ready = len(line) == 2 and line[0] == "READY"
        finally:  # Ctrl-C included: nobody else knows the process yet
            if not is_ready:
                self.process.kill()
                self.process.wait()
                self.close()
        if not is_ready:
            raise RuntimeError(f"the coordinator printed {line}: {''.join(self.log)[-2000:]}")
        self.address = line[1]

    def log_match(self, pattern):
        """The first match in the log; waits for the line to come."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            found = re.search(pattern, "".join(list(self.log)))
            if found:
                return found
            time.sleep(0.01)
        raise RuntimeError(f"no {pattern} in the log: {''.join(self.log)}")

    def resident_kib(self):
        return resident_kib(self.process.pid)

    def metrics(self):
        """Of a coordinator with --http: values by name and labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.log_match(r'http on port ([0-9]+)').group(1)}/metrics", timeout=WAIT_S) as page:
            lines = page.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}

    def stop(self, how=signal.SIGTERM):
        """The exit code and whatever else was printed on standard output."""
        self.process.send_signal(how)
        try:
            code = self.process.wait(timeout=WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        return code, self.close()

    def end(self):
        """Waits for it to end by itself: its exit code."""
        code = self.process.wait(timeout=WAIT_S)
        self.close()
        return code

    def close(self):
        self.reader.join()
        self.process.stderr.close()
        rest = self.process.stdout.read()
        self.process.stdout.close()
        return rest

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()


# The 64-bit fields of the API: proto3 JSON writes them as strings, since most readers of JSON keep 53 bits.
WIDE = {"seed", "incarnation", "epoch", "tokens", "rows", "frames", "memory_bytes", "used_bytes", "bytes_not_sent", "rows_by_ffn_picks", "ffn_picks",
        "constant_picks", "copy_picks", "zero_picks", "attention_keys_seen", "attention_keys_skipped"}


def whole(value):
    if isinstance(value, list):
        return [whole(element) for element in value]
    return int(value) if isinstance(value, str) else value


def parse_reply(line):
    """One line of `conclave COMMAND --json`, with 64-bit fields as integers."""
    return json.loads(line, object_hook=lambda fields: {k: whole(v) if k in WIDE else v for k, v in fields.items()})


def run_json(conclave, coordinator, command, *args):
    """The objects that `conclave COMMAND --json` prints, one a line."""
    done = subprocess.run([conclave, command, "--server", coordinator.address, "--json", *args], capture_output=True, encoding="utf-8",
                          timeout=WAIT_S, env=clean_env())
    if done.returncode != 0:
        raise RuntimeError(f"conclave {command} exited {done.returncode}: {done.stderr}")
    return [parse_reply(line) for line in done.stdout.splitlines()]
