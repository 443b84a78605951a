#!/bin/sh
# The loops of the product kernels keep their sums in registers: fails when a loop of at least 12 FMAs stores a vector
# to the stack. gcc spills such tiles as soon as it may reorder them, and only time would tell: the bits stay right.
# Constants that are loaded from the stack are no spills. Arguments: object files. 77: skipped, there is no objdump.
set -eu
if ! command -v objdump > /dev/null; then
  echo "check_spills: skipped, there is no objdump (binutils)"
  exit 77
fi
for object in "$@"; do
  objdump -d --no-show-raw-insn "$object" | awk -v object="$object" '
    function hex(s,   i, n) {
      n = 0
      for (i = 1; i <= length(s); i++) n = n * 16 + index("0123456789abcdef", substr(s, i, 1)) - 1
      return n
    }
    # A jump back to an instruction of this function closes a loop. It counts if no other loop lies inside.
    function loop(from, to,   i, fmas, stores, loads) {
      for (i = from; i < to; i++) if (back[i] && back[i] >= from) return
      for (i = from; i <= to; i++) {
        if (text[i] ~ /vfmadd|vdpbf16ps/) fmas++
        if (text[i] ~ /[xyz]mm[0-9]+,(0x[0-9a-f]+)?\(%r(sp|bp)[,)]/) stores++
      }
      if (fmas < 12) return
      loops++
      if (stores) {
        printf "%s: %s: a loop of %d FMAs stores %d vectors to the stack\n", object, name, fmas, stores
        bad++
      }
    }
    function finish(   i) {
      for (i = 1; i <= n; i++) if (target[i] && at[target[i]]) back[i] = at[target[i]]
      for (i = 1; i <= n; i++) if (back[i] && back[i] <= i) loop(back[i], i)
      n = 0
      split("", at); split("", text); split("", target); split("", back)
    }
    /^[0-9a-f]+ <.*>:$/ { finish(); name = $2; next }
    /^ +[0-9a-f]+:/ {
      n++
      address = $1; sub(":", "", address)
      at[address] = n
      text[n] = $0
      if ($2 ~ /^j/) target[n] = $3
    }
    END {
      finish()
      printf "%s: %d loops of 12 FMAs or more, %d with spills\n", object, loops, bad
      exit bad > 0 || loops == 0
    }' || failed=1
done
exit "${failed:-0}"
