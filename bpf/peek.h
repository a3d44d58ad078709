/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where a thread stands, its next instructions say what is left of its frame, and tables
 * leave out the rows that would say the same. No call is among these instructions, so a
 * caller never stands there. x86-64; crates/unwind/src/peek.rs is the same in Rust. */
#ifndef EVERFLAME_PEEK_H
#define EVERFLAME_PEEK_H

#define PEEK_BYTES 16 /* one before the pc, the rest from there on */
#define MAX_POPS 8
#define NOTHING_SEEN 2 /* beside CONTINUE and STOP: the rule holds */
#define NO_SLOT 255

/* push rbp; mov rbp, rsp; its first byte may be under a probe's breakpoint */
static __always_inline int makes_frame(__u32 code) {
    return code >> 8 == 0xe58948 && ((code & 255) == 0x55 || (code & 255) == 0xcc);
}

/* Steps to the caller by the code at the walk's pc, if that is of a kind that tells. */
static __always_inline int step_by_code(struct walk *w) {
    __u64 window[2], at = w->pc - 1;
    if (bpf_probe_read_user(window, PEEK_BYTES, (void *)at)) {
        /* Only what lies on one page was left out of the table, and that page is there. */
        if ((at & 4095) > 4096 - PEEK_BYTES)
            return NOTHING_SEEN;
        w->late = 1; /* user space looks at the file */
        return stop(w, UNREADABLE_MEMORY);
    }
    __u64 code = window[0] >> 8 | window[1] << 56, more = window[1] >> 8;
    __u32 words = 0, slot = NO_SLOT; /* between sp and the return address; which one is the caller's fp */
    if (makes_frame(window[0])) {
        words = 1;
        slot = 0;
    } else if (!makes_frame(code) && !((__u32)code == 0xfa1e0ff3 && makes_frame(code >> 32))) {
        int returns = 0;
        for (int i = 0; i < MAX_POPS + 1; i++) {
            if ((code & 0xff) == 0xc3) {
                returns = 1;
                break;
            }
            if ((code & 0xf8ff) == 0x5841) { /* pop r8 .. r15 */
                code = code >> 16 | more << 48;
                more >>= 16;
            } else if ((code & 0xf8) == 0x58 && (code & 0xff) != 0x5c) { /* pop, but not rsp */
                if ((code & 0xff) == 0x5d)
                    slot = i;
                code = code >> 8 | more << 56;
                more >>= 8;
            } else {
                break;
            }
            words = i + 1;
        }
        if (!returns)
            return NOTHING_SEEN;
    }
    __u64 fp = w->fp, ra, sp = w->sp;
    if (bpf_probe_read_user(&ra, 8, (void *)(sp + words * 8)))
        return stop(w, UNREADABLE_MEMORY);
    if (slot != NO_SLOT && bpf_probe_read_user(&fp, 8, (void *)(sp + slot * 8)))
        return stop(w, UNREADABLE_MEMORY);
    if (!ra)
        return stop(w, NO_UNWIND_INFO);
    w->known = 0;
    w->pc = ra;
    w->sp = sp + words * 8 + 8;
    w->fp = fp;
    w->exact = 0;
    return CONTINUE;
}

#endif
