// Frames of every native shape, one mode each: main > outer > (the shape) > ... > leaf, where
// all the time is spent. Built by several compilers, at several levels and against both libcs.
// usage: frames MODE SECONDS [WARM_UP_SECONDS]
#include "burn.h"
#include <alloca.h>
#include <sched.h>
#include <sys/syscall.h>

typedef uint64_t shape(double);

// Nothing can become a jump: there is something to do after every call.
#define AND_THEN(call)                                                                                                 \
    uint64_t below = call;                                                                                             \
    __asm__ volatile("" : "+r"(below));                                                                                \
    return below

NOINLINE uint64_t leaf(double seconds) {
    burn(seconds);
    return sink;
}

// A call that never returns at the very end: its return address is the next function's.
static double until;
__attribute__((noreturn)) NOINLINE static void never_returns(void) {
    leaf(until);
    printf("{\"check\":%d}\n", (int)(sink & 1));
    fflush(stdout);
    _exit(0);
}
NOINLINE uint64_t ends_in_call(double seconds) {
    until = seconds;
    never_returns();
}
NOINLINE uint64_t behind_the_end(double seconds) { AND_THEN(leaf(seconds) + 3); }

NOINLINE uint64_t plain(double seconds) { AND_THEN(leaf(seconds)); }

// Far more than 32 KiB and than 64 KiB in one frame.
NOINLINE uint64_t large_frame(double seconds) {
    volatile char room[200000];
    room[0] = 1, room[sizeof room - 1] = 2;
    AND_THEN(leaf(seconds) + (uint64_t)room[0]);
}

NOINLINE uint64_t variable_frame(double seconds) {
    volatile char *room = alloca(40000 + (size_t)seconds * 16);
    room[0] = 1;
    AND_THEN(leaf(seconds) + (uint64_t)room[0]);
}

// The stack pointer is rounded down: the CFA is a DWARF expression in gcc's data.
NOINLINE uint64_t aligned_frame(double seconds) {
    _Alignas(64) volatile char room[64];
    volatile char *more = alloca(128 + (size_t)seconds * 16);
    room[0] = 1, more[0] = 2;
    AND_THEN(leaf(seconds) + (uint64_t)room[0]);
}
__attribute__((force_align_arg_pointer)) NOINLINE uint64_t realigned_frame(double seconds) { AND_THEN(leaf(seconds)); }
// Many short calls of such functions: samples stand in their first and last instructions.
__attribute__((force_align_arg_pointer)) NOINLINE uint64_t aligned_leaf(uint64_t x) {
    volatile uint64_t room[8];
    room[x & 7] = x;
    return room[0] + room[7];
}
NOINLINE uint64_t aligned_edges(double seconds) {
    double start = thread_seconds();
    uint64_t x = 1;
    while (thread_seconds() - start < seconds)
        for (int i = 0; i < 100000; i++)
            x += aligned_leaf(x);
    return x;
}

// libc's own hand-written code, in the sizes between which it chooses.
NOINLINE uint64_t strings(double seconds) {
    static char from[1 << 16], to[1 << 16];
    double start = thread_seconds();
    uint64_t x = 1;
    memset(from, 'a', sizeof from - 1);
    while (thread_seconds() - start < seconds)
        for (size_t n = 1; n < sizeof from; n = n * 3 + 1)
            for (int i = 0; i < 200; i++) {
                memcpy(to, from, n);
                memmove(to + 1, to, n - 1);
                memset(to, (int)n & 127, n);
                from[n] = 0;
                x += strlen(from) + (size_t)memcmp(to, from, n) + (strchr(from, 'b') != NULL);
                from[n] = 'a';
            }
    return x;
}

NOINLINE uint64_t clocks(double seconds) {
    double start = thread_seconds();
    struct timespec t;
    uint64_t x = 0;
    while (thread_seconds() - start < seconds)
        for (int i = 0; i < 10000; i++) {
            clock_gettime(CLOCK_MONOTONIC, &t);
            x += (uint64_t)t.tv_nsec;
        }
    return x;
}

// The child runs on its parent's stack, in its parent's memory, before it execs.
NOINLINE uint64_t vforked(double seconds) {
    pid_t child = vfork();
    if (child == 0) {
        leaf(seconds);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    return sink;
}

static void *thread(void *seconds) {
    leaf(*(double *)seconds);
    return NULL;
}
NOINLINE uint64_t threaded(double seconds) {
    pthread_t id;
    pthread_create(&id, NULL, thread, &seconds);
    pthread_join(id, NULL);
    return sink;
}

// On a stack of its own, which ends where makecontext made it begin. musl has no such thing.
#ifdef __GLIBC__
#include <ucontext.h>
static ucontext_t here, there;
static void coroutine(void) {
    for (double spent = 0, seconds = until; spent < seconds; spent += 0.05) {
        leaf(0.05);
        swapcontext(&there, &here);
    }
    until = 0;
}
NOINLINE uint64_t contexts(double seconds) {
    static char stack[1 << 16];
    getcontext(&there);
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = sizeof stack;
    there.uc_link = &here;
    makecontext(&there, coroutine, 0);
    until = seconds;
    while (until > 0)
        swapcontext(&here, &there);
    return sink;
}
#else
#define contexts plain
#endif

static double at_exit_seconds;
static void at_exit(void) { sink += leaf(at_exit_seconds); }
NOINLINE uint64_t exits(double seconds) {
    at_exit_seconds = seconds;
    atexit(at_exit);
    return 0;
}

static const struct {
    const char *name;
    shape *run;
} shapes[] = {
    {"plain", plain},
    {"large", large_frame},
    {"variable", variable_frame},
    {"aligned", aligned_frame},
    {"realigned", realigned_frame},
    {"edges", aligned_edges},
    {"noreturn", ends_in_call},
    {"behind", behind_the_end},
    {"strings", strings},
    {"clocks", clocks},
    {"vfork", vforked},
    {"thread", threaded},
    {"exit", exits},
    {"context", contexts},
};

NOINLINE uint64_t outer(shape *run, double seconds) { AND_THEN(run(seconds)); }

int main(int argc, char **argv) {
    usleep((useconds_t)(argument(argc, argv, 3, 0) * 1e6));
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (argc > 2 && strcmp(argv[1], shapes[i].name) == 0) {
            uint64_t check = outer(shapes[i].run, atof(argv[2]));
            printf("{\"check\":%d}\n", (int)(check & 1));
            return 0;
        }
    fprintf(stderr, "usage: frames MODE SECONDS [WARM_UP_SECONDS]\n");
    return 2;
}
