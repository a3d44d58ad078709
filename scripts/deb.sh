#!/usr/bin/env bash
# Packs a finished program into a Debian package: with the units of deploy/systemd for a
# machine without Kubernetes, their settings in /etc/everflame, and what the program is made of.
#
#   scripts/deb.sh [--output DIR] ARCHITECTURE=PROGRAM…      e.g. amd64=target/release/everflame
#
# Leaves DIR/everflame_VERSION_ARCHITECTURE.deb (default: target/deb). Needs neither root nor
# more than dpkg-deb.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
output=target/deb programs=()
die() { echo "deb: $*" >&2 && exit 1; }
while [ $# -gt 0 ]; do
    case "$1" in
    --output) output="${2:?--output needs a value}" && shift 2 ;;
    amd64=* | arm64=*) programs+=("$1") && shift ;;
    *) echo "usage: scripts/deb.sh [--output DIR] amd64=PROGRAM arm64=PROGRAM" >&2 && exit 2 ;;
    esac
done
[ ${#programs[@]} -gt 0 ] || die "name a program: amd64=target/release/everflame"
command -v dpkg-deb >/dev/null || die "dpkg-deb is missing: build the package on Debian or Ubuntu, or install dpkg"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The same program gives the same package.
SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}"
export SOURCE_DATE_EPOCH
mkdir -p "$output"

package() {
    local arch="$1" program="$2" root="$work/$1"
    local docs="$root/usr/share/doc/everflame"
    [ -s "$program" ] || die "there is no program $program: run make build (or make build-arm64) first"
    put() { install -D -m "$1" "$2" "$root/$3"; }
    put 755 "$program" usr/bin/everflame
    for unit in deploy/systemd/*.service; do put 644 "$unit" "usr/lib/systemd/system/$(basename "$unit")"; done
    for settings in deploy/systemd/*.toml; do
        put 644 "$settings" "etc/everflame/$(basename "$settings")"
        echo "/etc/everflame/$(basename "$settings")"
    done | sort >"$work/conffiles"
    put 644 deploy/debian/copyright usr/share/doc/everflame/copyright
    put 644 deploy/debian/lintian-overrides usr/share/lintian/overrides/everflame
    put 644 docs/images.md usr/share/doc/everflame/README.md
    put 644 CHANGELOG.md usr/share/doc/everflame/NEWS.md
    scripts/sbom.sh "$arch=$program" | gzip -9n >"$docs/everflame.cdx.json.gz"
    # Debian's form of a changelog: the notable changes themselves are in NEWS.md.
    printf 'everflame (%s) unstable; urgency=medium\n\n  * See NEWS.md.\n\n -- %s  %s\n' "$version" \
        "$(sed -n 's/^Maintainer: //p' deploy/debian/control)" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | gzip -9n >"$docs/changelog.gz"
    chmod 644 "$docs"/*.gz
    install -D -m 644 "$work/conffiles" "$root/DEBIAN/conffiles"
    for script in postinst prerm postrm; do install -m 755 "deploy/debian/$script" "$root/DEBIAN/$script"; done
    sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$arch/" \
        -e "s/@SIZE@/$(du -sk --apparent-size --exclude=DEBIAN "$root" | cut -f1)/" deploy/debian/control >"$root/DEBIAN/control"
    (cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
    chmod 644 "$root"/DEBIAN/{control,md5sums}
    find "$root" -type d -exec chmod 755 {} +
    dpkg-deb --root-owner-group -Zxz -z2 --build "$root" "$output/everflame_${version}_$arch.deb" >/dev/null
    echo "deb: $output/everflame_${version}_$arch.deb, $(($(stat -c %s "$output/everflame_${version}_$arch.deb") / 1000000)) MB"
}
for program in "${programs[@]}"; do package "${program%%=*}" "${program#*=}"; done
