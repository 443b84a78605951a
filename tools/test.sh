#!/bin/bash
# make test: builds and runs everything, plain first, then under sanitizers. Stops at the first configuration that fails.
#   format    clang-format would change nothing
#   release   unit, simulator, integration, fuzz corpora, and what is said of the tree itself
#   asan      the programs' tests again under AddressSanitizer and UndefinedBehaviorSanitizer
#   tsan      those that start threads in one process (tests/alone.cmake; of the engine's identity the first family), and five tests
#             of the cluster of processes, under ThreadSanitizer
# CONTRIBUTING.md says what it may cost. Which test belongs to which configuration is said where it is added.
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${1:-2}

# What tests make lies in here, and goes with it when one of them fails or is killed.
TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/conclave-test.XXXXXX")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

run() { # preset
    local left
    echo "== $1: configure and build"
    tools/configure.sh "$1"
    cmake --build --preset "$1" -j "$jobs" -- --quiet
    echo "== $1: tests"
    ctest --test-dir "build/$1" --output-on-failure -j "$((jobs + 2))" # more than cores: many of them wait
    left=$(ls -A "$TMPDIR")
    if [ -n "$left" ]; then
        printf 'left behind by tests of %s, and removed:\n%s\n' "$1" "$left" >&2
    fi
}

echo "== format"
tools/format_check.sh
run release
if [ "${TEST_SANITIZERS:-1}" = 1 ]; then
    run asan
    run tsan
fi
echo "== all configurations passed"
