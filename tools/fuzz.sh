#!/bin/bash
# make fuzz: runs every fuzz target for a while from its committed corpus; new inputs stay in build/fuzz/corpus.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1
seconds=$2
failed=0
for target in "$bin"/fuzz_*; do
    name=$(basename "$target")
    work=build/fuzz/corpus/$name
    mkdir -p "$work"
    echo "== $name: $seconds s"
    "$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=3000 -print_final_stats=1 -artifact_prefix="build/fuzz/crash-$name-" \
        "$work" "tests/fuzz/corpus/$name" 2>&1 | grep -E 'ERROR|SUMMARY|stat::number_of_executed|stat::new_units|crash-|timeout-' || true
    [ "${PIPESTATUS[0]}" -eq 0 ] || failed=1
done
if ls build/fuzz/crash-* >/dev/null 2>&1; then failed=1; ls -l build/fuzz/crash-*; fi
exit $failed
