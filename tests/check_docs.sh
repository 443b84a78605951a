#!/bin/sh
# Pages that lead nowhere: fails when README.md, CONTRIBUTING.md or a page of docs/ names a path or a function that is not
# in the tree, when a comment in C names such a .c, .h or .md file, when a page of docs/ is not linked from README.md,
# or when a fuzz target has no row in docs/fuzzing.md. Run from anywhere; an argument names another root.
#
# What counts as a path: in `backticks`, every word with a slash inside and every file name; elsewhere, words with a slash
# that end like a file, and the targets of links. `name()` is a function. <name> and * stand for anything. Left out: what
# starts with / (URLs' paths, keys of etcd), words with { (keys again), and what the build makes (build/, bin/).
set -eu
cd "${1:-$(dirname "$0")/..}"
endings='c|h|cu|sh|py|go|md|proto|cmake|txt|in'
own_files='c|h|cu|sh|proto|cmake' # without a slash: only endings that files of others (config.json, model.py) do not have

n_checked=0
n_bad=0
refuse() {
  echo "$1"
  n_bad=$((n_bad + 1))
}

# file <tab> line <tab> word, for every word of the page that names a path
words_of() {
  {
    grep -noE '`[^`]+`' "$1" | sed 's/`//g' | awk -F: '{ n = $1; sub(/^[^:]*:/, ""); k = split($0, w, /[ ,;()]+/); for (i = 1; i <= k; i++) print n, w[i] }' |
      grep -E "^[0-9]+ [A-Za-z.][A-Za-z0-9_.<>*-]*/([A-Za-z_<*][A-Za-z0-9_.<>*-]*/?)*(\[ch\])?$|^[0-9]+ [A-Za-z*][A-Za-z0-9_.<>*-]*\.($own_files|\[ch\])$" || true
    grep -noE "[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)+\.($endings)" "$1" | sed 's/:/ /' || true
  } | sort -u
}

# A path from the root, or from the page's own folder; a name without a folder may lie anywhere.
exists() { # word, the page's folder
  pattern=$(printf '%s' "$1" | sed 's/<[^>]*>/*/g')
  for place in $pattern "$2"/$pattern; do
    [ ! -e "$place" ] || return 0
  done
  case ${pattern%/} in
    */*) return 1 ;;
    *) [ -n "$(find . -path ./build -prune -o -name "${pattern%/}" -print -quit)" ] ;;
  esac
}

# `name()` in backticks: a function of the tree.
names_of() {
  grep -oE '`[a-z][a-z0-9_]*\(\)`' "$1" | tr -d '`()' | sort -u
}

pages=$(ls README.md CONTRIBUTING.md docs/*.md 2>/dev/null || true)
for page in $pages; do
  words=$(words_of "$page")
  while read -r line word; do
    case $word in "" | build/* | bin/*) continue ;; esac
    n_checked=$((n_checked + 1))
    exists "$word" "$(dirname "$page")" || refuse "$page:$line: not in the tree: $word"
  done <<EOF
$words
EOF
  for name in $(names_of "$page"); do
    n_checked=$((n_checked + 1))
    grep -rqE --include='*.[ch]' --include='*.py' --exclude-dir=build "\b$name\(" . || refuse "$page: no function in the tree: $name()"
  done
  for target in $(grep -oE '\]\([^)#:]+[)#]' "$page" | sed -E 's/^\]\(//; s/[)#]$//'); do
    n_checked=$((n_checked + 1))
    [ -e "$(dirname "$page")/$target" ] || refuse "$page: a link to what is not in the tree: $target"
  done
done
for page in docs/*.md; do
  grep -qF "]($page)" README.md || refuse "README.md: no link to $page"
done
# Comments of the sources: names of files that were moved since.
stale=$(grep -rnoE --include='*.[ch]' --exclude-dir=build '(/\*|^ *\*).*' . | grep -oE '^[^:]+:[0-9]+:|\b[a-z0-9_]+(/[a-z0-9_]+)*\.(c|h|md)\b' | grep -vE '^(jansson|transformer)\.h$' |
  awk '/:$/ { place = $0; next } { print place, $0 }' | sed 's|^\./||' | sort -u)
while read -r where name; do
  [ -n "$name" ] || continue
  n_checked=$((n_checked + 1))
  exists "$name" "$(dirname "${where%%:*}")" || refuse "$where not in the tree: $name"
done <<EOF
$stale
EOF
for target in tests/fuzz/fuzz_*.c; do
  target=$(basename "$target" .c)
  [ "$target" = 'fuzz_*' ] || grep -qF "\`$target\`" docs/fuzzing.md || refuse "docs/fuzzing.md: no row for $target"
done

echo "checked $n_checked paths, $n_bad refused"
[ "$n_checked" -gt 0 ] && [ "$n_bad" -eq 0 ]
