#!/bin/sh
# make format-check: fails when clang-format would change a C file that git tracks. `make format` mends it.
# Skipped, with the reason, where clang-format or git's list of files is missing. clang-format's versions differ in details;
# the tree is formatted by the one in Debian 12.
set -eu
cd "${1:-$(dirname "$0")/..}"
wanted=14

skip() {
  echo "format-check: skipped: $1"
  exit 0
}
command -v clang-format > /dev/null || skip "clang-format is not installed (make packages-test installs it)"
git rev-parse --is-inside-work-tree > /dev/null 2>&1 || skip "this is no git checkout, so there is no list of files"
version=$(clang-format --version | grep -oE 'version [0-9]+' | grep -oE '[0-9]+')
[ "$version" = "$wanted" ] || skip "clang-format $version is installed; the tree is formatted by version $wanted"

files=$(git ls-files '*.c' '*.h')
[ -n "$files" ] || { echo "format-check: no C files"; exit 1; }
out=$(printf '%s\n' "$files" | xargs clang-format --dry-run -Werror 2>&1) || {
  printf '%s\n' "$out" | grep -E ': (error|warning):' | head -n 40
  echo "format-check: $(printf '%s\n' "$out" | grep -E ': (error|warning):' | cut -d: -f1 | sort -u | wc -l) files differ; make format mends them"
  exit 1
}
echo "format-check: $(printf '%s\n' "$files" | wc -l) files are as clang-format $wanted writes them"
