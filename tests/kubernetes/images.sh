#!/bin/bash
# The images that the cluster runs, as archives that containerd imports: Conclave's own by tools/image.sh; Debian's etcd, and a process that
# waits, which holds a pod's namespaces. All FROM scratch. usage: images.sh BIN_DIR OUT_DIR
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
out=$2
mkdir -p "$out"
work=$(mktemp -d)
container=""
trap '[ -z "$container" ] || buildah rm "$container" >/dev/null; rm -rf "$work"' EXIT

pack() { # name, command: the folder $work/NAME as an image
    container=$(buildah from scratch)
    buildah copy -q "$container" "$work/$1" / >/dev/null
    buildah config --user 65532:65532 --entrypoint '[]' --cmd "$2" "$container"
    buildah commit -q "$container" "localhost/$1:e2e" >/dev/null
    buildah rm "$container" >/dev/null
    container=""
    buildah push -q "localhost/$1:e2e" "docker-archive:$out/$1.tar:localhost/$1:e2e"
}

"$root/tools/image.sh" "$1" "$out/conclave.tar" localhost/conclave:e2e

mkdir -p "$work/pause"
printf '%s\n' '#include <signal.h>' '#include <unistd.h>' 'static void end(int s) { (void)s; _exit(0); }' \
    'int main(void) { signal(SIGTERM, end); signal(SIGINT, end); for (;;) pause(); }' >"$work/pause.c"
gcc -Os -static -o "$work/pause/pause" "$work/pause.c"
pack pause /pause

etcd=$work/conclave-etcd
mkdir -p "$etcd"/{usr/bin,tmp,proc,sys,dev}
install -m 755 "$(command -v etcd)" "$etcd/usr/bin/"
{ ldd "$etcd/usr/bin/etcd" | awk '$2 == "=>" && $3 ~ /^\// {print $3}'; ldd "$etcd/usr/bin/etcd" | awk '$1 ~ /^\/.*ld-linux/ {print $1}'; } |
    while read -r object; do install -m 755 -D "$(readlink -f "$object")" "$etcd$object"; done
chmod 1777 "$etcd/tmp"
pack conclave-etcd /usr/bin/etcd
