#!/bin/sh
# The CUDA kernels on a real GPU, on a machine that has nothing but a driver, nvcc and gcc: no packages, no CMake. The steps:
#   build      the module, the compute tests, the engine with its embedded node; tests/cuda/bare stands in for cmocka and the libraries
#   bits       every op's bits against portable C, and the corner where denormals are flushed (about a million cases)
#   tokens     whole models of all six kinds through engine and embedded node: the CPU's tokens and log-probabilities
#   speed      the products beside the GPU's own limits
#   model      OLMoE-1B-7B's shape through engine and embedded node: decode at batch 1, 8, 32, 128, prefill of 2,048 tokens
#   sanitizer  compute-sanitizer over the small tests, where there is one: memcheck, racecheck, as far as the time goes
# and the tables of speed and model at the end. Planned to take less than 8 minutes on 8 cores.
#
#   ONLY="bits tokens"  some of the steps, and only what they need is built
#   FAKE=1              the fake GPU and a tiny model instead: shows that this script works, not a kernel; no speed, no sanitizer
#   BUILD_ONLY=1        stops after the build, which needs nvcc and no GPU
#   STAND_INS=1         only reads the files that meet tests/cuda/bare: a part of make test
#   OUT=DIR             where things are built (a temporary folder)
#   LAYERS=N            of the model; else as many of 16 as fit into the GPU's memory
#
# Exit status 0: all bits are equal, and everything ran.
set -eu
cd "$(dirname "$0")/.."
out=${OUT:-$(mktemp -d)}
mkdir -p "$out/o"
out=$(cd "$out" && pwd)
jobs=$(nproc)
fake=${FAKE:-}
steps=${ONLY:-bits tokens speed model sanitizer}
[ -z "$fake" ] || steps=$(echo "$steps" | sed 's/speed//; s/sanitizer//')
started=$(date +%s)
seconds_in_all=460
failed=

say() {
  echo "== $(($(date +%s) - started)) s: $*"
}

wants() {
  case " $steps " in *" $1 "*) ;; *) return 1 ;; esac
}

nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2> /dev/null || true)
if [ -n "$fake" ]; then
  runtime_include=tests/cuda/fake
  device=TEST_CUDA_FAKE
else
  [ -n "$nvcc" ] || { echo "gpu_check: nvcc is neither on PATH nor in /usr/local/cuda/bin"; exit 1; }
  root=$(dirname "$(dirname "$nvcc")")
  runtime_include=$root/include
  device=TEST_CUDA_REAL
  if [ -n "${BUILD_ONLY:-}" ]; then
    capability=90
  else
    nvidia-smi --query-gpu=name,memory.total,driver_version,compute_cap --format=csv 2> /dev/null || { echo "gpu_check: nvidia-smi finds no GPU"; exit 1; }
    capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d '. ')
  fi
fi

# ------------------------------------------------------------------------------------------------ build
say "building in $out"
echo "#define MOE_VERSION \"check\"" > "$out/version.h"
c="${CC:-gcc} -std=c17 -O2 -g1 -D_GNU_SOURCE -include $out/version.h -ffp-contract=off -fno-math-errno -fno-trapping-math -fPIC -I. -isystem tests/cuda/bare -isystem $runtime_include -D$device"
if [ -n "$fake" ]; then
  gpu="${CXX:-g++} -std=c++17 -O2 -g1 -fPIC -ffp-contract=off -fno-math-errno -fno-trapping-math -Wno-unknown-pragmas -Itests/cuda/fake -I. -DFAKE_ARCH=90 -DGPU_LIMITS_SMALL -x c++"
  c="$c -DGPU_LIMITS_SMALL"
else
  gpu="$nvcc -std=c++17 -O3 -ftz=true -fmad=false -prec-div=true -prec-sqrt=true -lineinfo -Xcompiler -fPIC -I. -arch=sm_$capability"
fi

# What each program has beside the rooms: programs are named as their steps, and the compute tests as they are.
tests="corners products attention stick families cpu"
sources_of() {
  case $1 in
    corners) echo tests/cuda/test_cuda_corners.c ;;
    tokens) echo tests/cuda/test_cuda_engine.c tests/support/support.c tests/support/tensors.c tests/support/random_model.c tests/support/model_fixture.c tests/support/engine_fixture.c ;;
    speed) echo tests/cuda/gpu_bench.c bench/cuda/limits.c ;;
    bench_model) for f in bench_model load rig image image_steer olmoe timed_device cpu_limits gpu_limits frames; do echo bench/$f.c; done ;;
    limits) echo bench/cuda/limits.c ;;
    *) echo "tests/unit/test_compute_$1.c" ;;
  esac
}
rooms="base/*.c compute/*.c"
built=
if wants bits; then
  built=$tests
elif wants sanitizer; then
  built="attention families"
fi
! wants speed || built="$built speed"
! wants tokens || built="$built tokens"
! wants model || built="$built bench_model limits"
if wants tokens || wants model; then # the way of a token, without tokenizer, network, packs and cluster
  rooms="$rooms checkpoint/*.c router/*.c sampling/*.c model/*.c model/family/*.c proto/wire.c proto/crc32c.c proto/proof.c proto/link.c
    transport/frames.c transport/lanes.c transport/network.c transport/loopback.c outbox/*.c exchange/*.c engine/*.c expert_node/*.c coordinator/embedded.c
    coordinator/embedded_change.c"
fi
rooms="$rooms tests/cuda/bare/*.c"

# Object files: the path with _ for /.
objects() {
  for f in "$@"; do
    echo "$out/o/$(echo "$f" | tr / _).o"
  done
}

stand_ins=${STAND_INS:-}
{
  kernels="compute/cuda/product*.cu $(ls compute/cuda/*.cu | grep -v product) bench/cuda/fma.cu" # the slow ones first
  [ -z "$fake" ] || kernels="$kernels tests/cuda/fake/fake.cc"
  for f in $kernels; do
    [ -n "$stand_ins" ] || echo "$gpu -c $f -o $(objects "$f")"
  done
  for f in $(for b in $built; do sources_of "$b"; done | tr ' ' '\n' | sort -u) $rooms compute/cuda/*.c; do
    case $f in
      compute/avx2*) flags="-O1 -mavx2 -mfma -mf16c" ;;
      compute/avx512.c | compute/avx512_pair.c) flags="-O1 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mfma -mf16c" ;;
      compute/avx512*) flags="-O1 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c" ;;
      *) flags= ;;
    esac
    if [ -z "$stand_ins" ]; then
      echo "$c $flags -c $f -o $(objects "$f")"
    elif grep -qE '<(jansson|cmocka|openssl/.*)\.h>|"tests/(support|unit)/' "$f"; then
      echo "$c -fsyntax-only -Werror=implicit-function-declaration $f"
    fi
  done
} > "$out/commands"
tr '\n' '\0' < "$out/commands" | xargs -0 -n 1 -P "$jobs" sh -c
[ -z "$stand_ins" ] || { say "read $(wc -l < "$out/commands") files"; exit 0; }

rm -f "$out/rooms.a"
ar rc "$out/rooms.a" $(objects $rooms)
runtime=
[ -n "$fake" ] || runtime=$(find "$root/" -name libcudart_static.a | head -n 1)
libraries="$runtime -lpthread -ldl -lrt -lm"
fma=$(objects bench/cuda/fma.cu ${fake:+tests/cuda/fake/fake.cc})
module="$(objects compute/cuda/*.c compute/cuda/*.cu ${fake:+tests/cuda/fake/fake.cc})"
link="g++ -Wl,--no-undefined"
$link -shared -Wl,--exclude-libs,ALL -o "$out/libconclave-cuda.so" $module "$out/rooms.a" $libraries
for b in $built; do
  own=$(objects $(sources_of "$b"))
  case $b in
    limits) $link -shared -o "$out/libconclave-cuda-limits.so" $own $fma $libraries ;;
    tokens | bench_model) $link -o "$out/$b" $own "$out/rooms.a" $libraries ;; # these open the module
    speed) $link -o "$out/$b" $own $module $(objects bench/cuda/fma.cu) "$out/rooms.a" $libraries ;;
    *) $link -o "$out/$b" $own $module "$out/rooms.a" $libraries ;;
  esac
done
say "built"
[ -z "${BUILD_ONLY:-}" ] || exit 0

# ------------------------------------------------------------------------------------------------ steps
if wants bits; then
  say "bits: $tests, side by side"
  for t in $tests; do
    echo "timeout ${fake:+3}120 $out/$t > $out/$t.log 2>&1 || echo $t >> $out/failed"
  done | tr '\n' '\0' | { rm -f "$out/failed"; xargs -0 -n 1 -P "$jobs" sh -c; }
  for t in $tests; do
    echo "$t: $(tail -n 1 "$out/$t.log")"
  done
  failed=$(cat "$out/failed" 2> /dev/null | tr '\n' ' ')
  for t in $failed; do
    tail -n 8 "$out/$t.log"
  done
fi

if wants tokens; then
  say "tokens: the CPU's, for models of all kinds"
  MOE_TEST_DEVICE=cuda MOE_TEST_MODULE="$out/libconclave-cuda.so" timeout "${fake:+3}120" "$out/tokens" > "$out/tokens.log" 2>&1 || failed="$failed tokens"
  grep -v " info " "$out/tokens.log" || true
fi

tables=
if wants speed; then
  say "speed"
  timeout 60 "$out/speed" > "$out/speed.log" 2>&1 || failed="$failed speed"
  tables="$out/speed.log"
fi

if wants model; then
  say "model"
  timeout 150 "$out/bench_model" --device cuda ${LAYERS:+--layers "$LAYERS"} ${fake:+--shape tiny --windows 1 --window-seconds 0.01} > "$out/model.log" 2>&1 ||
    failed="$failed model"
  tables="$tables $out/model.log"
fi

sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2> /dev/null || true)
if ! wants sanitizer; then
  :
elif [ -z "$sanitizer" ]; then
  say "compute-sanitizer: not here, skipped"
else
  for tool in memcheck racecheck; do
    for t in attention families; do
      left=$((seconds_in_all - ($(date +%s) - started)))
      say "compute-sanitizer $tool: $t"
      [ "$left" -gt 10 ] || { echo "no time left, skipped: ONLY=sanitizer runs it alone"; continue; }
      timeout "$((left < 60 ? left : 60))" "$sanitizer" --tool "$tool" --error-exitcode 9 "$out/$t" > "$out/$tool.$t.log" 2>&1 || {
        case $? in
          124) echo "stopped for the time; no report until then" ;;
          *) failed="$failed $tool:$t" ;;
        esac
      }
      grep -E "ERROR SUMMARY|RACECHECK SUMMARY" "$out/$tool.$t.log" || true
    done
  done
fi

for f in $tables; do
  echo
  cat "$f"
done
echo
if [ -n "$failed" ]; then
  say "FAILED: $failed; logs in $out"
  exit 1
fi
say "all that ran is equal: $steps"
