// A 32-bit program, which needs no 32-bit library: burns a second or two below a known chain.
// usage: i386 (no arguments)
static int system_call(int number, int a, int b, int c) {
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
    return result;
}

static volatile unsigned sink;

// CPU time by `times`, in hundredths of a second.
__attribute__((noinline, noclone)) void leaf(int hundredths) {
    int spent[4];
    unsigned x = 2463534242u;
    do {
        for (int i = 0; i < 100000; i++) {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
        }
        system_call(43, (int)spent, 0, 0);
    } while (spent[0] < hundredths);
    sink = x;
}

__attribute__((noinline, noclone)) int outer(int hundredths) {
    leaf(hundredths);
    return (int)(sink & 1);
}

void _start(void) {
    int seconds[2] = {4, 0}; // as all others here, until they are known
    system_call(162, (int)seconds, 0, 0); // nanosleep
    outer(150);
    system_call(4, 1, (int)"{}\n", 3); // write
    system_call(1, 0, 0, 0);
}
