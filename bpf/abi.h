/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the kernel program and user space agree on: every struct and number that crosses
 * the border. Mirrored by hand in crates/agent/src/bpf/abi.rs and, for unwind tables, in
 * crates/unwind/src/layout.rs; tests compare sizes and offsets. */
#ifndef EVERFLAME_ABI_H
#define EVERFLAME_ABI_H

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
    __u32 sequences;     /* first element of the sequences, one to an element */
    __u32 sequence_count;/* codes direct_rules .. direct_rules + sequence_count - 1 */
    __u32 reserved[2];
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
 * A sequence: up to 16 pairs (offset u16, rule u16), the first with offset 0, the offsets
 * growing, unused ones with offset 0. It stands for several rows at fixed distances. */
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
};
enum fp_kind {
    FP_SAME = 0,
    FP_CFA = 1,          /* at cfa + fp_offset */
    FP_SP = 2,           /* at sp + fp_offset, sp before this step (signal frames) */
    FP_UNKNOWN = 3,      /* not recoverable */
};
enum ra_kind {
    RA_CFA_8 = 0,        /* at cfa - 8 */
    RA_SP = 1,           /* at sp + ra_offset, sp before this step (signal frames) */
};
#define RULE_SIGNAL 1    /* the caller's pc is exact, not a return address */

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

#endif
