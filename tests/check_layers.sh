#!/bin/sh
# Dependencies point one way: fails when a room includes what it may not, or a private header of another folder.
# A room is a folder and what lies below it, unless that has a line of its own. Run from anywhere; an argument names another root.
set -eu
cd "${1:-$(dirname "$0")/..}"

rooms="base compute checkpoint template tokenizer router sampling model pack catalogue export proto transport outbox exchange engine api/http api cluster member
  expert_node/program expert_node coordinator cli bench"

allowed() {
  case $1 in
    base) echo "" ;;
    compute | template | proto) echo "base" ;;
    tokenizer) echo "base template" ;;
    api/http) echo "base compute" ;;
    checkpoint | router | sampling) echo "base compute" ;;
    model) echo "base compute checkpoint router sampling" ;;
    pack) echo "base compute checkpoint model" ;;
    catalogue) echo "base router pack" ;;
    export) echo "base compute checkpoint router model pack catalogue" ;;
    transport) echo "base proto" ;;
    outbox) echo "base compute proto transport" ;;
    exchange) echo "base compute router proto transport outbox" ;;
    engine) echo "base compute router model sampling tokenizer exchange" ;;
    api) echo "base proto catalogue engine model router sampling tokenizer api/http" ;;
    cluster) echo "base router catalogue" ;;
    member) echo "base compute checkpoint router model pack catalogue proto transport cluster" ;;
    expert_node) echo "base compute checkpoint router model proto transport outbox" ;;
    expert_node/program) echo "base compute checkpoint router model pack catalogue proto transport cluster member expert_node api/http" ;;
    coordinator) echo "base template compute checkpoint router model pack catalogue proto transport exchange engine api api/http cluster member expert_node tokenizer" ;;
    cli) echo "base compute checkpoint model pack export proto" ;;
    bench) echo "base compute checkpoint router sampling model proto transport exchange engine expert_node coordinator" ;;
  esac
}
# A room has one public header, of its name (proto's is wire.h); these are second ones, and CONTRIBUTING.md says for whom. All
# others stay within their room.
seconds='proto/wire.h proto/link.h api/catalogue.h api/view.h checkpoint/output.h cluster/store.h compute/math.h compute/module.h
  compute/ops.h compute/cuda/ptx.h coordinator/embedded.h member/fetch.h model/family/family.h'
# What pure rooms never see: sockets, clocks, and the libraries that bring them.
impure='grpc[/_.].*|ucp/.*|ucs/.*|uct/.*|curl/.*|sys/socket\.h|netinet/.*|time\.h|sys/time\.h'

# The room of a path: the longest one of the list that it lies in.
room_of() {
  case $1 in
    api/http/*) echo api/http ;;
    expert_node/program/*) echo expert_node/program ;;
    */*) echo "${1%%/*}" ;;
  esac
}

n_lines=0
n_bad=0
refuse() {
  echo "$1"
  n_bad=$((n_bad + 1))
}

# Folders with C in them that are no rooms: nothing would check them.
for folder in $(ls -d */ | grep -vxE '(tests|examples|tools|build|bin)/'); do
  case " $(echo $rooms) " in *" ${folder%/} "*) continue ;; esac
  [ -z "$(find "$folder" -name '*.[ch]' -print -quit)" ] || refuse "$folder: no room of this script's list"
done

folders=$(for room in $rooms; do [ ! -d "$room" ] || echo "$room"; done)
[ -n "$folders" ] || { echo "no rooms here"; exit 1; }
# file:line:#include <what> -> file:line what
includes=$(grep -rnE --include='*.[ch]' --include='*.cu' '^[[:space:]]*#[[:space:]]*include[[:space:]]*["<]' $folders | sort -u |
  sed -E 's/^([^:]+:[0-9]+):[^"<]*["<]([^">]*)[">].*/\1 \2/')
while read -r place what; do
  file=${place%:*}
  room=$(room_of "$file")
  n_lines=$((n_lines + 1))
  case $what in
    *_priv.h) [ "${what%/*}" = "${file%/*}" ] || [ "$what" = "${what##*/}" ] || refuse "$place: a private header of another folder: $what" ;;
  esac
  case $room in
    compute | checkpoint | template | tokenizer | model | router | sampling | catalogue)
      ! printf '%s\n' "$what" | grep -qE "^($impure)$" || refuse "$place: $room may not include $what"
      ;;
  esac
  case $what in
    ../* | */../*) refuse "$place: an include that climbs out of its folder: $what" ;;
    */*) ;;
    *) continue ;;
  esac
  other=$(room_of "$what")
  case " $(echo $rooms) " in *" $other "*) ;; *) continue ;; esac
  case " $room $(allowed "$room") " in
    *" $other "*) ;;
    *) refuse "$place: $room may not include $what" ;;
  esac
  [ "$other" = "$room" ] || [ "$what" = "$other/${other##*/}.h" ] || case " $(echo $seconds) " in
    *" $what "*) ;;
    *) refuse "$place: no public header of $other: $what" ;;
  esac
done <<EOF
$includes
EOF

# Who decides by time has a clock in its table, and tests put another there. The real one is for those who talk to a network or
# a person, run a thread, or hand the clock on.
real_clock='moe_clock_real|moe_wall_ms|clock_gettime|gettimeofday|[^_[:alnum:]](time|sleep|usleep)\('
may_see_real='^(base|cli|bench|api)/|^transport/(net|tls|ucx_context)\.c$|^cluster/cluster\.c$|^coordinator/(main|load|embedded|pool|follower|ledger|registry|shadow)\.c$'
may_see_real="$may_see_real|^expert_node/program/(main|loop|pages|alive|loader)\.c$"
for file in $(grep -rlE --include='*.[ch]' "$real_clock" $folders | grep -vE "$may_see_real"); do
  refuse "$(grep -nHE "$real_clock" "$file" | head -1 | cut -d: -f1,2): the real clock: take the one of the options"
done

echo "checked $n_lines include lines, $n_bad refused"
[ "$n_lines" -gt 0 ] && [ "$n_bad" -eq 0 ]
