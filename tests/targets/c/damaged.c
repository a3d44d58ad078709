// Stacks that nothing can walk to their end, made by hand: memory that cannot be read, frame
// pointers that lead nowhere, to themselves, or up a ladder without end.
// usage: damaged MODE SECONDS [WARM_UP_SECONDS]; MODE: unreadable, self, backwards, stray,
// unproven, ladder, trampoline
#include "burn.h"
#include <sys/mman.h>
#include <sys/syscall.h>

// Code without a word of unwind data, far enough from code that has some. `lost` burns with
// the frame pointer that it is given; `behind_a_call` is where a return address may point.
uint64_t lost(uint64_t rounds, const void *frame_pointer);
extern const char behind_a_call[], behind_no_call[];
__asm__(".pushsection .text\n.skip 256, 0xcc\n"
        ".globl lost\n.type lost, @function\nlost:\n"
        "push %rbp\n mov %rsi, %rbp\n mov $88172645463325252, %rax\n"
        "1: mov %rax, %rdx\n shl $13, %rdx\n xor %rdx, %rax\n mov %rax, %rdx\n shr $7, %rdx\n xor %rdx, %rax\n"
        "dec %rdi\n jnz 1b\n pop %rbp\n ret\n.size lost, . - lost\n.skip 64, 0xcc\n"
        ".globl caller\n.type caller, @function\ncaller:\n call lost\nbehind_a_call: nop\n.skip 16, 0x90\n"
        "behind_no_call: nop\n ret\n.size caller, . - caller\n.skip 256, 0xcc\n.popsection");

// The same with unwind data that says that the stack pointer is all there is to it: what it
// burns on is a stack made by hand.
uint64_t on_stack(uint64_t rounds, const void *stack);
__asm__(".pushsection .text\n.globl on_stack\n.type on_stack, @function\non_stack:\n.cfi_startproc\n"
        "mov %rsp, %r8\n mov %rsi, %rsp\n mov $88172645463325252, %rax\n"
        "1: mov %rax, %rdx\n shl $13, %rdx\n xor %rdx, %rax\n mov %rax, %rdx\n shr $7, %rdx\n xor %rdx, %rax\n"
        "dec %rdi\n jnz 1b\n mov %r8, %rsp\n ret\n.cfi_endproc\n.size on_stack, . - on_stack\n.popsection");

#define PAGE 4096
#define STEPS 3000

NOINLINE void leaf(double seconds) { burn(seconds); }

// Takes away the pages in which its caller's return address and those above it stand.
NOINLINE uint64_t hides(double seconds, char *above) {
    char *page = (char *)((uintptr_t)above / PAGE * PAGE);
    mprotect(page, 2 * PAGE, PROT_NONE);
    leaf(seconds);
    mprotect(page, 2 * PAGE, PROT_READ | PROT_WRITE);
    return sink;
}
NOINLINE uint64_t hidden(double seconds) {
    char room[8 * PAGE];
    __asm__ volatile("" : : "r"(room) : "memory");
    uint64_t check = hides(seconds, room + sizeof room);
    return check + 1;
}
// More than the pages that are taken, so that main's frame is not among them.
NOINLINE uint64_t outer(double seconds) {
    char room[3 * PAGE];
    __asm__ volatile("" : : "r"(room) : "memory");
    return hidden(seconds) + 1;
}

static const void *frame_pointer(const char *mode, uint64_t *room) {
    for (size_t i = 0; i < STEPS; i++) {
        room[2 * i] = (uint64_t)&room[2 * i + 2];
        room[2 * i + 1] = (uint64_t)behind_a_call;
    }
    room[2 * STEPS] = room[2 * STEPS + 1] = 0;
    if (strcmp(mode, "self") == 0)
        room[STEPS] = (uint64_t)&room[STEPS];
    if (strcmp(mode, "backwards") == 0)
        room[STEPS] = (uint64_t)&room[0];
    if (strcmp(mode, "stray") == 0)
        room[STEPS + 1] = 0x123456789;
    if (strcmp(mode, "unproven") == 0)
        room[STEPS + 1] = (uint64_t)behind_no_call;
    return strcmp(mode, "ladder") == 0 ? room : &room[STEPS];
}

// A stack on which a signal frame returns to itself, for ever; libc's own trampoline is its code.
static const void *signal_frame(uint64_t *room) {
    struct {
        void (*handler)(int);
        unsigned long flags;
        uint64_t restorer, mask;
    } kernels;
    signal(SIGUSR1, (void (*)(int))behind_no_call);
    syscall(SYS_rt_sigaction, SIGUSR1, NULL, &kernels, 8);
    uint64_t *frame = &room[1];
    room[0] = kernels.restorer;
    frame[160 / 8] = (uint64_t)frame; // the sp to return to
    frame[168 / 8] = kernels.restorer;
    frame[120 / 8] = 0;
    return room;
}

NOINLINE uint64_t astray(const char *mode, double seconds) {
    static const uint64_t rounds = 20000000;
    uint64_t room[2 * STEPS + 2];
    int trampoline = strcmp(mode, "trampoline") == 0;
    const void *at = trampoline ? signal_frame(room) : frame_pointer(mode, room);
    uint64_t x = 0;
    for (double start = thread_seconds(); thread_seconds() - start < seconds;)
        x += trampoline ? on_stack(rounds, at) : lost(rounds, at);
    return x;
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    usleep((useconds_t)(argument(argc, argv, 3, 0) * 1e6));
    double seconds = atof(argv[2]);
    uint64_t check = strcmp(argv[1], "unreadable") == 0 ? outer(seconds) : astray(argv[1], seconds);
    printf("{\"check\":%d}\n", (int)(check & 1));
    return 0;
}
