/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One step of the native walk: from a frame to its caller. The one global function that
 * the sampler loops over; the verifier checks it once, however often it is called. */
#ifndef EVERFLAME_STEP_H
#define EVERFLAME_STEP_H

#define CONTINUE 0
#define STOP 1

static __always_inline int stop(struct walk *w, __u32 reason) {
    w->reason = reason;
    return STOP;
}

/* Adds a frame and mixes it into the stack's hash. */
static __always_inline void push(struct walk *w, __u64 frame) {
    __u64 n = w->frames_taken;
    barrier_var(n);
    w->frames[n & (FRAME_SLOTS - 1)] = frame;
    w->frames_taken = n + 1;
    __u64 h = (w->sample.stack ^ frame) * 0x9E3779B97F4A7C15ull;
    w->sample.stack = h ^ (h >> 29);
}

static __always_inline int holds(struct mapping *m, __u64 pc) {
    return pc >= m->start && (pc - m->start) >> 12 < m->pages;
}

/* The mapping that holds `pc`: the last one used is tried first, then a binary search. */
static __always_inline struct mapping *mapping_of(struct walk *w, __u64 pc) {
    __u32 chunk = w->chunk;
    void *inner = bpf_map_lookup_elem(&mapping_chunks, &chunk);
    if (!inner || !w->count)
        return 0;
    __u32 k = w->last;
    struct mapping *m = bpf_map_lookup_elem(inner, &k);
    if (!m)
        return 0;
    if (holds(m, pc))
        return m;
    __u32 low = w->first, high = w->first + w->count - 1;
    for (int i = 0; i < 13; i++) {
        if (low >= high)
            break;
        k = (low + high + 1) >> 1;
        m = bpf_map_lookup_elem(inner, &k);
        if (!m)
            return 0;
        if (m->start <= pc)
            low = k;
        else
            high = k - 1;
    }
    k = low;
    m = bpf_map_lookup_elem(inner, &k);
    if (!m || !holds(m, pc))
        return 0;
    w->last = k;
    return m;
}

/* Whether a call instruction stands before a return address. */
static __always_inline int follows_call(__u64 ra) {
    __u8 before[8];
    return !bpf_probe_read_user(before, 8, (void *)(ra - 8)) && is_call(before);
}

/* There is no return address: a root, if that is how roots are told. */
static __always_inline int stop_without_caller(struct walk *w, __u64 fp) {
    return stop(w, ZERO_ENDS && !fp ? COMPLETE : NO_UNWIND_INFO);
}

/* Code without unwind data: by frame pointer, and only where it proves right. */
static __always_inline int step_by_frame_pointer(struct walk *w) {
    __u64 words[2], fp = w->fp, ra;
    if (fp < w->sp || fp & 7)
        return stop(w, NO_UNWIND_INFO);
    if (bpf_probe_read_user(words, sizeof(words), (void *)fp))
        return stop(w, UNREADABLE_MEMORY);
    ra = RETURN_ADDRESS(words[1]);
    if (!ra || !words[0])
        return stop_without_caller(w, ra | words[0]);
    if (!mapping_of(w, ra - 1) || !follows_call(ra))
        return stop(w, UNVERIFIED_FRAME_POINTER);
    w->known = 0;
    w->pc = ra;
    w->fp = words[0];
    w->sp = fp + 16;
    w->bound = !RECORD_ENDS_FRAME;
    w->exact = 0;
    return CONTINUE;
}

/* A frame of which sp is not known, for it was found by frame pointer: only what else is
 * said of it leads on. A function that stores a frame record lets fp point there. */
static __always_inline int step_within_bound(struct walk *w, struct unwind_rule *rule) {
    __u64 fp = w->fp;
    if (rule->cfa != CFA_SP || rule->fp != FP_CFA || rule->ra != RA_RECORD)
        return stop(w, NO_UNWIND_INFO);
    int going = step_by_frame_pointer(w);
    w->sp = fp - rule->fp_offset;
    w->bound = 0;
    return going;
}

/* A register that a rule goes by. Returns 0 where it is not known of this frame. */
static __always_inline int known_register(struct walk *w, __u64 number, __u64 *value) {
    barrier_var(number);
    number &= GENERAL_REGISTERS - 1;
    if (!(w->known >> number & 1))
        return 0;
    *value = number == CARRIED ? w->carried : w->from.at.general[number];
    return 1;
}

static __always_inline int step_by_rule(struct walk *w, struct unwind_rule *rule) {
    __u64 sp = w->sp, fp = w->fp, cfa, caller[2];
    __s64 offset = rule->cfa_offset;
    if (!RECORD_ENDS_FRAME && w->bound && rule->cfa != CFA_FP && rule->cfa != CFA_END)
        return step_within_bound(w, rule);
    switch (rule->cfa) {
    case CFA_SP:
        cfa = sp + offset;
        break;
    case CFA_FP:
        cfa = fp + offset;
        break;
    case CFA_PLT:
        cfa = sp + 8 + ((w->pc & 15) >= (__u64)offset ? 8 : 0);
        break;
    case CFA_DEREF_FP:
        if (bpf_probe_read_user(&cfa, 8, (void *)(fp + offset)))
            return stop(w, UNREADABLE_MEMORY);
        cfa += rule->cfa_add;
        break;
    case CFA_DEREF_SP:
        if (bpf_probe_read_user(&cfa, 8, (void *)(sp + offset)))
            return stop(w, UNREADABLE_MEMORY);
        cfa += rule->cfa_add;
        break;
    case CFA_REGISTER:
        if (!known_register(w, rule->cfa_add, &cfa))
            return stop(w, NO_UNWIND_INFO);
        cfa += offset;
        break;
    case CFA_END:
        return stop(w, COMPLETE);
    default:
        return stop(w, NO_UNWIND_INFO);
    }
    /* A stack only grows down, but for signal handlers and Go, which go to other ones, and
     * functions that have put nothing there. */
    int signal = rule->flags & RULE_SIGNAL;
    if (!(rule->flags & (RULE_SIGNAL | RULE_SWITCH)) && (cfa < sp || (cfa == sp && rule->ra != RA_REGISTER)))
        return stop(w, UNVERIFIED_FRAME_POINTER);
    __u64 fp_at = cfa + rule->fp_offset, ra_at = cfa - 8;
    if (rule->ra == RA_SP)
        ra_at = sp + rule->ra_offset;
    else if (rule->ra == RA_RECORD)
        ra_at = fp_at + 8;
    else if (rule->ra == RA_CFA_WORDS)
        ra_at = cfa + rule->ra_offset * 8ll;
    int fp_saved = rule->fp == FP_CFA;
    if (rule->ra == RA_REGISTER) {
        if (!known_register(w, rule->ra_offset, &caller[1]))
            return stop(w, NO_UNWIND_INFO);
    } else if (fp_saved && ra_at == fp_at + 8) {
        if (bpf_probe_read_user(caller, 16, (void *)fp_at))
            return stop(w, UNREADABLE_MEMORY);
        fp = caller[0];
        fp_saved = 0;
    } else if (bpf_probe_read_user(&caller[1], 8, (void *)ra_at)) {
        return stop(w, UNREADABLE_MEMORY);
    }
    if (fp_saved) {
        if (bpf_probe_read_user(&fp, 8, (void *)fp_at))
            return stop(w, UNREADABLE_MEMORY);
    } else if (rule->fp == FP_SP || rule->fp == FP_FP) {
        __u64 base = rule->fp == FP_SP ? sp : fp;
        if (bpf_probe_read_user(&fp, 8, (void *)(base + rule->fp_offset)))
            return stop(w, UNREADABLE_MEMORY);
    } else if (rule->fp == FP_UNKNOWN) {
        fp = 0; /* what builds on it fails its check, rather than being wrong */
    }
    __u64 carried_at = 0;
    if (signal && rule->ra == RA_SP) { /* the kernel stored all registers there */
        w->known = 1u << CARRIED;
        carried_at = sp + SIGNAL_CARRIED;
    } else {
        w->known &= rule->flags & RULE_RBX ? 1u << CARRIED : 0;
        if (w->known && rule->ra_offset)
            carried_at = cfa + rule->ra_offset;
    }
    if (carried_at && bpf_probe_read_user(&w->carried, 8, (void *)carried_at))
        w->known = 0;
    caller[1] = RETURN_ADDRESS(caller[1]);
    if (!caller[1])
        return stop_without_caller(w, fp);
    w->pc = caller[1];
    w->sp = cfa;
    w->fp = fp;
    w->bound = 0;
    w->exact = signal != 0;
    return CONTINUE;
}

#if PEEKS
#include "peek.h"
#endif

/* Takes the frame at the walk's pc and goes to its caller. Returns STOP at the end, with
 * the reason in the walk. Global functions of the oldest kernels take scalars only. */
__noinline int step(__u32 cpu) {
    struct walk *w = bpf_map_lookup_elem(&walks, &cpu);
    if (!w)
        return STOP;
    if (w->user_taken >= USER_FRAMES)
        return stop(w, DEPTH_LIMIT);
    if ((w->user_taken & 31) == 31 && bpf_ktime_get_ns() > w->deadline)
        return stop(w, TIME_LIMIT);
    __u64 pc = w->exact ? w->pc : w->pc - 1;
    struct mapping *m = mapping_of(w, pc);
    if (!m) {
        if (w->exact) {
            push(w, pc & ABSOLUTE_MASK);
            w->user_taken++;
        }
        return stop(w, UNKNOWN_MAPPING);
    }
    __u32 executable = m->executable;
    w->user_taken++;
    __u64 address = (pc - m->bias) & ((1ull << FRAME_ADDRESS_BITS) - 1);
    push(w, executable == EXECUTABLE_ANON ? pc & ABSOLUTE_MASK : (__u64)executable << FRAME_ADDRESS_BITS | address);
    if (w->narrow)
        return stop(w, NO_UNWIND_INFO);
    if (executable == EXECUTABLE_ANON)
        return step_by_frame_pointer(w);
    __u32 *place = bpf_map_lookup_elem(&tables, &executable);
    __u32 table = place ? *place : TABLE_NEVER;
    if (table == TABLE_NOT_YET) {
        w->late = executable;
        return stop(w, NO_UNWIND_INFO);
    }
    if (table == TABLE_NEVER)
        return step_by_frame_pointer(w);
    struct unwind_rule *rule = rule_of(table - 1, address);
    if (!rule || rule->cfa == CFA_NONE)
        return step_by_frame_pointer(w);
#if PEEKS
    if (w->exact && rule->flags & RULE_PEEK) {
        int seen = step_by_code(w);
        if (seen != NOTHING_SEEN)
            return seen;
    }
#endif
    return step_by_rule(w, rule);
}

/* Walks from where the thread stands to the root, or as far as it gets. */
static __always_inline void walk_to_root(struct walk *w, __u32 cpu) {
    w->pc = w->from.at.pc;
    w->sp = w->from.at.sp;
    w->fp = w->from.at.fp;
    w->carried = w->from.at.general[CARRIED];
    w->known = ~0u;
    w->bound = 0;
    w->exact = 1;
    w->reason = DEPTH_LIMIT;
    for (int i = 0; i < USER_FRAMES + 1; i++)
        if (step(cpu))
            break;
}

#endif
