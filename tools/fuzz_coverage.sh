#!/bin/bash
# make coverage: how many lines of each parser the committed fuzz corpora reach. Needs clang's llvm-profdata and llvm-cov.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1
work=build/coverage/profiles
rm -rf "$work"
mkdir -p "$work"
objects=()
for target in "$bin"/fuzz_*; do
    name=$(basename "$target")
    LLVM_PROFILE_FILE="$work/$name.profraw" "$target" "tests/fuzz/corpus/$name" > /dev/null
    objects+=(-object "$target")
done
llvm-profdata-14 merge -o "$work/all.profdata" "$work"/*.profraw
# The files that read bytes from outside.
llvm-cov-14 report -instr-profile "$work/all.profdata" "${objects[@]}" \
    checkpoint/safetensors.c checkpoint/index.c model/config.c tokenizer/*.c proto/wire.c \
    coordinator/intake.c coordinator/proto_check.c |
    awk 'NR == 1 || /\.c |^TOTAL/ { printf "%-40s lines %6s missed %6s cover %s\n", $1, $8, $9, $10 }'
