// Calls of a tiny function in another library, through whatever the linker puts between.
// usage: plt SECONDS [WARM_UP_SECONDS]
#include "burn.h"

uint64_t tiny(uint64_t x);

NOINLINE uint64_t calls(double seconds) {
    double start = thread_seconds();
    uint64_t x = 1;
    while (thread_seconds() - start < seconds)
        for (int i = 0; i < 100000; i++)
            x = tiny(x);
    return x;
}

NOINLINE uint64_t outer(double seconds) { return calls(seconds) + 1; }

int main(int argc, char **argv) {
    usleep((useconds_t)(argument(argc, argv, 2, 0) * 1e6));
    uint64_t check = outer(argument(argc, argv, 1, 1));
    printf("{\"check\":%d}\n", (int)(check & 1));
    return 0;
}
