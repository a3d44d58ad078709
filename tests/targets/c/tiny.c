// The other side of plt.c; a constructor that burns as well, so that the loader's own code is
// on a stack. The environment says for how long.
#include "burn.h"

NOINLINE uint64_t tiny(uint64_t x) { return x + 1; }

NOINLINE __attribute__((constructor)) void constructor(void) {
    const char *seconds = getenv("CONSTRUCTOR_SECONDS");
    if (seconds) {
        usleep(4000000); // until its tables are there
        burn(atof(seconds));
    }
}
