#!/bin/bash
# make bench: what machine this is, then the benchmarks. Writes nothing into the tree. Arguments: THREADS ... (default: all
# cores, then one). BENCH_LAYERS=N measures a model of N layers. docs/benchmarks.md says how to read the output.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${BENCH_BIN:-build/release/bin}

pressure() { sed -n 's/^some avg10=\([0-9.]*\) avg60=\([0-9.]*\).*/\1 % of the last 10 s, \2 % of the last 60 s/p' /proc/pressure/cpu 2>/dev/null || true; }

threads=("$@")
if [ ${#threads[@]} -eq 0 ]; then
    threads=("$(nproc)")
    [ "$(nproc)" -eq 1 ] || threads+=(1)
fi

echo "date      $(date -u +%Y-%m-%d)"
echo "machine   $(lscpu | sed -n 's/^Model name: *//p' | head -1), family $(lscpu | sed -n 's/^CPU family: *//p') model $(lscpu | sed -n 's/^Model: *//p')"
echo "cores     $(nproc), L3 $(lscpu | sed -n 's/^L3 cache: *//p')"
echo "memory    $(awk '/^MemTotal/ {t = $2} /^MemAvailable/ {a = $2} END {printf "%.1f GB, %.1f available", t / 1e6, a / 1e6}' /proc/meminfo)"
echo "kernel    $(uname -r), huge pages: $(sed 's/.*\[\(.*\)\].*/\1/' /sys/kernel/mm/transparent_hugepage/enabled 2>/dev/null || echo unknown)"
wait_for_cpu=$(pressure)
echo "waiting   ${wait_for_cpu:-unknown} (time in which a thread waited for a core: above 5 %, figures say little)"

echo
echo "== kernels"
"$bin/bench_kernels" "${threads[@]}"
echo
echo "== model"
"$bin/bench_model" ${BENCH_LAYERS:+--layers "$BENCH_LAYERS"} "${threads[@]}"
if [ -f "$bin/libconclave-cuda.so" ] && nvidia-smi -L > /dev/null 2>&1; then
    echo
    echo "== model on the GPU"
    "$bin/bench_model" --device cuda ${BENCH_LAYERS:+--layers "$BENCH_LAYERS"}
fi
# Most machines have AVX2 and no more: what they get, beside the limits of AVX2, wherever this machine's own set is a better one.
if grep -qw avx512f /proc/cpuinfo; then
    echo
    echo "== kernels and model, as on a machine with AVX2 alone"
    "$bin/bench_kernels" --isa avx2 "${threads[@]}"
    "$bin/bench_model" --isa avx2 ${BENCH_LAYERS:+--layers "$BENCH_LAYERS"} "${threads[@]}"
fi
echo
echo "== families"
"$bin/bench_savings" "${threads[0]}"
"$bin/bench_families" "${threads[0]}"
echo
echo "== sampling"
"$bin/bench_sampling" "${threads[@]}"
echo
echo "== transport"
"$bin/bench_transport"
echo
echo "== packs and sets that change"
/usr/bin/python3 bench/bench_changes.py "$bin" --layers "${BENCH_LAYERS:-8}"
if command -v etcd > /dev/null; then
    echo
    echo "== pool"
    /usr/bin/python3 bench/bench_pool.py "$bin" --layers "${BENCH_LAYERS:-8}"
    echo
    echo "== nodes that load"
    /usr/bin/python3 bench/bench_loading.py "$bin"
fi
echo
echo "waiting   $(pressure) (the benchmark's own threads included)"
