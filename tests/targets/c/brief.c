// A short life: 3 ms in one function. `cargo xtask soak` changes that function's name in
// copies of the file, so that each copy is another executable.
#include "burn.h"

NOINLINE void brief_00000000(void) { burn(0.003); }

int main(void) {
    brief_00000000();
    return 0;
}
