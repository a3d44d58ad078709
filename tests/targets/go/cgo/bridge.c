// The C side of main.go.
#include <stdint.h>
#include <time.h>

uint64_t calledBack(uint64_t);

static double thread_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

__attribute__((noinline, noclone)) uint64_t leaf(uint64_t x) {
    for (int i = 0; i < 1000000; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    return x;
}

__attribute__((noinline, noclone)) uint64_t outer_of_c(double seconds, int back) {
    uint64_t x = 88172645463325252u;
    for (double start = thread_seconds(); thread_seconds() - start < seconds;)
        x = (back ? calledBack(x) : leaf(x)) + 1;
    return x;
}
