#!/bin/bash
# make fuzz: runs every fuzz target for a while from its committed corpus; new inputs stay in build/fuzz/corpus, inputs that
# crash in build/fuzz/crashes. Fails when a target does: a crash, a leak, an input of over 20 s, or a target that cannot start.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1
seconds=$2
failed=""
rm -rf build/fuzz/crashes
mkdir -p build/fuzz/crashes
for source in tests/fuzz/fuzz_*.c; do
    name=$(basename "$source" .c)
    log=build/fuzz/$name.log
    mkdir -p "build/fuzz/corpus/$name"
    echo "== $name: $seconds s"
    if ! "$bin/$name" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=3000 -print_final_stats=1 \
        -artifact_prefix="build/fuzz/crashes/$name-" "build/fuzz/corpus/$name" "tests/fuzz/corpus/$name" >"$log" 2>&1; then
        failed="$failed $name"
        tail -n 60 "$log"
    fi
    grep -E 'stat::(number_of_executed|new)_units' "$log" || true
done
[ -z "$failed" ] || { echo "failed:$failed; inputs in build/fuzz/crashes, logs in build/fuzz" >&2; exit 1; }
