#!/bin/bash
# make coverage: how many lines of each parser of outside bytes the committed fuzz corpora reach. Fails below the limit.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$1
limit=90
work=build/coverage/profiles
rm -rf "$work"
mkdir -p "$work"
objects=()
for source in tests/fuzz/fuzz_*.c; do
    name=$(basename "$source" .c)
    LLVM_PROFILE_FILE="$work/$name.profraw" "$bin/$name" "tests/fuzz/corpus/$name" > /dev/null
    objects+=(${objects:+-object} "$bin/$name")
done
llvm-profdata merge -o "$work/all.profdata" "$work"/*.profraw
# The files that read bytes from outside; an arena reads nothing.
sources=$(ls base/json.c base/json_python.c base/option_value.c base/address.c checkpoint/safetensors.c checkpoint/index.c checkpoint/zip.c \
    checkpoint/pickle.c checkpoint/pickle_tensor.c checkpoint/torch_file.c model/config.c model/config_others.c \
    model/context.c model/generation.c model/rope.c model/family/*.c \
    template/*.c tokenizer/*.c catalogue/record_read.c proto/wire.c proto/link.c api/intake.c api/grpc/auth.c api/grpc/proto.c cluster/watch_parse.c \
    pack/manifest.c pack/contents.c |
    grep -v "template/arena.c")
# Per file: LF is the lines that hold code, LH those that were reached.
llvm-cov export -format=lcov -instr-profile "$work/all.profdata" "${objects[@]}" $sources model/config_keys.c cluster/state.c cluster/key.c |
    awk -F: -v root="$PWD/" -v limit=$limit '
        $1 == "SF" { file = substr($2, length(root) + 1) }
        $1 == "LF" { lines = $2 }
        $1 == "LH" { reached = $2
                     share = lines ? 100 * reached / lines : 100
                     all += lines; all_reached += reached; low += share < limit
                     printf "%-32s %5d lines %5d reached %6.1f %%%s\n", file, lines, reached, share, share < limit ? "  below " limit " %" : "" }
        END { printf "%-32s %5d lines %5d reached %6.1f %%\n", "all", all, all_reached, all ? 100 * all_reached / all : 0
              exit low > 0 || all == 0 }'
