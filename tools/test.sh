#!/bin/bash
# make test: builds and runs everything, plain first, then under sanitizers. Stops at the first configuration that fails.
#   format    clang-format would change nothing
#   release   unit, simulator, integration, fuzz corpora, and what is said of the tree itself
#   asan      the programs' tests again under AddressSanitizer and UndefinedBehaviorSanitizer
#   tsan      those that start threads in one process (tests/alone.cmake; of the engine's identity the first family), and five tests
#             of the cluster of processes, under ThreadSanitizer
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${1:-2}

run() { # preset, further ctest arguments
    local preset=$1
    shift
    echo "== $preset: configure and build"
    tools/configure.sh "$preset"
    cmake --build --preset "$preset" -j "$jobs" -- --quiet
    echo "== $preset: tests"
    ctest --test-dir "build/$preset" --output-on-failure -j "$((jobs + 1))" "$@" # one more than cores: many of them wait
}

echo "== format"
tools/format_check.sh
run release
if [ "${TEST_SANITIZERS:-1}" = 1 ]; then
    run asan
    run tsan
fi
echo "== all configurations passed"
