#!/bin/bash
# Kubernetes 1.20.2 for a cluster of one machine: kube-apiserver, kube-controller-manager, kube-scheduler, kubelet and kube-proxy,
# built from the source package of Debian 12, which has no newer one and ships no programs of it. Once: about 12 minutes on two cores.
# They are kept outside of the checkout, in $XDG_CACHE_HOME/conclave or ~/.cache/conclave. Prints their directory.
# Packages: the group [kubernetes] of packages.txt.
#
# usage: tools/get_kubernetes.sh
set -euo pipefail
package=1.20.5+really1.20.2
version=1.20.2
sha256=b83c0780efb182d928dc63d46488a847f161f04e40a94b96bf5247dd671ecdfc
programs="kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy"

case ${XDG_CACHE_HOME:-} in /*) cache=$XDG_CACHE_HOME ;; *) cache=~/.cache ;; esac
mkdir -p "$cache/conclave"
cache=$(readlink -f "$cache")/conclave
place=$cache/kubernetes-$version-1 # another number when what is below changes
work=$cache/kubernetes-$version.build
[ -d "$place" ] && { echo "$place"; exit 0; }
exec 9>"$cache/kubernetes.lock"
flock 9
[ -d "$place" ] && { echo "$place"; exit 0; }
mkdir -p "$work"
cd "$work"

# The source, by an apt of our own: the machine's lists stay as they are.
source=$work/gopath/src/k8s.io/kubernetes
if ! [ -d "$source" ]; then
    mkdir -p apt/{lists,archives}/partial apt/sources gopath/src/k8s.io
    printf '%s\n' 'Types: deb-src' 'URIs: http://deb.debian.org/debian' 'Suites: bookworm' 'Components: main' \
        'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg' >apt/sources/debian.sources
    cat >apt/apt.conf <<END
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$work/apt/sources";
Dir::State::lists "$work/apt/lists";
Dir::Cache "$work/apt";
APT::Sandbox::User "$(id -un)";
END
    APT_CONFIG=$work/apt/apt.conf apt-get update -q >&2
    APT_CONFIG=$work/apt/apt.conf apt-get source -q --download-only kubernetes >&2
    echo "$sha256  kubernetes_$package.orig.tar.gz" | sha256sum -c - >&2
    mkdir -p unpacked
    tar xzf "kubernetes_$package.orig.tar.gz" -C unpacked --strip-components=1
    # The one vendored library that Go 1.18 and later cannot build; Debian has a later version of it.
    rm -rf unpacked/vendor/github.com/modern-go/reflect2
    cp -rT /usr/share/gocode/src/github.com/modern-go/reflect2 unpacked/vendor/github.com/modern-go/reflect2
    mv unpacked "$source" # whole or not at all
fi

cd "$source"
export PATH=/usr/lib/go-1.19/bin:$PATH GOPATH=$work/gopath GO111MODULE=off GOCACHE=$work/gocache CGO_ENABLED=0
# Without the clouds' and Docker's libraries, which are a third of it. Memory is cheaper here than collecting it.
export GOFLAGS="-trimpath -tags=providerless,dockerless" GOGC=400
# The one generated file that the package lacks: the types as OpenAPI.
generated=pkg/generated/openapi/zz_generated.openapi.go
if ! [ -s $generated ]; then
    go build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
    folders=$(grep -rlE '^// \+k8s:openapi-gen=' --include='*.go' pkg cmd plugin vendor/k8s.io/*/ staging/src/k8s.io 2>/dev/null |
        grep -v -e /testdata/ -e _test.go | xargs -n1 dirname |
        sed -e 's#^staging/src/##' -e 's#^vendor/##' -e '/^k8s.io\//!s#^#k8s.io/kubernetes/#' |
        grep -v -e /kube-openapi/ -e sample- -e /code-generator/ -e apiserver/pkg/apis/example | sort -u | paste -sd,)
    nice -n 5 "$work/openapi-gen" --logtostderr -i "$folders" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
        --go-header-file hack/boilerplate/boilerplate.generatego.txt -r "$work/violations" >&2
fi
# Without its version a server says v0.0.0, and Helm believes it.
stamp="-s -w"
for room in {,k8s.io/kubernetes/vendor/}k8s.io/{component-base/version,client-go/pkg/version}; do
    stamp="$stamp -X $room.gitVersion=v$version -X $room.gitMajor=1 -X $room.gitMinor=20 -X $room.gitTreeState=clean"
    stamp="$stamp -X $room.gitCommit=debian-$package -X $room.buildDate=1970-01-01T00:00:00Z"
done
for program in $programs; do
    echo "building $program of Kubernetes $version" >&2
    nice -n 5 go build -ldflags "$stamp" -o "$work/bin/$program" "./cmd/$program" >&2
done
mv "$work/bin" "$place" # whole or not at all
chmod -R u+w "$work"
rm -rf "$work"
echo "$place"
