#!/bin/bash
# make demo: starts a coordinator on a checkpoint (the one of tools/demo_model.sh if none is given), asks it to continue a prompt over gRPC,
# and says what to try next.
set -euo pipefail
cd "$(dirname "$0")/.."
model=$(tools/demo_model.sh "${1:-}")
case $model in
    models/english) prompt=${PROMPT:-"It was a fine morning, and"} ;;
    *) prompt=${PROMPT:-"A mixture of experts is"} ;;
esac

log=$(mktemp)
ready=$(mktemp)
server=""
cleanup() {
    if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
    server=""
    rm -f "$log" "$ready"
}
trap cleanup EXIT

echo "== starting: bin/conclave-coordinator --model $model"
bin/conclave-coordinator --model "$model" --listen 127.0.0.1:0 --http 127.0.0.1:0 > "$ready" 2> >(tee "$log" >&2) &
server=$!
while ! grep -q '^READY' "$ready"; do
    kill -0 "$server" 2>/dev/null || { echo "the coordinator stopped:" >&2; cat "$log" >&2; exit 1; }
    sleep 0.1
done
address=$(sed -n 's/^READY //p' "$ready")
echo "== serving on $address"
echo "== bin/conclave generate --server $address --max-tokens 64 --seed 1 \"$prompt\""
printf '%s' "$prompt"
bin/conclave generate --server "$address" --max-tokens 64 --seed 1 --stats "$prompt"
cleanup
echo
chat=""
if grep -qs chat_template "$model/tokenizer_config.json" || [ -f "$model/chat_template.jinja" ]; then chat="   bin/conclave chat"$'\n'; fi
cat <<END
== it works. To go on by hand:
   bin/conclave-coordinator --model $model &          # serves on 127.0.0.1:50051
   bin/conclave generate "Once upon a time" --max-tokens 40
$chat   bin/conclave score --json --top 3 --experts "A mixture of experts"
   bin/conclave experts
   curl -s http://127.0.0.1:8080/metrics              # with --http 127.0.0.1:8080
   bin/conclave-coordinator --help
END
