#!/usr/bin/env bash
# What a finished program is made of, as CycloneDX on standard output: the crates and the C
# libraries that are linked in, with versions, licences and checksums. The page is our own
# code alone: its npm packages only build it.
#
#   scripts/sbom.sh ARCHITECTURE=PROGRAM      e.g. amd64=target/release/everflame
#
# All of it stands in Cargo.lock and in the distribution's packages: nothing is installed for it.
set -euo pipefail
cd "$(dirname "$0")/.."

arch="${1%%=*}" program="${1#*=}"
case "$arch" in
amd64) triple=x86_64-unknown-linux-gnu gcc=gcc packages=(libc6-dev libelf-dev zlib1g-dev) ;;
arm64) triple=aarch64-unknown-linux-gnu gcc=aarch64-linux-gnu-gcc packages=(libc6-dev-arm64-cross) ;;
*) echo "usage: scripts/sbom.sh amd64=PROGRAM | arm64=PROGRAM" >&2 && exit 2 ;;
esac
command -v jq >/dev/null || { echo "sbom: jq is missing: run scripts/setup.sh image" >&2 && exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
time="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}"

cargo tree --locked --package everflame --target "$triple" --edges normal,no-proc-macro --prefix none --no-dedupe --format '{p}|{l}' |
    sed -n 's/^\([^ ]*\) v\([^ |]*\)[^|]*|\(.*\)$/\1\t\2\t\3/p' | sort -u >"$work/crates"
awk -F'"' '/^name = /{n=$2} /^version = /{v=$2} /^checksum = /{print n "\t" v "\t" $2}' Cargo.lock >"$work/sums"
# By their source packages, under whose names faults are reported.
compiler=$(dpkg-query --search "$("$gcc" -print-libgcc-file-name)" 2>/dev/null | cut -d: -f1 || true)
dpkg-query --show --showformat '${source:Package}\t${source:Version}\n' "${packages[@]}" $compiler 2>/dev/null >"$work/libraries" || true
if [ "$arch" = arm64 ]; then
    # Those that setup.sh unpacked beside the machine's own.
    for log in .tools/arm64/usr/share/doc/{libelf-dev,zlib1g-dev}/changelog.Debian.gz; do
        zcat "$log" 2>/dev/null | sed -n '1s/^\([^ ]*\) (\([^)]*\)).*/\1\t\2/p' || true
    done >>"$work/libraries"
fi

rows() { jq -R -s 'split("\n") | map(select(. != "") | split("\t"))' "$1"; }
jq -n --argjson crates "$(rows "$work/crates")" --argjson sums "$(rows "$work/sums")" --argjson libraries "$(rows "$work/libraries")" \
    --arg version "$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)" --arg arch "$arch" \
    --arg sum "$(sha256sum "$program" | cut -d' ' -f1)" --arg time "$(date -u -d "@$time" +%Y-%m-%dT%H:%M:%SZ)" '
    ($sums | map({key: "\(.[0]) \(.[1])", value: .[2]}) | from_entries) as $checksum
    | def sha256: if . then {hashes: [{alg: "SHA-256", content: .}]} else {} end;
    {bomFormat: "CycloneDX", specVersion: "1.5", version: 1,
     metadata: {timestamp: $time, component: ({type: "application", "bom-ref": "everflame", name: "everflame",
        version: $version, licenses: [{expression: "Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)"}],
        properties: [{name: "architecture", value: $arch}]} + ($sum | sha256))},
     components: (
        [$crates[] | select(.[0] | test("^everflame(-|$)") | not) | "pkg:cargo/\(.[0])@\(.[1])" as $purl
          | {type: "library", "bom-ref": $purl, name: .[0], version: .[1], purl: $purl,
             licenses: [{expression: .[2] | gsub(" */ *"; " OR ")}]} + ($checksum["\(.[0]) \(.[1])"] | sha256)]
        + [$libraries[] | "pkg:deb/debian/\(.[0])@\(.[1] | @uri)?arch=source" as $purl
          | {type: "library", "bom-ref": $purl, name: .[0], version: .[1], purl: $purl}]
        | unique_by(.purl))}'
