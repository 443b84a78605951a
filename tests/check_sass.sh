#!/bin/sh
# What the CUDA compiler made of the kernels: check_sass.sh libconclave-cuda.so
#   - nothing of the special function unit that would stand for exp or log (their bits are not the contract's), no stack (a spill);
#   - the products read shared memory 16 bytes at a time and fill it by asynchronous copies: bulk ones on sm_90;
#   - in the PTX every operation on f32 flushes denormals.
# Skipped (77), with the reason, without cuobjdump and nvdisasm, which are packages of their own (PyPI: nvidia-cuda-cuobjdump, nvidia-cuda-nvdisasm).
set -eu
module=$1
PATH=$PATH:/usr/local/cuda/bin
for tool in cuobjdump nvdisasm; do
  command -v $tool > /dev/null || { echo "check_sass: skipped, $tool is not installed"; exit 77; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
refuse() {
  echo "check_sass: $1"
  bad=1
}

for arch in 80 90; do
  cuobjdump -sass -arch sm_$arch "$module" > "$work/sass"
  kernels=$(grep -c 'Function :' "$work/sass" || true)
  [ "$kernels" -gt 20 ] || refuse "sm_$arch: $kernels kernels"
  grep -E 'MUFU\.(EX2|LG2|SIN|COS|TANH)' "$work/sass" | head -n 3 | grep . && refuse "sm_$arch: approximate functions"
  grep -E '\b(STL|LDL)\b' "$work/sass" | head -n 3 | grep . && refuse "sm_$arch: a stack"
  if [ $arch = 80 ]; then copies='LDGSTS\.E.*\.128'; else copies='UBLKCP'; fi
  awk -v copies="$copies" '
    function end() { if (name ~ /product_kernel/ && (!wide || !filled || fma < 50)) { print name ": LDS.128 " wide ", copies " filled ", FFMA " fma; } }
    /Function :/ { end(); name = $3; wide = filled = fma = 0 }
    /LDS\.128/ { wide++ } $0 ~ copies { filled++ } /FFMA\.FTZ/ { fma++ }
    END { end() }' "$work/sass" > "$work/products"
  grep . "$work/products" && refuse "sm_$arch: a product without 16-byte loads, asynchronous copies or FMAs"
  echo "check_sass: sm_$arch, $kernels kernels"
done
cuobjdump -ptx "$module" > "$work/ptx"
[ "$(grep -c 'fma\.rn\.ftz\.f32' "$work/ptx")" -gt 100 ] || refuse "no FMA in the PTX"
grep -E '\b(add|sub|mul|fma|div|sqrt|setp|min|max|neg|abs)(\.[a-z]+)*\.f32' "$work/ptx" | grep -v '\.ftz\.' | sort | uniq -c | sort -rn | head -n 5 | grep . && refuse "PTX that keeps denormals"
grep -E '\b(ex2|lg2|rcp|rsqrt|sqrt|div|sin|cos|tanh)\.(approx|full)' "$work/ptx" | head -n 3 | grep . && refuse "PTX that approximates"
exit $bad
