"""What a test does to a cluster: kubectl, helm, a release of the chart, and the processes in its pods."""
import contextlib
import json
import os
import subprocess
import time

import yaml

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
CHART = os.path.join(ROOT, "helm", "conclave")
WAIT_S = 300
NAMESPACE = "default"


def run(*command, stdin=None, fails=False):
    """Its standard output. fails: it must end with another code than 0; in return what it said about that."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=2 * WAIT_S)
    if (done.returncode != 0) != fails:
        raise AssertionError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stderr if fails else done.stdout


def kubectl(*words, **how):
    return run("kubectl", *words, **how)


def apply(*objects):
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


def get(*words):
    return json.loads(kubectl("get", *words, "-o", "json"))


def until(what, condition):
    """What the condition gives, once that is something. A server that gives no answer for the moment is asked again."""
    end, why = time.monotonic() + WAIT_S, ""
    while True:
        try:
            if found := condition():
                return found
        except AssertionError as error:
            why = f": {error}"
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {WAIT_S} s{why}")
        time.sleep(0.2)


@contextlib.contextmanager
def forwarded(what, port):
    """`kubectl port-forward`, from the moment that it takes connections."""
    forward = subprocess.Popen(["kubectl", "port-forward", what, str(port)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        line = forward.stdout.readline()
        if not line.startswith("Forwarding from 127.0.0.1"):
            raise AssertionError(f"kubectl port-forward {what} {port}: {line}{forward.stdout.read()}")
        yield
    finally:
        forward.kill()
        forward.wait()
        forward.stdout.close()


def process_of(pod, program):
    """Of the container that runs now. Its own number, not the one that it has in its pod."""
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # gone meanwhile
            with open(f"/proc/{entry}/environ", "rb") as environ, open(f"/proc/{entry}/cmdline", "rb") as words:
                if f"CONCLAVE_ID={pod}".encode() in environ.read().split(b"\0") and words.read().split(b"\0")[0].endswith(program.encode()):
                    return int(entry)
    raise AssertionError(f"no process {program} of {pod}")


class Release:
    def __init__(self, name, values):
        self.name, self.values = name, values

    # ------------------------------------------------------------------------------------------ helm
    def helm(self, verb, *words, values=None, **how):
        """install or upgrade, with the values; in return when all is ready."""
        return run("helm", verb, self.name, CHART, "--wait", "--timeout", f"{WAIT_S}s", "--values", "-", *words,
                   stdin=yaml.safe_dump(values or self.values), **how)

    def uninstall(self):
        run("helm", "uninstall", self.name, "--wait", "--timeout", f"{WAIT_S}s")

    def test(self):
        return run("helm", "test", self.name, "--logs")

    def revision(self):
        return json.loads(run("helm", "history", self.name, "-o", "json"))[-1]["revision"]

    # ------------------------------------------------------------------------------------------ its objects
    def pods(self, component):
        """By name, those that are not on their way out."""
        found = get("pods", "-l", f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component={component}")["items"]
        return {pod["metadata"]["name"]: pod for pod in found if "deletionTimestamp" not in pod["metadata"]}

    def all_pods(self):
        """But that of `helm test`, which stays until the next test, also when the release is uninstalled."""
        found = get("pods", "-l", f"app.kubernetes.io/instance={self.name}")["items"]
        return [pod for pod in found if "helm.sh/hook" not in pod["metadata"].get("annotations", {})]

    def ready(self, component):
        """Names of the pods that are."""
        return {name for name, pod in self.pods(component).items()
                if any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", []))}

    def restarts(self, pod):
        return sum(c["restartCount"] for c in get("pod", pod)["status"].get("containerStatuses", []))

    def uid(self, pod):
        found = json.loads(kubectl("get", "pod", pod, "--ignore-not-found", "-o", "json") or "null")
        return found and found["metadata"]["uid"]

    def coordinator(self):
        return sorted(self.pods("coordinator"))[0]

    def address(self):
        """Of the Service: it stays as long as the release does."""
        return get("service", f"{self.name}-coordinator")["spec"]["clusterIP"] + ":50051"
