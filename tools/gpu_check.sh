#!/bin/sh
# The CUDA kernels on a real GPU, on a machine that has nothing but a driver, nvcc and gcc: no packages, no CMake. In this order:
#   1. builds the module's sources and the compute tests (with tests/cuda/bare in cmocka's place);
#   2. every op's bits against portable C, and the corner where denormals are flushed (about a million cases);
#   3. compute-sanitizer over the small ones, where there is one: memcheck, racecheck;
#   4. the products' speed beside the GPU's own limits: a table.
# Meant to take less than 8 minutes. FAKE=1 does 1 and 2 on the fake GPU instead, which shows that this script works, not a kernel.
# OUT: where things are built (a temporary folder). Exit status 0: all bits are equal.
set -eu
cd "$(dirname "$0")/.."
out=${OUT:-$(mktemp -d)}
mkdir -p "$out/base" "$out/compute" "$out/cuda"
jobs=$(nproc)
fake=${FAKE:-}
started=$(date +%s)

say() {
  echo "== $(($(date +%s) - started)) s: $*"
}

nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2> /dev/null || true)
if [ -z "$fake" ]; then
  [ -n "$nvcc" ] || { echo "gpu_check: nvcc is neither on PATH nor in /usr/local/cuda/bin"; exit 1; }
  root=$(dirname "$(dirname "$nvcc")")
  nvidia-smi --query-gpu=name,memory.total,driver_version,compute_cap --format=csv 2> /dev/null || { echo "gpu_check: nvidia-smi finds no GPU"; exit 1; }
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d '. ')
  runtime_include=$root/include
  device=TEST_CUDA_REAL
else
  runtime_include=tests/cuda/fake
  device=TEST_CUDA_FAKE
fi

say "building in $out"
echo "#define MOE_VERSION \"check\"" > "$out/version.h"
c="gcc -std=c17 -O2 -g -D_GNU_SOURCE -include $out/version.h -ffp-contract=off -fno-math-errno -fno-trapping-math -fPIC -I. -isystem $runtime_include"
gpu="$nvcc -std=c++17 -O3 -ftz=true -fmad=false -prec-div=true -prec-sqrt=true -lineinfo -I. -arch=sm_${capability:-0}"
[ -z "$fake" ] || gpu="g++ -std=c++17 -O2 -g -ffp-contract=off -fno-math-errno -fno-trapping-math -Wno-unknown-pragmas -Itests/cuda/fake -I. -DFAKE_ARCH=90"
{
  for f in base/*.c; do # those that need a library are none that compute needs
    grep -q '<jansson.h>' "$f" || echo "$c -c $f -o $out/base/$(basename "$f" .c).o"
  done
  for f in compute/*.c; do
    case $(basename "$f") in
      avx2*) flags="-O1 -mavx2 -mfma -mf16c" ;;
      avx512.c | avx512_pair.c) flags="-O1 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mfma -mf16c" ;;
      avx512*) flags="-O1 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c" ;;
      *) flags= ;;
    esac
    echo "$c $flags -c $f -o $out/compute/$(basename "$f" .c).o"
  done
  for f in compute/cuda/*.c bench/cuda/limits.c; do
    echo "$c -c $f -o $out/cuda/$(basename "$f" .c).o"
  done
  for f in compute/cuda/*.cu bench/cuda/fma.cu; do
    if [ -n "$fake" ]; then
      echo "$gpu -x c++ -c $f -o $out/cuda/$(basename "$f" .cu).cu.o"
    else
      echo "$gpu -c $f -o $out/cuda/$(basename "$f" .cu).cu.o"
    fi
  done
  [ -z "$fake" ] || echo "$gpu -c tests/cuda/fake/fake.cc -o $out/cuda/fake.o"
} | tr '\n' '\0' | xargs -0 -n 1 -P "$jobs" sh -c
rm -f "$out/base.a"
ar rc "$out/base.a" "$out"/base/*.o
runtime=
[ -n "$fake" ] || runtime=$(find "$root/" -name libcudart_static.a | head -n 1)

tests="products attention stick families cpu"
for t in $tests; do
  $c -D$device -Itests/cuda/bare -c "tests/unit/test_compute_$t.c" -o "$out/$t.o"
done
$c -D$device -Itests/cuda/bare -c tests/cuda/test_cuda_corners.c -o "$out/corners.o"
$c -c tests/cuda/gpu_bench.c -o "$out/bench.o"
for t in $tests corners bench; do
  g++ -o "$out/$t" "$out/$t.o" "$out"/cuda/*.o "$out"/compute/*.o "$out/base.a" $runtime -lpthread -ldl -lrt -lm
done

failed=
for t in corners $tests; do
  say "bits: $t"
  timeout 120 "$out/$t" > "$out/$t.log" 2>&1 || failed="$failed $t"
  tail -n 8 "$out/$t.log"
done

sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2> /dev/null || true)
if [ -n "$fake" ]; then
  :
elif [ -z "$sanitizer" ]; then
  say "compute-sanitizer: not here, skipped"
else
  for tool in memcheck racecheck; do
    for t in attention families; do
      say "compute-sanitizer $tool: $t"
      timeout 60 "$sanitizer" --tool "$tool" --error-exitcode 9 "$out/$t" > "$out/$tool.$t.log" 2>&1 || {
        case $? in
          124) echo "stopped after 60 s; no report until then" ;;
          *) failed="$failed $tool:$t" ;;
        esac
      }
      grep -E "ERROR SUMMARY|RACECHECK SUMMARY" "$out/$tool.$t.log" || true
    done
  done
fi

if [ -z "$fake" ]; then
  say "speed"
  "$out/bench" || failed="$failed bench"
fi
if [ -n "$failed" ]; then
  say "FAILED:$failed; logs in $out"
  exit 1
fi
say "all bits are equal"
