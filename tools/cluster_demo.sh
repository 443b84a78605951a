#!/bin/bash
# make cluster-demo: a cluster on this machine. etcd, three expert nodes and a coordinator answer the prompt of `make demo`; then one
# process alone answers it, and the tokens and their log-probabilities must be equal bit for bit. Everything is taken down again.
set -euo pipefail
cd "$(dirname "$0")/.."
prompt=${PROMPT:-"A mixture of experts is"}
bin=${BIN:-bin}
nodes="node-a node-b node-c"

command -v etcd >/dev/null || { echo "etcd is missing: apt-get install etcd-server" >&2; exit 1; }
model=$(tools/demo_model.sh "${1:-}")

work=$(mktemp -d)
pids=()
declare -A pid_of
cleanup() {
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do # the coordinator first, etcd last
        kill "${pids[i]}" 2>/dev/null || true
        wait "${pids[i]}" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap cleanup EXIT

start() { # name, command...: in the background; standard output and the log in files of that name
    local name=$1
    shift
    "$@" >"$work/$name.out" 2>"$work/$name.log" &
    pids+=($!)
    pid_of[$name]=$!
}

ready() { # name: the address of its READY line
    until grep -q '^READY' "$work/$1.out"; do
        kill -0 "${pid_of[$1]}" 2>/dev/null || { echo "$1 stopped:" >&2; cat "$work/$1.log" >&2; exit 1; }
        sleep 0.05
    done
    sed -n 's/^READY //p' "$work/$1.out"
}

free_ports() {
    /usr/bin/python3 -c 'import socket
s = [socket.socket() for _ in range(2)]
for x in s: x.bind(("127.0.0.1", 0))
print(*(x.getsockname()[1] for x in s))'
}

read -r client peer < <(free_ports)
etcd=http://127.0.0.1:$client
echo "== etcd on $etcd"
start etcd etcd --name demo --data-dir "$work/etcd" --log-level error --listen-client-urls "$etcd" --advertise-client-urls "$etcd" \
    --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
    --initial-cluster "demo=http://127.0.0.1:$peer"

for id in $nodes; do
    echo "== bin/conclave-node --model $model --etcd $etcd --id $id"
    start "$id" "$bin/conclave-node" --model "$model" --etcd "$etcd" --id "$id" --listen 127.0.0.1:0 --threads 1 --drain-timeout-ms 0
done
echo "== bin/conclave-coordinator --model $model --etcd $etcd --min-nodes 3"
start coordinator "$bin/conclave-coordinator" --model "$model" --etcd "$etcd" --id coordinator --min-nodes 3 --listen 127.0.0.1:0 --threads 1
address=$(ready coordinator)

answer() { # address: every token with its log-probability and the one best beside it
    "$bin/conclave" generate --server "$1" --max-tokens 64 --seed 1 --logprobs 2 --json "$prompt" |
        /usr/bin/python3 -c 'import json, sys
for line in sys.stdin:
    for entry in json.loads(line).get("logprobs", []): print(json.dumps(entry))'
}

echo "== bin/conclave generate --server $address --max-tokens 64 --seed 1 \"$prompt\""
printf '%s' "$prompt"
"$bin/conclave" generate --server "$address" --max-tokens 64 --seed 1 --stats "$prompt"
echo
answer "$address" >"$work/cluster.tokens"
sleep 0.2
echo "== bin/conclave nodes"
"$bin/conclave" nodes --server "$address"
echo "== bin/conclave placement"
"$bin/conclave" placement --server "$address"

start alone "$bin/conclave-coordinator" --model "$model" --listen 127.0.0.1:0 --threads 1
answer "$(ready alone)" >"$work/alone.tokens"
[ -s "$work/alone.tokens" ] || { echo "no tokens came" >&2; exit 1; }
if cmp -s "$work/cluster.tokens" "$work/alone.tokens"; then
    echo "== three nodes and one process agree bit for bit: $(wc -l <"$work/alone.tokens") tokens with their log-probabilities"
else
    echo "the answers differ:" >&2
    diff "$work/cluster.tokens" "$work/alone.tokens" >&2
    exit 1
fi
