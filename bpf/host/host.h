/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The border between the walk on the host and who calls it; mirrored by hand in
 * crates/agent/src/bpf/host.rs, where a test compares the two. */
#ifndef EVERFLAME_HOST_H
#define EVERFLAME_HOST_H

#include "../abi.h"

/* What stands for a BPF array. */
struct array {
    void *base;
    __u32 count;
    __u32 stride; /* bytes from one value to the next */
};

struct host {
    struct array mappings;   /* of struct mapping, sorted by start */
    struct array row_chunks; /* of struct array, each of elements */
    struct array tables;     /* of __u32 */
    /* 0 where all bytes could be read */
    int (*read)(void *memory, __u64 address, void *to, __u32 size);
    void *memory;
    struct registers at;
    __u64 address_mask;      /* the bits of user addresses */
    __u64 *frames;           /* out: room for USER_FRAMES, leaf first */
    __u32 taken;             /* out: how many of them */
    __u32 reason;            /* out: enum completeness */
    __u32 late;              /* out: the executable whose table is still to come, or 0 */
    __u32 reserved;
};

void everflame_walk(struct host *host);

/* What the executable's table says of `count` addresses; zeros where it says nothing. */
void everflame_rules(struct host *host, __u32 executable, const __u64 *addresses, __u32 count,
                     struct unwind_rule *rules);

#endif
