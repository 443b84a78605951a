#!/bin/sh
# Installs the Debian packages of packages.txt that are missing: tools/install_packages.sh GROUP...   (groups: build test fuzz)
set -eu
cd "$(dirname "$0")/.."
wanted=""
for group in "$@"; do
    wanted="$wanted $(sed -n "s/^\[$group\] *//p" packages.txt)"
done
missing=""
for package in $wanted; do
    dpkg-query -W -f='${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
run=""
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "missing packages:$missing (install them as root, or install sudo)" >&2; exit 1; }
    run="sudo"
fi
echo "installing:$missing"
# A source that does not answer (some third party's) is no reason to stop: the packages may well be in the others.
$run apt-get update -qq || echo "apt-get update failed; going on with the package lists at hand" >&2
$run env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
