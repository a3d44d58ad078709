#!/usr/bin/env bash
# Unpacks Debian packages of another architecture: libraries to link with, files to examine.
# usage: cross.sh FOLDER ARCHITECTURE PACKAGE…      e.g. cross.sh .tools/arm64 arm64 libelf-dev
#
# They come from an apt of its own (apt.sh), so that the machine knows nothing of the other
# architecture. What was unpacked already is left alone. Ends with 77 where a package is not
# to be had.
set -euo pipefail
folder="$(mkdir -p "${1:?usage: cross.sh FOLDER ARCHITECTURE PACKAGE…}" && cd "$1" && pwd)"
arch="${2:?usage: cross.sh FOLDER ARCHITECTURE PACKAGE…}"
shift 2
cd "$(dirname "$0")"

missing=()
for package in "$@"; do [ -e "$folder/.unpacked/$package" ] || missing+=("$package"); done
[ ${#missing[@]} -gt 0 ] || exit 0

source ./apt.sh
# One suite: what is linked statically must not need more than is fetched.
apt_suites main bookworm
apt_suites security bookworm-security
apt_lists

for package in "${missing[@]}"; do
    sum=$(apt_sum "$package:$arch")
    deb=$([ -n "$sum" ] && apt_fetch "$package:$arch" "$sum") || {
        echo "no package $package for $arch: the mirror has none" >&2
        exit 77
    }
    dpkg-deb --extract "$deb" "$folder"
    rm -rf "$(dirname "$deb")"
    mkdir -p "$folder/.unpacked"
    touch "$folder/.unpacked/$package"
done
