// The load of `cargo xtask soak`, in three kinds:
//   soak serve                  a server: a little work a hundred times a second, for ever
//   soak storm RATE FILE...     runs the files in turn, RATE a second, for ever
//   soak load RATE FILE...      loads and unloads the libraries in turn and calls into them
#include <dlfcn.h>

#include "burn.h"

NOINLINE void serve(void) { burn(0.0005); }

static void pause_for(double seconds) {
    struct timespec time = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
    nanosleep(&time, NULL);
}

static void run(char *file) {
    pid_t child = fork();
    if (child == 0) {
        execl(file, file, (char *)NULL);
        _exit(127);
    }
}

static void load(char *file) {
    void *library = dlopen(file, RTLD_NOW);
    uint64_t (*work)(double) = library ? (uint64_t (*)(double))dlsym(library, "in_library") : NULL;
    if (!work) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    work(0.001);
    dlclose(library);
}

int main(int argc, char **argv) {
    const char *kind = argc > 1 ? argv[1] : "serve";
    double rate = argument(argc, argv, 2, 100);
    double next = 0;
    for (unsigned long i = 0;; i++) {
        int files = argc - 3;
        if (strcmp(kind, "storm") == 0 && files > 0)
            run(argv[3 + i % files]);
        else if (strcmp(kind, "load") == 0 && files > 0)
            load(argv[3 + i % files]);
        else
            serve();
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
        next += 1 / rate;
        if (next > 0.01) { // sleeps are worth it from 10 ms on
            pause_for(next);
            next = 0;
        }
    }
}
