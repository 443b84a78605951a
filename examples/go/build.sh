#!/bin/bash
# examples/go/build.sh: builds build/go/stream with what Debian has, and no network:
#     apt-get install golang-go golang-google-grpc-dev golang-google-protobuf-dev protoc-gen-go protoc-gen-go-grpc protobuf-compiler
# With a newer grpc in a module of yours, make the stubs with the same protoc command and require google.golang.org/grpc and
# google.golang.org/protobuf; --go_opt=Mconclave/v1/inference.proto=YOUR/PATH and its like name another import path.
set -euo pipefail
cd "$(dirname "$0")/../.."
debian=${GOCODE:-/usr/share/gocode} # where golang-*-dev packages are
missing=()

need() { # command or directory, package
    command -v "$1" >/dev/null || [ -d "$1" ] || missing+=("$2")
}
need go golang-go
need protoc protobuf-compiler
need protoc-gen-go protoc-gen-go
need protoc-gen-go-grpc protoc-gen-go-grpc
need "$debian/src/google.golang.org/grpc" golang-google-grpc-dev
need "$debian/src/google.golang.org/protobuf" golang-google-protobuf-dev
if [ ${#missing[@]} -gt 0 ]; then
    echo "examples/go: missing; to install: apt-get install ${missing[*]}" >&2
    exit 77
fi

out=${1:-build/go}
mkdir -p "$out/src/conclave-stream"
protoc -Iproto --go_out="$out/src" --go-grpc_out="$out/src" conclave/v1/inference.proto conclave/v1/admin.proto
cp examples/go/main.go "$out/src/conclave-stream/"
root=$(realpath "$out")
GO111MODULE=off GOFLAGS= GOPATH="$root:$debian" go vet conclave-stream
GO111MODULE=off GOFLAGS= GOPATH="$root:$debian" go build -o "$out/stream" conclave-stream
echo "built: $out/stream"
