#!/bin/sh
# The linker of the arm64 build. rustc knows static programs for arm64 at a fixed address
# only; the compiler can make one that the kernel puts anywhere, as on x86-64.
for argument; do
    shift
    case "$argument" in
    -static | -no-pie) ;;
    *) set -- "$@" "$argument" ;;
    esac
done
exec aarch64-linux-gnu-gcc -static-pie "$@"
