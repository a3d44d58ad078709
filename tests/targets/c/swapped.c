// One library after another at the same address: the first is closed, the second takes its
// place. usage: swapped FIRST SECOND SECONDS [WARM_UP_SECONDS]; the second runs twice as long
#include "burn.h"

NOINLINE uint64_t with(const char *path, double seconds, void **at) {
    void *library = dlopen(path, RTLD_NOW);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    uint64_t (*in_library)(double) = (uint64_t (*)(double))dlsym(library, "in_library");
    uint64_t result = in_library(seconds);
    *at = (void *)in_library;
    dlclose(library);
    return result + 1;
}

int main(int argc, char **argv) {
    if (argc < 4)
        return 2;
    usleep((useconds_t)(argument(argc, argv, 4, 0) * 1e6));
    void *first, *second;
    uint64_t check = with(argv[1], atof(argv[3]), &first) + with(argv[2], 2 * atof(argv[3]), &second);
    printf("{\"same\":%s,\"check\":%d}\n", first == second ? "true" : "false", (int)(check & 1));
    return 0;
}
