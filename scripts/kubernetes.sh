#!/usr/bin/env bash
# A real Kubernetes for tests/kubernetes: API server, controller manager, scheduler, kubelet,
# kubectl, etcd, containerd and its network plugins, as Debian 12 has them.
#
#   scripts/kubernetes.sh        builds or fetches what is missing, prints the folder
#   scripts/kubernetes.sh find   only looks: the folder, or ends with 77
#   scripts/kubernetes.sh tools, find-tools   the same for helm, kustomize and OpenTelemetry's
#                                collector, which Debian lacks: from Go's modules
#
# Debian packages of Kubernetes only the client, but its source package holds all of it. The
# build takes 10 to 15 minutes on two idle cores, once: the result is kept, with checksums, in
# ${XDG_CACHE_HOME:-~/.cache}/everflame. Nothing is installed and no root is needed: packages
# are unpacked there, since Debian's would start their daemons.
set -euo pipefail
cd "$(dirname "$0")/../tests/kernels"
# shellcheck source=../tests/kernels/apt.sh
source ./apt.sh

VERSION=1.20.2
RECIPE=2          # raised when the folder's content changes
HELM=v3.19.5
KUSTOMIZE=v5.7.1
COLLECTOR=v0.165.0
top=$(dirname "$cache")
# An apt of its own beside that of the kernels' tests, which may run at the same time.
cache="$top/kubernetes-packages"
mkdir -p "$cache/apt/partial"
sources="$cache/apt/kubernetes.list"
out="$top/kubernetes-$VERSION-$RECIPE"
work="$out.build"
tools="$top/kubernetes-tools-$HELM-$KUSTOMIZE-$COLLECTOR"
collector=$(realpath ../kubernetes/collector)

say() { echo "kubernetes: $*" >&2; }
die() { say "$@" && exit 1; }
whole() { [ -s "$1/SHA256SUMS" ] && (cd "$1" && sha256sum --quiet --check SHA256SUMS >/dev/null 2>&1); }
# Names the content and puts it in its place at once.
keep() { (cd "$1" && find . -type f ! -name SHA256SUMS | sort | xargs sha256sum >SHA256SUMS) && rm -rf "$2" && mv "$1" "$2"; }

case "${1:-build}" in
find)
    whole "$out" || { say "there is none in $out: run scripts/kubernetes.sh (once, 10 to 15 minutes)" && exit 77; }
    echo "$out" && exit
    ;;
find-tools)
    whole "$tools" || { say "there is no helm, kustomize and collector in $tools: run scripts/kubernetes.sh tools" && exit 77; }
    echo "$tools" && exit
    ;;
build | tools) ;;
*)
    echo "usage: scripts/kubernetes.sh [build|find|tools|find-tools]" >&2
    exit 2
    ;;
esac

# One build at a time.
mkdir -p "$top"
exec 9>"$top/kubernetes.lock"
flock 9

if [ "${1:-build}" = tools ]; then
    if ! whole "$tools"; then
        command -v go >/dev/null || die "helm, kustomize and the collector need Go 1.24 or newer in PATH"
        mkdir -p "$tools.part"
        for tool in "helm.sh/helm/v3/cmd/helm@$HELM" "sigs.k8s.io/kustomize/kustomize/v5@$KUSTOMIZE"; do
            say "building $tool"
            (cd "$tools.part" && GOFLAGS=-trimpath CGO_ENABLED=0 GOBIN=$PWD nice -n 19 go install -ldflags="-s -w" "$tool") ||
                die "cannot build $tool: Go 1.24 or newer and its module proxy are needed"
        done
        say "building OpenTelemetry's collector $COLLECTOR"
        rm -rf "$tools.source" && mkdir "$tools.source" && cp "$collector/main.go" "$tools.source/"
        (
            cd "$tools.source"
            export GOFLAGS="-trimpath -mod=mod" CGO_ENABLED=0
            go mod init otelcol && go get "go.opentelemetry.io/collector/otelcol@$COLLECTOR" \
                "go.opentelemetry.io/collector/receiver/otlpreceiver@$COLLECTOR" \
                "go.opentelemetry.io/collector/exporter/otlpexporter@$COLLECTOR" && go mod tidy &&
                nice -n 19 go build -ldflags="-s -w" -o "$tools.part/otelcol" .
        ) >&2 || die "cannot build the collector: Go 1.25 or newer and its module proxy are needed"
        rm -rf "$tools.source"
        keep "$tools.part" "$tools"
    fi
    echo "$tools" && exit
fi

if whole "$out"; then echo "$out" && exit; fi
command -v gcc >/dev/null || die "gcc is missing: run scripts/setup.sh build"
free=$(df --output=avail -k "$top" | tail -n 1)
[ "$free" -gt 6000000 ] || die "the build needs 6 GB in $top: only $((free / 1000000)) GB are free"

# ---- packages ---------------------------------------------------------------------------
uri=$(mirror main)
[ -n "$uri" ] || die "no mirror of Debian in this machine's apt sources: set EVERFLAME_DEBIAN to one"
signed=""
[ -r "$keyring" ] && signed=" signed-by=$keyring"
printf 'deb [arch=amd64%s] %s bookworm main\ndeb-src [arch=amd64%s] %s bookworm main\n' \
    "$signed" "$uri" "$signed" "$uri" >"$sources"
apt_lists

mkdir -p "$work/debian"
# Unpacks PACKAGE into $work/debian, unless it is there.
unpack() {
    local sum deb
    [ -e "$work/unpacked-$1" ] && return
    sum=$(apt_sum "$1")
    [ -n "$sum" ] || die "Debian 12 has no package $1"
    say "fetching $1"
    deb=$(apt_fetch "$1" "$sum") || die "cannot fetch $1: is the mirror $uri reachable?"
    dpkg-deb -x "$deb" "$work/debian"
    rm -rf "$(dirname "$deb")"
    touch "$work/unpacked-$1"
}
for package in containerd etcd-server containernetworking-plugins kubernetes-client busybox-static \
    golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev; do
    unpack "$package"
done

# ---- source -----------------------------------------------------------------------------
source_tree="$work/go/src/k8s.io/kubernetes"
if [ ! -e "$work/source" ]; then
    say "fetching the source of Kubernetes $VERSION"
    mkdir -p "$work/download" "$source_tree"
    # apt checks the files against the signed list.
    (cd "$work/download" && ours apt-get source -qq --download-only "kubernetes" >&2) ||
        die "cannot fetch the source package: is the mirror $uri reachable?"
    orig=$(find "$work/download" -name "kubernetes_*$VERSION.orig.tar.*" | head -n 1)
    [ -n "$orig" ] || die "Debian's source package is not of version $VERSION"
    tar -xf "$orig" -C "$source_tree" --strip-components=1
    # The vendored release crashes when built by Go 1.18 or newer.
    rm -rf "$source_tree/vendor/github.com/modern-go/reflect2"
    cp -a "$work/debian/usr/share/gocode/src/github.com/modern-go/reflect2" "$source_tree/vendor/github.com/modern-go/"
    touch "$work/source"
fi

# ---- build ------------------------------------------------------------------------------
# Debian's Go finds its standard library by links that hold inside an unpacked tree too.
export GOROOT="$work/debian/usr/lib/go-1.19" GOPATH="$work/go" GOCACHE="$work/cache" GO111MODULE=off
export GOFLAGS=-trimpath PATH="$work/debian/usr/lib/go-1.19/bin:$PATH"
unset GOTOOLCHAIN
cd "$source_tree"

# The descriptions of all types are generated by upstream's build and are in no tarball.
if ! ls pkg/generated/openapi/zz_generated.openapi.go >/dev/null 2>&1; then
    say "generating descriptions of the API"
    nice -n 19 go build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
    tagged() { grep -rl --include='*.go' '+k8s:openapi-gen=' "$@" | grep -vE '/(testdata|_examples|code-generator)/' | xargs dirname | sort -u; }
    packages=$(
        tagged pkg | sed 's,^,k8s.io/kubernetes/,'
        cd staging/src && tagged k8s.io | sed 's,^,k8s.io/kubernetes/vendor/,'
    )
    nice -n 19 "$work/openapi-gen" --logtostderr -i "$(paste -sd, <<<"$packages")" \
        -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
        -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$work/violations" --output-base "$work/go/src" >&2
fi

# Where both lie in a tree with vendored packages.
vendored=k8s.io/kubernetes/vendor/k8s.io
flags="-s -w"
for pair in gitVersion=v$VERSION gitMajor=1 gitMinor=20 gitTreeState=clean buildDate=2021-01-13T00:00:00Z; do
    flags+=" -X $vendored/component-base/version.$pair -X $vendored/client-go/pkg/version.$pair"
done
say "building Kubernetes $VERSION: 10 to 15 minutes on two idle cores"
mkdir -p "$work/bin"
# Without the clouds' and Docker's own parts, which no test uses.
nice -n 19 go build -tags "providerless dockerless" -ldflags "$flags" -o "$work/bin/" \
    ./cmd/kube-apiserver ./cmd/kube-controller-manager ./cmd/kube-scheduler ./cmd/kubelet >&2

# ---- keep -------------------------------------------------------------------------------
rm -rf "$out.part" && mkdir -p "$out.part/bin" "$out.part/cni"
cp "$work"/bin/* "$out.part/bin/"
(cd "$work/debian/usr/bin" && cp containerd containerd-shim-runc-v2 ctr etcd kubectl "$out.part/bin/")
cp "$work/debian/bin/busybox" "$out.part/bin/"
(cd "$work/debian/usr/lib/cni" && cp ptp host-local loopback "$out.part/cni/")
keep "$out.part" "$out"
# Go makes what it keeps read-only.
chmod -R u+w "$work" && rm -rf "$work" "$cache"
echo "$out"
