#!/usr/bin/env bash
# Packs finished programs into one OCI image, an entry for each architecture, without an
# engine: buildah follows deploy/image/Dockerfile, which runs nothing, in a storage that is
# gone afterwards.
#
#   scripts/image.sh [--name IMAGE[:TAG]] [--output DIR] ARCHITECTURE=PROGRAM…
#
# e.g. scripts/image.sh amd64=target/release/everflame. Leaves DIR/everflame.oci.tar (default:
# target/image), which `skopeo copy --all` brings to a registry and `ctr image import` to a
# node, and beside it what each program is made of (scripts/sbom.sh).
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name="" output=target/image programs=()
die() { echo "image: $*" >&2 && exit 1; }
while [ $# -gt 0 ]; do
    case "$1" in
    --name) name="${2:?--name needs a value}" && shift 2 ;;
    --output) output="${2:?--output needs a value}" && shift 2 ;;
    amd64=* | arm64=*) programs+=("$1") && shift ;;
    *) echo "usage: scripts/image.sh [--name IMAGE[:TAG]] [--output DIR] amd64=PROGRAM arm64=PROGRAM" >&2 && exit 2 ;;
    esac
done
[ ${#programs[@]} -gt 0 ] || die "name a program: amd64=target/release/everflame"
name="${name:-everflame}"
[[ "${name##*/}" == *:* ]] || name="$name:$version"
command -v buildah >/dev/null || die "buildah is missing: run scripts/setup.sh image"
authorities=/etc/ssl/certs/ca-certificates.crt
[ -s "$authorities" ] || die "$authorities is missing: install ca-certificates"

work=$(mktemp -d)
# What buildah unpacked may not be writable, even to its owner.
trap 'chmod -R u+rwX "$work" && rm -rf "$work"' EXIT
mkdir -p "$work/context" "$output"
cp "$authorities" "$work/context/"
platforms=()
for program in "${programs[@]}"; do
    arch="${program%%=*}" file="${program#*=}"
    [ -s "$file" ] || die "there is no program $file: run make build (or make build-arm64) first"
    case "$arch:$(od -An -tx1 -j18 -N1 "$file" | tr -d ' ')" in
    amd64:3e | arm64:b7) ;;
    *) die "$file is no program for $arch" ;;
    esac
    mkdir -p "$work/context/$arch"
    install -m 755 "$file" "$work/context/$arch/everflame"
    platforms+=("linux/$arch")
done

# The same programs give the same image.
time="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}"
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
b() { buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"; }
labels=()
for pair in title=Everflame "description=Continuous profiling of whole fleets" "version=$version" "revision=$revision" licenses=Apache-2.0; do
    labels+=(--label "org.opencontainers.image.$pair" --annotation "org.opencontainers.image.$pair")
done
b build --quiet --format oci --isolation chroot --timestamp "$time" "${labels[@]}" --manifest "$name" \
    --platform "$(IFS=, && echo "${platforms[*]}")" --file deploy/image/Dockerfile "$work/context" >/dev/null
rm -f "$output/everflame.oci.tar"
b manifest push --quiet --all "$name" "oci-archive:$output/everflame.oci.tar:$name" >/dev/null
for program in "${programs[@]}"; do
    arch="${program%%=*}"
    scripts/sbom.sh "$program" >"$output/everflame-$version-$arch.cdx.json"
done
echo "image: $output/everflame.oci.tar is $name for ${platforms[*]}, $(($(stat -c %s "$output/everflame.oci.tar") / 1000000)) MB"
