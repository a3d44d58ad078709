// Burns SECONDS of CPU below a recursion of 300 without frame pointers: twice the depth at
// which other profilers cut a stack. usage: deep SECONDS [WARM_UP_SECONDS] [DEPTH]
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <unistd.h>

static volatile uint64_t sink;

extern "C" __attribute__((noinline, noclone)) void bottom(double seconds) {
    uint64_t x = 9;
    timespec t;
    double start = -1, now;
    do {
        for (int i = 0; i < 100000; i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
        }
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        now = double(t.tv_sec) + double(t.tv_nsec) / 1e9;
        start = start < 0 ? now : start;
    } while (now - start < seconds);
    sink = x;
}

extern "C" __attribute__((noinline, noclone)) uint64_t dig(int depth, double seconds) {
    if (depth == 0) {
        bottom(seconds);
        return sink;
    }
    uint64_t below = dig(depth - 1, seconds);
    // Something to do after the call, so that the recursion cannot become a loop.
    asm volatile("" : "+r"(below));
    return below;
}

int main(int argc, char **argv) {
    if (argc > 2) {
        usleep(useconds_t(atof(argv[2]) * 1e6));
    }
    int depth = argc > 3 ? atoi(argv[3]) : 300;
    uint64_t check = dig(depth, argc > 1 ? atof(argv[1]) : 5);
    printf("{\"depth\":%d,\"check\":%d}\n", depth, int(check & 1));
    return 0;
}
