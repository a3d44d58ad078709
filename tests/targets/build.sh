#!/usr/bin/env bash
# Builds the programs with known truth into OUT; what is newer than its source is left alone.
# usage: build.sh OUT. Prints the names of those that could not be built, for want of a
# compiler, as `missing NAME`; a compiler's error ends it with 1.
set -euo pipefail
out="${1:?usage: build.sh OUT}"
mkdir -p "$out"
out="$(cd "$out" && pwd)"
cd "$(dirname "$0")"

# build NAME COMPILER SOURCE ARGUMENTS…
build() {
    local name="$1" compiler="$2" source="$3"
    shift 3
    if [ "$out/$name" -nt "$source" ] && [ "$out/$name" -nt c/burn.h ] && [ "$out/$name" -nt build.sh ]; then return; fi
    if ! command -v "$compiler" >/dev/null; then
        echo "missing $name"
        return
    fi
    case "$compiler" in
    go) GOFLAGS=-mod=mod GO111MODULE=off go build -o "$out/$name" "$@" "$source" ;;
    javac) javac -d "$out" "$source" && touch "$out/$name" ;;
    *) "$compiler" "$@" -o "$out/$name" "$source" ${LIBRARIES:-} ;;
    esac
}

bare=(-O2 -fomit-frame-pointer -g0)
build truth_cpp g++ cpp/truth.cc "${bare[@]}"
build deep g++ cpp/deep.cc "${bare[@]}"
build truth_musl musl-gcc c/truth.c "${bare[@]}" -static
build signals gcc c/signals.c "${bare[@]}"
build libburner.so gcc c/burner.c "${bare[@]}" -shared -fPIC
LIBRARIES=-ldl build dlopened gcc c/dlopened.c "${bare[@]}"
LIBRARIES=-lpthread build threads gcc c/threads.c "${bare[@]}"
build storm gcc c/storm.c "${bare[@]}"
build bpf_busy gcc c/bpf_busy.c "${bare[@]}"
build hostile gcc c/hostile.c "${bare[@]}"
build truth_rust rustc rust/truth.rs --edition 2024 -O -C force-frame-pointers=no
build truth_go go go/truth.go
build Truth.class javac java/Truth.java
