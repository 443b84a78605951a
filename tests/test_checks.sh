#!/bin/sh
# The checks of the tree, on trees made for it: check_layers.sh, check_docs.sh and format_check.sh refuse one planted
# violation of each kind, naming the place. Run from anywhere.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(mktemp -d)
trap 'rm -rf "$root" "$root.out"' EXIT
n_failed=0

say() { # failed or passed, what
  echo "$1: $2"
  [ "$1" = passed ] || n_failed=$((n_failed + 1))
}

put() { # file, text
  mkdir -p "$(dirname "$root/$1")"
  printf '%s\n' "$2" > "$root/$1"
}

# A sound tree: every include that is allowed, pages that lead somewhere.
sound_tree() {
  rm -rf "$root"
  put base/base.h '#include <stdint.h>'
  put router/router.h '#include "base/base.h"'
  put router/plan_priv.h '#include "router/router.h"'
  put router/plan.c '#include "router/plan_priv.h"'
  put api/http/http.h '#include "base/base.h"'
  put api/grpc/rpc_priv.h '#include "api/api.h"'
  put api/grpc/rpc.c '#include "rpc_priv.h"'
  put api/api.h '#include "api/http/http.h"'
  put cluster/etcd.c '#include <curl/curl.h>'
  put expert_node/node.c '#include "router/router.h"'
  put expert_node/program/main.c '#include "api/http/http.h"'
  put tests/unit/test_plan.c '#include "router/plan_priv.h"' # tests look inside
  put tools/run.sh 'true'
  put router/set.h 'int plan_make(int x);'
  put docs/one.md 'See `plan_make()`, `router/plan.c`, `plan_priv.h`, `router/plan.[ch]`, `tests/unit/test_*.c`, `build/x/y.c`, `/livez`, `nodes/{id}`.'
  put README.md 'The [page](docs/one.md); tools/run.sh runs it, `docs/` has the rest.'
  put CONTRIBUTING.md 'prefill/decode is no path.'
}

passes() { # check
  if "$here/$1" "$root" > "$root.out" 2>&1; then say passed "$1 lets a sound tree pass"; else say failed "$1 refuses a sound tree"; cat "$root.out"; fi
}

refuses() { # check, what, a text that the refusal has
  if "$here/$1" "$root" > "$root.out" 2>&1; then
    say failed "$1 lets pass: $2"
  elif grep -qF "$3" "$root.out"; then
    say passed "$1 refuses $2"
  else
    say failed "$1 refuses $2, but does not say: $3"
    cat "$root.out"
  fi
  sound_tree
}

sound_tree
passes check_layers.sh
put router/set.c '#include "model/model.h"'
refuses check_layers.sh "an include against the arrows" "router/set.c:1: router may not include model/model.h"
put engine/step.c '  #  include "api/api.h"'
refuses check_layers.sh "one written with spaces" "engine/step.c:1: engine may not include api/api.h"
put api/http/pages.c '#include "engine/engine.h"'
refuses check_layers.sh "one of a room within a room" "api/http/pages.c:1: api/http may not include engine/engine.h"
put expert_node/shard.c '#include "member/member.h"'
refuses check_layers.sh "one that only the room within it may" "expert_node/shard.c:1: expert_node may not include member/member.h"
put router/cuda/plan.cu '#include "cluster/cluster.h"'
refuses check_layers.sh "one in a CUDA file" "router/cuda/plan.cu:1: router may not include cluster/cluster.h"
put engine/step.c '#include "router/plan_priv.h"'
refuses check_layers.sh "a private header of another room" "engine/step.c:1: a private header of another folder: router/plan_priv.h"
put engine/step.c '#include "router/set.h"'
refuses check_layers.sh "a header that is not the room's public one" "engine/step.c:1: no public header of router: router/set.h"
put api/intake.c '#include "api/grpc/rpc_priv.h"'
refuses check_layers.sh "a private header of a folder below" "api/intake.c:1: a private header of another folder: api/grpc/rpc_priv.h"
put router/set.c '#include "../model/model.h"'
refuses check_layers.sh "an include that climbs" "router/set.c:1: an include that climbs out of its folder: ../model/model.h"
put exchange/speed.c 'static uint64_t now(void) { return moe_now_ns(moe_clock_real()); }'
refuses check_layers.sh "the real clock where it is decided by time" "exchange/speed.c:1: the real clock: take the one of the options"
put cluster/controller.c '    const time_t now = time(NULL);'
refuses check_layers.sh "the wall clock there" "cluster/controller.c:1: the real clock: take the one of the options"
put gate/gate.c '#include "base/base.h"'
refuses check_layers.sh "a folder that is no room" "gate/: no room of this script's list"
for header in time.h sys/socket.h netinet/in.h ucp/api/ucp.h curl/curl.h grpc/grpc.h; do
  put model/forward.c "#include <$header>"
  refuses check_layers.sh "<$header> in a pure room" "model/forward.c:1: model may not include $header"
done
mkdir "$root/empty"
if "$here/check_layers.sh" "$root/empty" > "$root.out" 2>&1; then say failed "check_layers.sh passes where nothing is"; else say passed "check_layers.sh refuses a tree without rooms"; fi

sound_tree
passes check_docs.sh
put docs/one.md 'See `router/plans.c`.'
refuses check_docs.sh "a file that is not there" "docs/one.md:1: not in the tree: router/plans.c"
put docs/one.md 'See `plans.c`.'
refuses check_docs.sh "a name that no file has" "docs/one.md:1: not in the tree: plans.c"
put docs/one.md 'See `routers/`.'
refuses check_docs.sh "a folder that is not there" "docs/one.md:1: not in the tree: routers/"
put docs/one.md 'Run tools/walk.sh now.'
refuses check_docs.sh "a file outside of backticks" "docs/one.md:1: not in the tree: tools/walk.sh"
put router/gate.c '/* The rest is in made_plan.c. */'
refuses check_docs.sh "a comment that names no file" "router/gate.c:1: not in the tree: made_plan.c"
put docs/one.md 'See `plan_made()`.'
refuses check_docs.sh "a function that is not there" "docs/one.md: no function in the tree: plan_made()"
put CONTRIBUTING.md 'See `tests/fuzz/*.c`.'
refuses check_docs.sh "a pattern that nothing fits" "CONTRIBUTING.md:1: not in the tree: tests/fuzz/*.c"
put docs/one.md 'The [other](two.md).'
refuses check_docs.sh "a link to nowhere" "docs/one.md: a link to what is not in the tree: two.md"
put docs/two.md 'A page nobody finds.'
refuses check_docs.sh "a page without a link" "README.md: no link to docs/two.md"
put tests/fuzz/fuzz_plan.c 'int x;'
put docs/fuzzing.md 'Targets: none.'
refuses check_docs.sh "a fuzz target without a row" "docs/fuzzing.md: no row for fuzz_plan"

# The format check needs git and clang-format 14; where it skips, it says so, and so does this test.
put .clang-format 'BasedOnStyle: LLVM'
put router/plan.c 'int plan_make(int x);'
git -c init.defaultBranch=main init -q "$root" 2> /dev/null && git -C "$root" add -A 2> /dev/null || true
if ! "$here/../tools/format_check.sh" "$root" > "$root.out" 2>&1; then
  say failed "format_check.sh refuses a file that is formatted"
  cat "$root.out"
elif grep -q skipped "$root.out"; then
  cat "$root.out"
else
  say passed "format_check.sh lets a formatted file pass"
  put router/plan.c 'int   plan_make( int x );'
  if "$here/../tools/format_check.sh" "$root" > "$root.out" 2>&1; then
    say failed "format_check.sh lets a file pass that is not formatted"
  elif grep -q '^router/plan.c' "$root.out"; then
    say passed "format_check.sh refuses a file that is not formatted"
  else
    say failed "format_check.sh does not name the file"
    cat "$root.out"
  fi
fi

echo "$n_failed failed"
[ "$n_failed" -eq 0 ]
