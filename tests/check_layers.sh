#!/bin/sh
# Dependencies point one way: fails when a folder includes what it may not. Run from anywhere; an argument names another root.
set -eu
cd "${1:-$(dirname "$0")/..}"

allowed() {
  case $1 in
    base) echo "" ;;
    compute | tokenizer | proto | http) echo "base" ;;
    checkpoint | router) echo "base compute" ;;
    model) echo "base compute checkpoint router" ;;
    transport) echo "base proto" ;;
    cli) echo "base compute checkpoint proto" ;;
    cluster) echo "base router" ;;
    expert_node) echo "base compute checkpoint router model proto http transport cluster" ;;
    coordinator) echo "base compute checkpoint router model proto http transport cluster expert_node tokenizer" ;;
  esac
}
# What pure folders never see: sockets, clocks, and the libraries that bring them.
impure='grpc[/_.].*|ucp/.*|ucs/.*|uct/.*|curl/.*|sys/socket\.h|netinet/.*|time\.h|sys/time\.h'

folders="base compute checkpoint tokenizer router model proto http transport cluster expert_node coordinator cli"
all=$(echo "$folders" | tr ' ' '|')
n_lines=0
n_bad=0

for folder in $folders; do
  [ -d "$folder" ] || continue
  permitted=$(echo "$folder $(allowed "$folder")" | tr -s ' ' '|' | sed 's/|$//')
  # file:line:#include <what> -> "file:line what"
  includes=$(grep -rnE --include='*.[ch]' --include='*.cu' '^[[:space:]]*#[[:space:]]*include[[:space:]]*["<]' "$folder" |
    sed -E 's/^([^:]+:[0-9]+):[^"<]*["<]([^">]*)[">].*/\1 \2/' || true)
  [ -n "$includes" ] || continue
  n_lines=$((n_lines + $(printf '%s\n' "$includes" | wc -l)))
  bad=$(printf '%s\n' "$includes" | grep -E " ($all)/" | grep -vE " ($permitted)/" || true)
  case $folder in
    compute | checkpoint | tokenizer | model | router)
      bad="$bad
$(printf '%s\n' "$includes" | grep -E " ($impure)$" || true)"
      ;;
  esac
  bad=$(printf '%s\n' "$bad" | grep . || true)
  if [ -n "$bad" ]; then
    printf '%s\n' "$bad" | sed "s|^|$folder may not include: |"
    n_bad=$((n_bad + $(printf '%s\n' "$bad" | wc -l)))
  fi
done

echo "checked $n_lines include lines, $n_bad refused"
[ "$n_lines" -gt 0 ] && [ "$n_bad" -eq 0 ]
