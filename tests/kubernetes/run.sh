#!/bin/bash
# A real Kubernetes of one machine, for as long as a command runs in it. Everything lives in namespaces of its own (processes, mounts,
# network), files in memory: when this script ends, or is killed, the kernel ends all of it. What it needs is installed and built, once.
#
# usage: tests/kubernetes/run.sh BIN_DIR [COMMAND...]     by default tests/kubernetes/e2e.py; `bash` for a look around: helm and kubectl are at hand,
#                                                         and the images localhost/conclave and localhost/conclave-etcd are there
# Root, on amd64 with control groups of version 1 (or both). Elsewhere, and where packages cannot be had, it says so and ends with code 0.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
bin=$(readlink -f "$1")
shift
[ $# -gt 0 ] || set -- /usr/bin/python3 -B "$here/e2e.py" "$bin"

skip() { echo "chart-e2e: skipped: $*"; exit 0; }
[ "$(id -u)" = 0 ] || skip "containers need root"
[ "$(uname -m)" = x86_64 ] || skip "Helm and kubectl are at hand for amd64 alone"
"$root/tools/install_packages.sh" test kubernetes >&2 || skip "the packages [kubernetes] of packages.txt cannot be installed here"
unshare --fork --pid --mount-proc --mount --net --kill-child true 2>/dev/null || skip "namespaces of processes, mounts and networks cannot be made here"
hierarchies=$(awk '$3 == "cgroup" || $3 == "cgroup2" {print $2}' /proc/mounts)
grep -q ' cgroup .*memory' /proc/mounts || skip "there are no control groups of version 1, which this kubelet was tried with"
tools=$("$root/tools/get_helm.py") || skip "helm and kubectl cannot be had"
programs=$("$root/tools/get_kubernetes.sh") || skip "Kubernetes cannot be built here"

group=conclave-kubernetes-$$
work=""
cluster=""
remove_groups() { # name pattern
    local hierarchy
    for hierarchy in $hierarchies; do find "$hierarchy" -mindepth 1 -depth -type d -path "$hierarchy/$1*" -exec rmdir {} + 2>/dev/null || true; done
}
end() {
    [ -z "$cluster" ] || { kill -KILL "$cluster" 2>/dev/null; wait "$cluster" 2>/dev/null; } || true
    for _ in $(seq 50); do # the last processes may be on their way out
        remove_groups "$group"
        compgen -G "/sys/fs/cgroup/*/$group" >/dev/null || break
        sleep 0.2
    done
    [ -z "$work" ] || rmdir "$work"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
for old in /sys/fs/cgroup/*/conclave-kubernetes-*; do # of a run that was killed
    [ ! -d "$old" ] || kill -0 "${old##*-}" 2>/dev/null || remove_groups "${old##*/}"
done
for hierarchy in $hierarchies; do
    mkdir "$hierarchy/$group" 2>/dev/null || skip "control groups cannot be made in $hierarchy"
    # A group of cpuset has no cores until it is told.
    for file in cpuset.cpus cpuset.mems; do [ ! -e "$hierarchy/$file" ] || cat "$hierarchy/$file" >"$hierarchy/$group/$file"; done
done
work=$(mktemp -d) # a place for a mount: files are never in it
# Whoever kills this script kills the first process of the namespaces, and with it all others.
setpriv --pdeathsig KILL unshare --fork --pid --mount-proc --mount --net --kill-child=KILL \
    env PATH="$tools:$PATH" KUBE_GROUP="/$group" "$here/cluster.sh" "$bin" "$programs" "$work" "$@" <&0 &
cluster=$!
code=0
wait "$cluster" || code=$?
cluster=""
exit "$code"
