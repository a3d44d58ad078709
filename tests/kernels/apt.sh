# shellcheck shell=bash
# An apt of our own beside the machine's: sourced by image.sh and cross.sh. Everything lies
# in $cache; the machine's sources are only asked for their mirrors.
cache="${EVERFLAME_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/everflame}/kernels"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$cache/apt/partial"
# One at a time: two would write the same lists and unpack into the same places.
exec 9>"$cache/apt/lock"
flock 9
sources="$cache/apt/$(basename "$0" .sh).list"
: >"$sources"

# The machine's mirror of Debian's archive or of its security updates.
mirror() {
    case "$1" in
    main) [ -z "${EVERFLAME_DEBIAN:-}" ] || { echo "$EVERFLAME_DEBIAN" && return; } ;;
    security) [ -z "${EVERFLAME_DEBIAN_SECURITY:-}" ] || { echo "$EVERFLAME_DEBIAN_SECURITY" && return; } ;;
    esac
    local label=Debian
    [ "$1" = security ] && label=Debian-Security
    apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null |
        sed -n "s/^$label //p" | head -n 1
}

# apt_suites main|security SUITE… adds suites for both architectures.
apt_suites() {
    local uri suite signed=""
    uri=$(mirror "$1")
    [ -n "$uri" ] || return 0
    [ -r "$keyring" ] && signed=" signed-by=$keyring"
    shift
    for suite in "$@"; do echo "deb [arch=amd64,arm64$signed] $uri $suite main" >>"$sources"; done
}

ours() { APT_CONFIG="$sources.conf" "$@"; }

# Fetches the lists unless they are younger than a day.
apt_lists() {
    local lists="$sources.lists"
    mkdir -p "$lists/partial" "$cache/apt/archives/partial"
    : >"$cache/apt/status"
    cat >"$sources.conf" <<CONF
APT::Architecture "amd64";
APT::Architectures { "amd64"; "arm64"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
Dir::Etc::sourcelist "$sources";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$lists";
Dir::State::status "$cache/apt/status";
Dir::Cache "$cache/apt";
CONF
    [ -n "$(find "$lists/.fetched" -mtime -1 2>/dev/null)" ] && cmp -s "$sources" "$lists/.fetched" && return
    # Without a network what is there must do.
    if ours apt-get update -qq >/dev/null 2>&1; then cp "$sources" "$lists/.fetched"; fi
}

apt_names() { ours apt-cache search --names-only "$1" 2>/dev/null | cut -d' ' -f1 || true; }

# Checksum of the candidate of PACKAGE:ARCHITECTURE, empty where there is none.
apt_sum() { ours apt-cache show --no-all-versions "$1" 2>/dev/null | sed -n 's/^SHA256: //p' | head -n 1 || true; }

# Downloads PACKAGE:ARCHITECTURE, whose checksum is known, and prints where it is.
apt_fetch() {
    local folder="$cache/apt/archives/$2"
    mkdir -p "$folder"
    (cd "$folder" && ours apt-get download -qq "$1" >/dev/null 2>&1) || return 1
    local deb
    deb=$(find "$folder" -name '*.deb' | head -n 1)
    [ -n "$deb" ] && [ "$(sha256sum "$deb" | cut -d' ' -f1)" = "$2" ] || return 1
    echo "$deb"
}
