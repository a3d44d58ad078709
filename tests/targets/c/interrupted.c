// Signal handlers that interrupt a known chain at any instruction, since a timer of CPU time sends them:
// main > outer > interrupted > (signal frame) > first > (signal frame) > second.
// usage: interrupted MODE SECONDS [WARM_UP_SECONDS]; MODE: plain, siginfo, altstack, sent
#include "burn.h"
#include <sys/time.h>

static volatile uint64_t handled;

// A signal within the handler of a signal, from the kernel's point of view just another one.
NOINLINE void second(int number) {
    (void)number;
    burn(0.010);
    handled++;
}
NOINLINE void first(int number) {
    (void)number;
    burn(0.001);
    kill(getpid(), SIGUSR2);
    handled++;
}
static void with_information(int number, siginfo_t *information, void *context) {
    first(number + (information == NULL) + (context == NULL));
    sink++;
}

// So short that the signal often comes in its first or last instruction.
NOINLINE uint64_t tiny(uint64_t x) {
    uint64_t y = x ^ x << 13;
    y ^= y >> 7;
    return y ^ y << 17;
}

NOINLINE uint64_t interrupted(double seconds, int send) {
    double start = thread_seconds();
    uint64_t x = 88172645463325252u;
    while (thread_seconds() - start < seconds) {
        for (int i = 0; i < 20000; i++)
            x = tiny(x) + 1;
        if (send)
            kill(getpid(), SIGPROF);
    }
    return x;
}

NOINLINE uint64_t outer(double seconds, int send) { return interrupted(seconds, send) + 1; }

static void handle(int number, void (*handler)(int), int flags) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    if (flags & SA_SIGINFO)
        action.sa_sigaction = with_information;
    else
        action.sa_handler = handler;
    action.sa_flags = flags;
    sigaction(number, &action, NULL);
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    static char stack[1 << 16];
    stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
    int flags = SA_RESTART, send = strcmp(argv[1], "sent") == 0;
    if (strcmp(argv[1], "altstack") == 0) {
        sigaltstack(&other, NULL);
        flags |= SA_ONSTACK;
    }
    // The second handler of "altstack" runs where the first does.
    handle(SIGUSR2, second, flags);
    handle(SIGPROF, first, strcmp(argv[1], "siginfo") == 0 ? flags | SA_SIGINFO : flags);
    usleep((useconds_t)(argument(argc, argv, 3, 0) * 1e6));
    struct itimerval every = {{0, 14000}, {0, 14000}}, never = {{0, 0}, {0, 0}};
    if (!send)
        setitimer(ITIMER_PROF, &every, NULL);
    uint64_t check = outer(atof(argv[2]), send);
    setitimer(ITIMER_PROF, &never, NULL);
    printf("{\"handled\":%d,\"check\":%d}\n", (int)handled, (int)(check & 1));
    return 0;
}
