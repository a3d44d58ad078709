/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The examiner of the walk: it gets registers, mappings, tables and memory made of any
 * bytes, under the compiler's sanitizers, and every answer is checked. Built and run by
 * tests/e2e/tests/suite/examiner.rs. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "host.c"

/* What a case begins with; little endian. Behind it: mappings, places, elements, and the
 * rest is the stack from sp on. */
struct head {
    __u64 pc, sp, fp;
    __u8 mappings;
    __u8 places;
    __u16 elements;
    __u8 memory; /* what else can be read: */
    __u8 reserved[3];
};
#define MEMORY_NOISE 1 /* everything, and it is noise */
#define MEMORY_LOOP 2  /* everything, and each word is the stack pointer */

struct memory {
    const __u8 *stack;
    __u64 sp, size, reads, kind;
};

static int read_memory(void *context, __u64 address, void *to, __u32 size) {
    struct memory *m = context;
    m->reads++;
    if (size > 16)
        __builtin_trap(); /* more than any step asks for */
    if (address - m->sp < m->size && size <= m->size - (address - m->sp)) {
        memcpy(to, m->stack + (address - m->sp), size);
        return 0;
    }
    if (!(m->kind & (MEMORY_NOISE | MEMORY_LOOP)))
        return -1;
    for (__u32 i = 0; i < size; i++) {
        __u64 noise = (address + i) * 0x9E3779B97F4A7C15ull;
        ((__u8 *)to)[i] = m->kind & MEMORY_LOOP ? m->sp >> (i % 8 * 8) : noise >> 56;
    }
    return 0;
}

/* A copy of its own, so that a read beyond it is seen. */
static void *piece(const __u8 **from, size_t *left, size_t size, size_t least) {
    void *copy = malloc(size > least ? size : least);
    if (!copy)
        abort();
    memset(copy, 0, least);
    size_t there = size < *left ? size : *left;
    memset((__u8 *)copy + there, 0, size - there);
    memcpy(copy, *from, there);
    *from += there;
    *left -= there;
    return copy;
}

static void check(int holds, const char *what) {
    if (holds)
        return;
    fprintf(stderr, "the walk breaks a promise: %s\n", what);
    abort();
}

int LLVMFuzzerTestOneInput(const __u8 *data, size_t size) {
    struct head head;
    if (size < sizeof(head))
        return 0;
    memcpy(&head, data, sizeof(head));
    data += sizeof(head);
    size -= sizeof(head);
    __u32 count = head.mappings % 33, places = head.places % 17, elements = head.elements % 1025;
    struct mapping *mappings = piece(&data, &size, count * sizeof(struct mapping), 1);
    __u32 *words = piece(&data, &size, places * sizeof(__u32), 1);
    __u8 *rows = piece(&data, &size, elements * ELEMENT_SIZE, 1);
    struct memory memory = {.stack = data, .sp = head.sp, .size = size, .kind = head.memory};
    struct array chunk = {rows, elements, ELEMENT_SIZE};
    __u64 *frames[2];
    struct host host[2];
    __u64 reads[2];
    for (int i = 0; i < 2; i++) {
        frames[i] = malloc(USER_FRAMES * sizeof(__u64));
        host[i] = (struct host){
            .mappings = {mappings, count, sizeof(struct mapping)},
            .row_chunks = {&chunk, 1, sizeof(chunk)},
            .tables = {words, places, sizeof(__u32)},
            .read = read_memory,
            .memory = &memory,
            .at = {.pc = head.pc, .sp = head.sp, .fp = head.fp},
            .address_mask = ABSOLUTE_MASK,
            .frames = frames[i],
            .reason = ~0u,
        };
        for (int n = 0; n < GENERAL_REGISTERS; n++) /* somewhere on the stack, most of them */
            host[i].at.general[n] = n == 15 ? head.fp : head.sp + n * 8;
        memory.reads = 0;
        everflame_walk(&host[i]);
        reads[i] = memory.reads;
    }
    __u32 taken = host[0].taken, reason = host[0].reason;
    check(taken <= USER_FRAMES, "no more frames than there is room for");
    check(reason == COMPLETE || reason == DEPTH_LIMIT || reason == NO_UNWIND_INFO || reason == UNREADABLE_MEMORY ||
              reason == UNVERIFIED_FRAME_POINTER || reason == UNKNOWN_MAPPING,
          "it ends for a reason that can be");
    check(reason != DEPTH_LIMIT || taken == USER_FRAMES, "the depth is a reason at its limit only");
    check(reads[0] <= 6ull * (taken + 1), "a few reads a frame");
    /* The first is where the thread stands, wherever that is, and so is the last where a
     * signal interrupted it in no mapping. */
    __u32 in_mappings = reason == UNKNOWN_MAPPING ? taken - 1 : taken;
    for (__u32 f = 1; f < in_mappings && taken; f++) {
        __u64 frame = frames[0][f], address = frame & ((1ull << FRAME_ADDRESS_BITS) - 1);
        __u32 number = frame >> FRAME_ADDRESS_BITS;
        int known = 0;
        for (__u32 m = 0; m < count && !known; m++) {
            if (mappings[m].executable == EXECUTABLE_ANON)
                known = ((frame - mappings[m].start) & ABSOLUTE_MASK) >> 12 < mappings[m].pages;
            else if ((mappings[m].executable & 0xfffff) == number)
                known = ((address - (mappings[m].start - mappings[m].bias)) & ((1ull << FRAME_ADDRESS_BITS) - 1)) >>
                        12 < mappings[m].pages;
        }
        check(known, "every frame is in a mapping");
    }
    check(taken == host[1].taken && reason == host[1].reason && reads[0] == reads[1] &&
              !memcmp(frames[0], frames[1], taken * sizeof(__u64)),
          "the same once more");
    for (int i = 0; i < 2; i++)
        free(frames[i]);
    free(mappings);
    free(words);
    free(rows);
    return 0;
}
