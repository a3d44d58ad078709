// Runs for a while, then loads the library beside it and burns there.
// usage: dlopened SECONDS [WARM_UP_SECONDS] [LIBRARY]
#include "burn.h"

int main(int argc, char **argv) {
    usleep((useconds_t)(argument(argc, argv, 2, 2) * 1e6));
    void *library = dlopen(argc > 3 ? argv[3] : "./libburner.so", RTLD_NOW);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    uint64_t (*in_library)(double) = (uint64_t (*)(double))dlsym(library, "in_library");
    double seconds = argument(argc, argv, 1, 5);
    uint64_t check = in_library(seconds);
    printf("{\"seconds\":%f,\"check\":%d}\n", seconds, (int)(check & 1));
    return 0;
}
