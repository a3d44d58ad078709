/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the kernel program and user space agree on: every struct and number that crosses
 * the border. Mirrored by hand in crates/agent/src/bpf/abi.rs and, for unwind tables, in
 * crates/unwind/src/layout.rs; tests compare sizes and offsets. */
#ifndef EVERFLAME_ABI_H
#define EVERFLAME_ABI_H

#include "arch.h"

/* ---- unwind tables -------------------------------------------------------------------
 * A table is a run of 64-byte elements in one linear space that is cut into chunks of
 * 16,384 elements (1 MiB): element n of the space is element n % 16384 of chunk n / 16384.
 * All element numbers inside a table are relative to its first element, the header. */

#define ELEMENT_SIZE 64
#define CHUNK_ELEMENTS 16384
#define TABLE_MAGIC 0x31544645 /* "EFT1" */

struct table_header {    /* element 0 */
    __u32 magic;         /* TABLE_MAGIC */
    __u32 elements;      /* length of the table */
    __u64 base;          /* ELF virtual address of relative pc 0; pcs are u32 relative to it */
    __u32 directory;     /* first element of the page directory */
    __u32 pages;         /* 64 KiB pages covered, 8 to an element: struct page_blocks */
    __u32 blocks;        /* first element of the row blocks */
    __u32 block_count;
    __u32 rules;         /* first element of the rules, 4 to an element: struct unwind_rule */
    __u32 rule_count;
    __u32 direct_rules;  /* codes below this number are rules */
    __u32 sequences;     /* first element of the sequences: the short ones, then the long ones */
    __u32 sequence_count;/* codes direct_rules .. direct_rules + sequence_count - 1 */
    __u32 short_count;   /* how many of them have at most 4 pairs, four to an element */
    __u32 reserved;
};

struct page_blocks {     /* the blocks that can hold a row for a pc of this 64 KiB page */
    __u32 first;         /* relative to `blocks`; the last block whose head is <= page start */
    __u32 last;          /* inclusive */
};

/* A block: head pc (u32), then 30 pairs (delta u8, code u8), little endian u16 = code << 8 | delta.
 *   delta 0..254, code < 255   the pc advances by delta; from there on `code` holds
 *   delta 0..254, code = 255   the same, and the rule's number is the next u16
 *   delta 255,    code k >= 1  the pc advances by k * 256, rule unchanged
 *   delta 255,    code 0       end of the block
 * A sequence: up to 4 or up to 16 pairs (offset u16, rule u16), the first with offset 0, the
 * offsets growing, unused ones with offset 0. It stands for several rows at fixed distances. */
struct row_block {
    __u32 head;
    __u16 pairs[30];
};

enum cfa_kind {
    CFA_NONE = 0,        /* no unwind data here */
    CFA_SP = 1,          /* sp + cfa_offset */
    CFA_FP = 2,          /* fp + cfa_offset */
    CFA_PLT = 3,         /* sp + 8 + ((pc & 15) >= cfa_offset ? 8 : 0) */
    CFA_DEREF_FP = 4,    /* *(fp + cfa_offset) + cfa_add */
    CFA_DEREF_SP = 5,    /* *(sp + cfa_offset) + cfa_add */
    CFA_END = 6,         /* the return address is undefined: this frame is a root */
    CFA_UNSUPPORTED = 7, /* there is unwind data that cannot be expressed */
    CFA_REGISTER = 8,    /* register number cfa_add (DWARF's numbers), where it is known, + cfa_offset */
};
enum fp_kind {
    FP_SAME = 0,
    FP_CFA = 1,          /* at cfa + fp_offset */
    FP_SP = 2,           /* at sp + fp_offset, sp before this step (signal frames) */
    FP_UNKNOWN = 3,      /* not recoverable */
    FP_FP = 4,           /* at fp + fp_offset, fp before this step (realigned stacks) */
};
enum ra_kind {
    RA_CFA_8 = 0,        /* at cfa - 8 */
    RA_SP = 1,           /* at sp + ra_offset, sp before this step (signal frames) */
    RA_REGISTER = 2,     /* in register number ra_offset, where it is known */
    RA_RECORD = 3,       /* at cfa + fp_offset + 8: behind the caller's fp, where that is saved at all */
    RA_CFA_WORDS = 4,    /* at cfa + ra_offset words of 8 bytes */
};
#define RULE_SIGNAL 1    /* the caller's pc is exact, not a return address */
#define RULE_SWITCH 2    /* the caller is on another stack (Go's system stacks) */
#define RULE_PEEK 4      /* where a thread stands: look at its code first (peek.h) */
#define RULE_RBX 8       /* x86-64: the caller's rbx is at cfa + ra_offset, unchanged where that is 0; else unknown */

struct unwind_rule {
    __u8 cfa;
    __u8 fp;
    __u8 ra;
    __u8 flags;
    __s32 cfa_offset;
    __s32 fp_offset;
    __s16 ra_offset;
    __s16 cfa_add;
};

/* What `tables` says of an executable: the first element of its table plus 1, or */
#define TABLE_NOT_YET 0        /* user space may still bring one: what waits for it is late */
#define TABLE_NEVER 0xffffffff /* there is none: by frame pointer */

/* ---- where is this pc? ---------------------------------------------------------------
 * A process is a run of mappings, sorted by start, in a pool that is cut into chunks. The
 * element before a run is its head: `start` holds the generation that the run was written
 * for, so that a walk can tell at its end whether the run was given to others meanwhile.
 * Processes with the same mappings (forks) share a run. */

#define MAPPING_CHUNK 16384 /* elements in a chunk of the pool (384 KiB) */
#define EXECUTABLE_ANON 1   /* executable memory of no file: frames by absolute address */
#define EXECUTABLE_LIMIT 131072

struct mapping {
    __u64 start;
    __u64 bias;          /* ELF virtual address = pc - bias */
    __u32 pages;         /* of 4 KiB */
    __u32 executable;    /* EXECUTABLE_ANON, or a number >= 16 */
};

struct process {         /* value of the map `processes`, keyed by pid (thread group) */
    __u32 chunk;
    __u32 first;         /* index in the chunk; the head is at first - 1 */
    __u32 count;         /* 0: nothing is known, and there is no run */
    __u32 generation;    /* of the run, never 0 where there is one; none is used twice */
    __u64 exec_ns;       /* CLOCK_MONOTONIC of the last exec; older news from user space is stale */
};

/* ---- frames and samples ---------------------------------------------------------------
 * A user frame is one word: executable number in the top 20 bits, ELF virtual address of
 * an instruction inside the call below; numbers below 16 are the top bits of an absolute
 * address. A kernel frame is its address. */

#define FRAME_ADDRESS_BITS 44
#define ABSOLUTE_MASK ((1ull << 48) - 1)
#define USER_FRAMES 1024
#define KERNEL_FRAMES 127
#define FRAME_SLOTS 2048 /* a power of two above USER_FRAMES + KERNEL_FRAMES */

/* Why a stack did not reach its root: the numbers of everflame_profile::Completeness. */
enum completeness {
    COMPLETE = 0,
    DEPTH_LIMIT = 1,
    NO_UNWIND_INFO = 2,
    UNREADABLE_MEMORY = 3,
    UNVERIFIED_FRAME_POINTER = 4,
    TABLE_CHANGED = 5,
    TIME_LIMIT = 6,
    UNKNOWN_MAPPING = 7,
    LOST_FRAMES = 8,
    NO_USER_REGISTERS = 9,
};

#define SAMPLE_KERNEL_THREAD 1
#define SAMPLE_HAS_FRAMES 2 /* the frames follow; else `stack` was sent in this epoch */
#define SAMPLE_HAS_STACK 4  /* behind the frames a struct user_state and a piece of the stack */
#define SAMPLE_LATE 8       /* what the walk needed was not told yet, or not in memory: walk again */

struct sample {
    __u64 time;          /* CLOCK_MONOTONIC, ns */
    __u64 stack;         /* hash of the frames and their numbers */
    __u64 cgroup;
    __u32 pid;
    __u32 tid;
    __u32 cpu;
    __u32 period;        /* ns; what one sample of this CPU stands for */
    __u16 kernel_frames;
    __u16 user_frames;
    __u8 completeness;
    __u8 flags;
    __u16 reserved;
    char comm[16];
    /* __u64 frames[kernel_frames + user_frames], leaf first: kernel frames, then user's */
};

/* Where a thread stands in user space. Rules may name any of the general registers. */
struct registers {
    __u64 pc, sp, fp, lr;               /* lr: 0 on x86 */
    __u64 general[GENERAL_REGISTERS];   /* by DWARF's numbers */
};

/* `bytes` of the thread's stack follow, from `start` on: rules name what is a little below sp, too. */
#define STACK_BYTES 32768 /* at most */
#define CODE_BYTES 16
#define BELOW_SP 128 /* the red zone; what was restored stays there too */
struct user_state {
    struct registers at;
    __u64 start;           /* sp - BELOW_SP, or sp where that cannot be read */
    __u32 bytes;
    __u32 has_code;
    __u8 code[CODE_BYTES]; /* from pc - 1 on, as peek.h wants it, where has_code is set */
};

/* A control group that was made. */
struct cgroup_birth {
    __u64 id;
    char path[496]; /* from the root of the hierarchy, zero-terminated */
};

/* ---- options and control --------------------------------------------------------------*/

struct options {         /* read-only data, set before load */
    __u64 time_limit_ns; /* of one walk, in the interrupt */
    __u64 ring_size;
    __u32 only_wanted;   /* sample only the processes in the map `wanted` and their children */
    __u32 copy_every;    /* every so manieth user stack is copied though its walk was fine; 0: none */
    __u64 copy_rate;     /* bytes of stacks copied a second and CPU, at most */
    __u64 address_mask;  /* the bits of user addresses, where others sign them */
    __u64 kernel_stack;  /* bytes of a kernel stack */
};

struct control {         /* written by user space while the programs run */
    __u64 epoch;         /* grows when user space forgets the stacks of an older epoch */
};

/* ---- counters -------------------------------------------------------------------------
 * One element a CPU, written by that CPU's program alone, and read through a mapping of
 * the map. The elements after the last CPU's belong to user space. The map is pinned, so
 * that the figures outlive a killed agent. */

#define COUNTER_WORDS 32
#define USER_COUNTER_ELEMENTS 16 /* 512 words: a ledger for each of four exporters */

struct counters {
    __u64 taken;         /* first instruction of the sampler */
    __u64 idle;          /* the idle task: nothing to say */
    __u64 ring;          /* records that the ring took */
    __u64 ring_full;     /* records that it refused */
    __s64 missed_sure;   /* ticks that never came, same busy task on both sides */
    __s64 missed_perhaps_idle;
    __u64 max_ns;        /* longest run of the sampler */
    __u64 frames_sent;   /* records that carried their frames */
    __u64 last_time;
    __u64 last_tid;
    __u64 last_missed_sure; /* whether the last gap was counted as sure */
    __u64 rearmed;       /* set by user space when it changes the period: skip one gap */
    __u64 wakeups;       /* times the reader was woken before its time-out */
    __u64 run_ns;        /* time in the sampler, idle ticks left out */
    __u64 copies;        /* records that carried a piece of the stack */
    __u64 copied_bytes;  /* of it */
    __u64 copies_refused;/* for want of allowance, of room in the ring, or of readable memory */
    __u64 allowance;     /* bytes that may be copied now */
    __u64 allowance_time;
    __u64 copy_turn;     /* user stacks since the last copy by options.copy_every */
    __u64 births_lost;   /* control groups that user space is not told of: no room, or a long path */
    __u64 reserved[COUNTER_WORDS - 21];
};

#endif
