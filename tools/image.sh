#!/bin/bash
# The container image, FROM scratch: the three programs, the libraries that they load, CA certificates, two lines of
# passwd. No shell, no package manager; runs as 65532. Built by buildah, without an engine and without a registry.
#
# usage: tools/image.sh BIN_DIR OUT.tar [NAME:TAG]     OUT.tar: an OCI archive (ctr image import, podman load, skopeo copy)
#   RDMA=1               UCX's modules for InfiniBand and RoCE and the verbs providers as well
#   SOURCE_DATE_EPOCH    seconds since 1970 of every file and of the image; default 0
# The same programs and packages give the same image, byte for byte: its id is the last line that this prints.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
bin=$(readlink -f "$1") out=$2
version=$("$bin/conclave" --version | cut -d' ' -f2)
tag=${3:-localhost/conclave:$version}
epoch=${SOURCE_DATE_EPOCH:-0}
command -v buildah >/dev/null || { echo "buildah is missing: make packages-image installs it" >&2; exit 1; }
work=$(mktemp -d)
container=""
trap '[ -z "$container" ] || buildah rm "$container" >/dev/null; rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{usr/bin,usr/lib,usr/share/conclave,etc/ssl/certs,tmp,proc,sys,dev}
ln -s usr/lib "$root/lib"

for program in conclave conclave-coordinator conclave-node; do
    install -m 755 -s "$bin/$program" "$root/usr/bin/$program"
done

# Modules that nothing links: UCX and libibverbs open them by name.
libraries=$(dirname "$(ldconfig -p | awk '$1 == "libucp.so.0" {print $NF; exit}')")
modules=()
if [ "${RDMA:-0}" = 1 ]; then
    modules=("$libraries"/ucx/libuct_{ib,rdmacm}.so.0 "$libraries"/libibverbs/*.so)
    [ -e "${modules[0]}" ] || { echo "RDMA=1: no ${modules[0]} on this machine" >&2; exit 1; }
    mkdir -p "$root/etc/libibverbs.d"
    cp -r /etc/libibverbs.d/. "$root/etc/libibverbs.d/"
fi
# Every object, under the path that the loader finds it by.
put() { # path
    local folder
    folder=$(readlink -f "$(dirname "$1")")
    mkdir -p "$root$folder"
    install -m 755 "$(readlink -f "$1")" "$root$folder/$(basename "$1")"
}
for module in "${modules[@]}"; do
    put "$module"
    case $module in */ucx/*) ln -sf "$(basename "$module")" "$root$(readlink -f "$(dirname "$module")")/$(basename "$module" .0)" ;; esac
done
ldd "$root"/usr/bin/* "${modules[@]}" | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u >"$work/objects"
while read -r object; do put "$object"; done <"$work/objects"
loader=$(LC_ALL=C readelf -l "$bin/conclave" | sed -n 's/.*interpreter: \(.*\)]/\1/p')
mkdir -p "$root$(dirname "$loader")"
install -m 755 "$(readlink -f "$loader")" "$root$loader"

cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
printf 'root:x:0:0::/:/nonexistent\nconclave:x:65532:65532::/:/nonexistent\n' >"$root/etc/passwd"
printf 'root:x:0:\nconclave:x:65532:\n' >"$root/etc/group"
# What is in here, for those who look for known faults in it. A package may name a file without the /usr that it is under now.
{ xargs -a "$work/objects" readlink -f; xargs -a "$work/objects" readlink -f | sed 's#^/usr##'; } >"$work/paths"
{ xargs -a "$work/paths" dpkg -S 2>/dev/null || true; } | cut -d: -f1 | sort -u >"$work/packages"
xargs -a "$work/packages" dpkg-query -W -f='${Package} ${Version} ${Architecture}\n' >"$root/usr/share/conclave/packages"
chmod 1777 "$root/tmp"
find "$root" -exec touch -h -d "@$epoch" {} +

container=$(buildah from scratch)
buildah copy -q "$container" "$root" / >/dev/null
buildah config --user 65532:65532 --workingdir / --port 50051 --port 7400 --port 8080 --entrypoint '[]' --cmd /usr/bin/conclave-coordinator \
    --label org.opencontainers.image.title=conclave --label "org.opencontainers.image.version=$version" \
    --label org.opencontainers.image.licenses=Apache-2.0 "$container"
id=$(buildah commit -q --timestamp "$epoch" "$container" "$tag")
buildah push -q "$tag" "oci:$work/oci:$tag"
tar -C "$work/oci" --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner --mode=go=rX -cf "$out" .
echo "$tag: $(du -h "$out" | cut -f1) in $out, $(du -sh --apparent-size "$root" | cut -f1) unpacked, $(wc -l <"$work/objects") libraries"
echo "$id"
