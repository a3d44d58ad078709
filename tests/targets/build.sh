#!/usr/bin/env bash
# Builds the programs with known truth into OUT; what is newer than its source is left alone.
# usage: build.sh OUT [arm64]; with arm64 those that its virtual machines run. Prints the names of those that could not be built, for want of a
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
    if ! command -v "${compiler/cgo/go}" >/dev/null; then
        echo "missing $name"
        return
    fi
    case "$compiler" in
    go) GOFLAGS=-mod=mod GO111MODULE=off go build -o "$out/$name" "$@" "$source" ;;
    cgo) GOFLAGS=-mod=mod GO111MODULE=off CGO_ENABLED=1 go build -o "$out/$name" "$@" "./$(dirname "$source")" ;;
    javac) javac -d "$out" "$source" && touch "$out/$name" ;;
    *) "$compiler" "$@" -o "$out/$name" "$source" ${LIBRARIES:-} ;;
    esac
}

bare=(-O2 -fomit-frame-pointer -g0)
if [ "${2:-}" = arm64 ]; then
    prefix=aarch64-linux-gnu
    build truth_cpp $prefix-g++ cpp/truth.cc "${bare[@]}"
    build deep $prefix-g++ cpp/deep.cc "${bare[@]}"
    build interrupted $prefix-gcc c/interrupted.c "${bare[@]}"
    musl="$(cd ../.cache/arm64/usr 2>/dev/null && pwd)" || musl=
    if [ -n "$musl" ]; then
        lib="$musl/lib/aarch64-linux-musl"
        LIBRARIES="$lib/libc.a -lgcc $lib/libc.a $lib/crtn.o" build truth_musl $prefix-gcc c/truth.c "${bare[@]}" \
            -static -no-pie -nostdinc -isystem "$musl/include/aarch64-linux-musl" -nostdlib "$lib/crt1.o" "$lib/crti.o"
    fi
    if rustc --print target-libdir --target aarch64-unknown-linux-gnu 2>/dev/null | xargs ls >/dev/null 2>&1; then
        build truth_rust rustc rust/truth.rs --edition 2024 -O -C force-frame-pointers=no \
            --target aarch64-unknown-linux-gnu -C linker=$prefix-gcc
    fi
    exit
fi
build truth_cpp g++ cpp/truth.cc "${bare[@]}"
for level in O0 O3; do build "truth_cpp_$level" g++ cpp/truth.cc "-$level" -fomit-frame-pointer -g0; done
build truth_cpp_lto g++ cpp/truth.cc "${bare[@]}" -flto
build deep g++ cpp/deep.cc "${bare[@]}"
build truth_musl musl-gcc c/truth.c "${bare[@]}" -static
build libburner.so gcc c/burner.c "${bare[@]}" -shared -fPIC
build libburner2.so gcc c/burner.c "${bare[@]}" -shared -fPIC -Dlibrary_inner=other_inner
LIBRARIES=-ldl build dlopened gcc c/dlopened.c "${bare[@]}"
LIBRARIES=-ldl build swapped gcc c/swapped.c "${bare[@]}"
LIBRARIES=-lpthread build threads gcc c/threads.c "${bare[@]}"
build cold gcc c/cold.c -O2 -fno-omit-frame-pointer -g0
build storm gcc c/storm.c "${bare[@]}"
build brief gcc c/brief.c "${bare[@]}"
LIBRARIES=-ldl build soak gcc c/soak.c "${bare[@]}"
build lives gcc c/lives.c "${bare[@]}"
build lives_musl musl-gcc c/lives.c "${bare[@]}" -static
build bpf_busy gcc c/bpf_busy.c "${bare[@]}"
build hostile gcc c/hostile.c "${bare[@]}"
build truth_rust rustc rust/truth.rs --edition 2024 -O -C force-frame-pointers=no
build truth_go go go/truth.go
build Truth.class javac java/Truth.java

# The same shapes by several compilers, at several levels, against both libcs.
for level in 0 1 2 3 s; do build "frames_O$level" gcc c/frames.c "-O$level" -fomit-frame-pointer -g0; done
build frames_fp gcc c/frames.c -O2 -fno-omit-frame-pointer -g0
build frames_lto gcc c/frames.c "${bare[@]}" -flto
build frames_vfork gcc c/frames.c "${bare[@]}"
build frames_gold gcc c/frames.c "${bare[@]}" -fuse-ld=gold
build frames_clang "${CLANG:-$(compgen -c clang- | grep -x 'clang-[0-9]*' | sort -V | tail -1)}" c/frames.c "${bare[@]}"
build frames_static gcc c/frames.c "${bare[@]}" -static
build frames_static_pie gcc c/frames.c "${bare[@]}" -static-pie
build frames_musl musl-gcc c/frames.c "${bare[@]}" -static
build frames_musl_dynamic musl-gcc c/frames.c "${bare[@]}"
build interrupted gcc c/interrupted.c "${bare[@]}"
build interrupted_musl musl-gcc c/interrupted.c "${bare[@]}" -static
build damaged gcc c/damaged.c "${bare[@]}"
build libtiny.so gcc c/tiny.c "${bare[@]}" -shared -fPIC
beside=("-L$out" "-Wl,-rpath,$out")
LIBRARIES=-ltiny build plt gcc c/plt.c "${bare[@]}" -Wl,-z,lazy "${beside[@]}"
LIBRARIES=-ltiny build plt_ibt gcc c/plt.c "${bare[@]}" -fcf-protection -Wl,-z,ibtplt "${beside[@]}"
LIBRARIES=-ltiny build plt_none gcc c/plt.c "${bare[@]}" -fno-plt "${beside[@]}"
build i386 gcc c/i386.c -m32 -O2 -nostdlib -ffreestanding -static -fno-pie -no-pie -fno-stack-protector
build in_flight g++ cpp/in_flight.cc "${bare[@]}" -std=c++20
build panics rustc rust/panics.rs --edition 2024 -O -C force-frame-pointers=no
build cgo cgo go/cgo/main.go
