// What the small programs share: burning CPU time by the thread's own clock, inlined into
// the caller so that the time is the caller's.
#ifndef BURN_H
#define BURN_H
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __clang__
#define NOINLINE __attribute__((noinline))
#else
#define NOINLINE __attribute__((noinline, noclone))
#endif

static volatile uint64_t sink;

static inline double thread_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline __attribute__((always_inline)) void burn(double seconds) {
    double start = thread_seconds();
    uint64_t x = 88172645463325252u;
    do {
        for (int i = 0; i < 100000; i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
        }
    } while (thread_seconds() - start < seconds);
    sink = x;
}

static inline double argument(int argc, char **argv, int index, double otherwise) {
    return argc > index ? atof(argv[index]) : otherwise;
}
#endif
