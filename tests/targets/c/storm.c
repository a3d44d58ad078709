// A storm of short lives: COUNT times fork and exec of this program, each of which burns 5 ms.
// usage: storm COUNT
#include "burn.h"

NOINLINE void short_life(void) { burn(0.005); }

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--child") == 0) {
        short_life();
        return 0;
    }
    char own[4096] = {0};
    if (readlink("/proc/self/exe", own, sizeof own - 1) < 0)
        return 1;
    int count = (int)argument(argc, argv, 1, 100), failed = 0;
    for (int i = 0; i < count && i < 100000; i++) {
        pid_t child = fork();
        if (child == 0) {
            execl(own, own, "--child", (char *)NULL);
            _exit(127);
        }
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0)
            failed++;
    }
    printf("{\"lives\":%d,\"failed\":%d}\n", count, failed);
    return 0;
}
