#!/usr/bin/env bash
# Finds the newest Debian kernel of a series and prints the path of its image and its
# package's name.
# usage: image.sh SERIES ARCHITECTURE      e.g. image.sh 6.1 amd64
#
# Packages are looked up in an apt of its own, which never touches the machine's lists and
# takes the mirrors from the machine's sources (or EVERFLAME_DEBIAN and
# EVERFLAME_DEBIAN_SECURITY). Lists are fetched once a day; images are kept by the checksum
# of their package, so that a second run needs no network. Ends with 77 where there is no
# image to be had.
set -euo pipefail
series="${1:?usage: image.sh SERIES ARCHITECTURE}"
arch="${2:?usage: image.sh SERIES ARCHITECTURE}"
cd "$(dirname "$0")"
source ./apt.sh

# The suites that between them have every series that is tested; small ones only.
apt_suites security bullseye-security bookworm-security trixie-security
apt_suites main trixie-backports
apt_lists

known="$cache/$series-$arch"

# Takes the kernel out of a package; `name` and `sum` as they were looked up.
extract() {
    local name="$1" sum="$2" deb="$3"
    mkdir -p "$cache/$sum"
    # Where newer packages keep it is not where older ones did.
    local path
    path=$(dpkg-deb --fsys-tarfile "$deb" | tar -t |
        sed -nE '\,^\./(boot/vmlinu[xz]-[^/]+|usr/lib/modules/[^/]+/vmlinu[xz])$,p')
    [ -n "$path" ] || return 1
    dpkg-deb --fsys-tarfile "$deb" | tar -xO "$path" >"$cache/$sum/vmlinuz.part"
    rm -rf "$(dirname "$deb")"
    mv "$cache/$sum/vmlinuz.part" "$cache/$sum/vmlinuz"
    (cd "$cache/$sum" && sha256sum vmlinuz >SHA256SUMS)
    printf '%s %s\n' "$name" "$sum" >"$known"
}

whole() { [ -s "$cache/$1/vmlinuz" ] && (cd "$cache/$1" && sha256sum --quiet --check SHA256SUMS >/dev/null 2>&1); }

# The newest that downloads: old ones vanish from mirrors before they do from lists.
for image in $(apt_names "^linux-image-${series//./\\.}(\.[0-9]+)*[-+][0-9a-z]+-cloud-$arch\$" | sort -rV | head -n 3); do
    # Newer packages keep the image in one of their own.
    for name in "${image/linux-image/linux-binary}" "$image"; do
        sum=$(apt_sum "$name:$arch")
        [ -n "$sum" ] || continue
        if whole "$sum"; then
            printf '%s %s\n' "$name" "$sum" >"$known"
            break 2
        fi
        deb=$(apt_fetch "$name:$arch" "$sum") || continue
        extract "$name" "$sum" "$deb" && break 2
    done
done

[ -s "$known" ] && read -r name sum <"$known" && whole "$sum" || {
    echo "no kernel $series for $arch: neither the mirror nor $cache has one" >&2
    exit 77
}
echo "$cache/$sum/vmlinuz $name"
