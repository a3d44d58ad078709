// Burns inside a signal handler that interrupts a known chain: main > outer > interrupted >
// (signal frame) > handler. usage: signals SECONDS [WARM_UP_SECONDS]
#include "burn.h"

static volatile sig_atomic_t handled;

NOINLINE void handler(int number) {
    (void)number;
    burn(0.02);
    handled++;
}

NOINLINE uint64_t interrupted(double seconds) {
    double start = thread_seconds();
    while (thread_seconds() - start < seconds) {
        burn(0.002);
        kill(getpid(), SIGUSR1);
    }
    return sink;
}

NOINLINE uint64_t outer(double seconds) { return interrupted(seconds) + 1; }

int main(int argc, char **argv) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    sigaction(SIGUSR1, &action, NULL);
    usleep((useconds_t)(argument(argc, argv, 2, 0) * 1e6));
    uint64_t check = outer(argument(argc, argv, 1, 5));
    printf("{\"handled\":%d,\"check\":%d}\n", (int)handled, (int)(check & 1));
    return 0;
}
