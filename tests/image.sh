#!/bin/bash
# The image of tools/image.sh: the same bytes twice, nothing but what belongs there, and programs that run in it as a
# stranger without rights. usage: tests/image.sh BIN_DIR
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
container=""
trap '[ -z "$container" ] || buildah rm "$container" >/dev/null; buildah rmi -f localhost/conclave-test:0 >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
n_passed=0 n_failed=0
check() { # what, command...
    local what=$1
    shift
    if "$@"; then echo "passed: $what"; n_passed=$((n_passed + 1)); else echo "failed: $what"; n_failed=$((n_failed + 1)); fi
}

for i in 1 2; do "$here/tools/image.sh" "$1" "$work/$i.tar" localhost/conclave-test:0 | tail -n 1 >"$work/$i.id"; done
check "the same id twice" cmp "$work/1.id" "$work/2.id"
check "the same archive twice" cmp "$work/1.tar" "$work/2.tar"

container=$(buildah from localhost/conclave-test:0)
root=$(buildah mount "$container")
check "it runs as nobody of the host" test "$(buildah inspect --format '{{.OCIv1.Config.User}}' "$container")" = 65532:65532
check "nothing in it is set-uid, nor writable but /tmp" test -z "$(find "$root" -xdev \( -perm /6000 -o \( ! -type l -perm /022 ! -path "$root/tmp" \) \) -print)"
check "no shell in it" test -z "$(find "$root" -xdev \( -name sh -o -name bash -o -name busybox \) -print)"
# From a folder of its own: what the programs need comes from the image alone.
for program in conclave conclave-coordinator conclave-node; do
    check "$program finds its libraries" chroot --userspec=65532:65532 "$root" "/usr/bin/$program" --version
done
cp -r "$here/tests/vectors/olmoe-gqa" "$root/model"
chmod -R go+rX "$root/model"
check "it reads a checkpoint" chroot --userspec=65532:65532 "$root" /usr/bin/conclave manifest /model --cache-dir /tmp/cache
echo "$n_passed passed, $n_failed failed"
[ "$n_failed" -eq 0 ]
