#!/bin/bash
# tools/configure.sh PRESET [CMAKE_ARGUMENT...]: configures build/PRESET, quietly unless it fails. A build directory that was made for
# another place (the tree was moved or copied) is configured afresh: CMake refuses to go on with it.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=$1
shift
cache=build/$preset/CMakeCache.txt
fresh=()

if [ -f "$cache" ]; then
    made_for=$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$cache")
    if [ "$(realpath -m "$made_for")" != "$(realpath .)" ]; then
        echo "build/$preset was made for $made_for: configuring it again for this place" >&2
        fresh=(--fresh)
    fi
fi
mkdir -p build
if ! cmake --preset "$preset" "${fresh[@]}" "$@" >"build/configure-$preset.log" 2>&1; then
    cat "build/configure-$preset.log" >&2
    exit 1
fi
