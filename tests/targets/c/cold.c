// Functions whose code is thrown out of memory again and again: who calls one stands at its first
// instruction until the page is back. They are too far apart to come together.
// usage: cold SECONDS [WARM_UP_SECONDS]
#include "burn.h"
#include <sys/mman.h>

// In the middle of a page: what stands on two of them has unwind rows for every instruction.
#define COLD(n)                                                                                                        \
    NOINLINE __attribute__((aligned(65536), patchable_function_entry(64, 64))) uint64_t cold_##n(uint64_t x) {         \
        volatile uint64_t y = x;                                                                                       \
        return y * 3 + n;                                                                                              \
    }
COLD(0)
COLD(1)
COLD(2)
COLD(3)
COLD(4)
COLD(5)
COLD(6)
COLD(7)

static uint64_t (*const all[])(uint64_t) = {cold_0, cold_1, cold_2, cold_3, cold_4, cold_5, cold_6, cold_7};

int main(int argc, char **argv) {
    usleep((useconds_t)(argument(argc, argv, 2, 0) * 1e6));
    double seconds = argument(argc, argv, 1, 1), start = thread_seconds();
    uint64_t x = 1;
    while (thread_seconds() - start < seconds)
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
            madvise((void *)((uintptr_t)all[i] & -4096ul), 4096, MADV_DONTNEED);
            x = all[i](x);
        }
    sink = x;
    printf("{\"check\":%d}\n", (int)(x & 1));
    return 0;
}
