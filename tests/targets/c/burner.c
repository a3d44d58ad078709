// A library that is loaded late: in_library burns.
#include "burn.h"

NOINLINE uint64_t library_inner(double seconds) {
    burn(seconds);
    return sink;
}

NOINLINE uint64_t in_library(double seconds) { return library_inner(seconds) + 1; }
