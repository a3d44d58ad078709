// Maps every file it is given as code, as a program with a damaged library does, and burns.
// usage: hostile SECONDS FILE…
#include "burn.h"
#include <fcntl.h>
#include <sys/mman.h>

int main(int argc, char **argv) {
    int mapped = 0;
    for (int i = 2; i < argc; i++) {
        int file = open(argv[i], O_RDONLY);
        if (file >= 0 && mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0) != MAP_FAILED)
            mapped++;
    }
    burn(argument(argc, argv, 1, 5));
    printf("{\"mapped\":%d}\n", mapped);
    return 0;
}
