/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The state of a walk: what the steps read and write. */
#ifndef EVERFLAME_WALK_H
#define EVERFLAME_WALK_H

/* The walk under way on a CPU. `sample` stands right before `frames`, so that one call
 * sends a record of any length. */
struct walk {
    __u64 pc, sp, fp;
    __u64 deadline;      /* CLOCK_MONOTONIC, ns */
    __u32 frames_taken;  /* kernel and user */
    __u32 user_taken;
    __u32 chunk, first, count, last; /* the process's mappings; the one tried first */
    __u32 generation;
    __u32 exact;         /* pc is where the thread stands, not a return address */
    __u32 reason;        /* enum completeness, once the walk has stopped */
    __u32 known;         /* bit n: register n is the frame's. All at the leaf, later CARRIED at most */
    __u64 carried;       /* the frame's register CARRIED, where it is known */
    __u32 bound;         /* the frame was found by frame pointer: sp is no more than a lower bound */
    __u32 unused;
    __u32 narrow;        /* code of 32 bits: nothing of it is walked */
    __u32 late;          /* an executable without a table yet, or 1: a mapping not known yet, code not there */
    struct user_state from;
    struct sample sample;
    __u64 frames[FRAME_SLOTS];
    /* A copy of the stack stands behind the frames, however many they are. */
    __u8 room[sizeof(struct user_state) + STACK_BYTES + 4096];
};

#endif
