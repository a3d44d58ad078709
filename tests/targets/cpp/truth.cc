// Known truth in C++: 60/30/10 % of the thread's own CPU time in three functions below a
// recursion of 30, without frame pointers. usage: truth_cpp SECONDS [WARM_UP_SECONDS]
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))

// Rounds of arithmetic beside the time: where the clock is emulated they are the truth.
static uint64_t spent[3], rounds[3];
static volatile uint64_t sink;

static inline uint64_t now() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return uint64_t(t.tv_sec) * 1000000000u + uint64_t(t.tv_nsec);
}

// Inlined into each of the three, so that the arithmetic is theirs. The clock is read
// about every 100 us: its own share stays below half a percent.
static inline __attribute__((always_inline)) void burn(uint64_t nanoseconds, uint64_t seed, int which) {
    uint64_t start = now(), end = start, x = seed | 1;
    do {
        for (int i = 0; i < 100000; i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
        }
        end = now();
        rounds[which]++;
    } while (end - start < nanoseconds);
    sink = x;
    spent[which] += end - start;
}

extern "C" NOINLINE void work_a(uint64_t ns) { burn(ns, 3, 0); }
extern "C" NOINLINE void work_b(uint64_t ns) { burn(ns, 5, 1); }
extern "C" NOINLINE void work_c(uint64_t ns) { burn(ns, 7, 2); }

extern "C" NOINLINE uint64_t descend(int depth, int which, uint64_t ns) {
    if (depth > 1) {
        uint64_t below = descend(depth - 1, which, ns);
        // Something to do after the call, so that the recursion cannot become a loop.
        asm volatile("" : "+r"(below));
        return below;
    }
    if (which == 0) {
        work_a(ns);
    } else if (which == 1) {
        work_b(ns);
    } else {
        work_c(ns);
    }
    return sink;
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 10;
    if (argc > 2) {
        usleep(useconds_t(atof(argv[2]) * 1e6));
    }
    uint64_t random = 88172645463325252u, total = 0, check = 0;
    while (total < uint64_t(seconds * 1e9)) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        uint64_t pick = (random >> 33) % 100, ns = 500000 + (random >> 20) % 3500000;
        check += descend(30, pick < 60 ? 0 : pick < 90 ? 1 : 2, ns);
        total = spent[0] + spent[1] + spent[2];
    }
    printf("{\"work_a\":%llu,\"work_b\":%llu,\"work_c\":%llu,\"rounds\":[%llu,%llu,%llu],\"check\":%llu}\n",
           (unsigned long long)spent[0], (unsigned long long)spent[1], (unsigned long long)spent[2],
           (unsigned long long)rounds[0], (unsigned long long)rounds[1], (unsigned long long)rounds[2],
           (unsigned long long)(check & 1));
    return 0;
}
