/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Copies of user stacks, for user space to walk: where it had not told yet what the walk
 * needed, and now and then for a second opinion. Bounded in bytes a second. */
#ifndef EVERFLAME_COPY_H
#define EVERFLAME_COPY_H

#define COPY_PAGE 4096 /* the smallest page: no read touches two of which one may be missing */

static __always_inline int wants_copy(struct counters *c, struct walk *w) {
    if (w->late)
        return 1;
    if (!options.copy_every || !w->user_taken)
        return 0;
    return ++c->copy_turn >= options.copy_every;
}

/* Whether a whole stack may be copied now. What is not used up is kept for one second. */
static __always_inline int may_copy(struct counters *c, __u64 now) {
    __u64 passed = now - c->allowance_time;
    if (passed > 1 << 30)
        passed = 1 << 30;
    c->allowance_time = now;
    __u64 allowance = c->allowance + (passed * options.copy_rate >> 30);
    if (allowance > options.copy_rate)
        allowance = options.copy_rate;
    c->allowance = allowance;
    return allowance >= sizeof(struct user_state) + STACK_BYTES;
}

/* Copies up to the end of the page. Returns how many bytes, 0 where they cannot be read. */
static __always_inline __u64 copy_page(__u8 *to, __u64 start) {
    __u64 got = COPY_PAGE - (start & (COPY_PAGE - 1));
    return bpf_probe_read_user(to + sizeof(struct user_state), got, (void *)start) ? 0 : got;
}

/* Puts the registers and the stack behind `at` bytes of frames: up to the end of the page,
 * then whole pages until one cannot be read, which is where a stack ends. Returns how many
 * bytes that makes, 0 where there is no copy. */
static __always_inline __u64 copy_stack(struct counters *c, struct walk *w, __u64 at, __u64 now) {
    __u8 *to = (__u8 *)w->frames + at;
    __u64 start = w->from.at.sp - BELOW_SP, got = 0;
    if (may_copy(c, now) && !(got = copy_page(to, start))) {
        start += BELOW_SP;
        got = copy_page(to, start);
    }
    if (!got) {
        c->copies_refused++;
        return 0;
    }
    for (int i = 1; i < STACK_BYTES / COPY_PAGE; i++) {
        if (bpf_probe_read_user(to + sizeof(struct user_state) + got, COPY_PAGE, (void *)(start + got)))
            break;
        got += COPY_PAGE;
    }
    w->from.start = start;
    w->from.bytes = got;
    w->from.has_code = !bpf_probe_read_user(w->from.code, CODE_BYTES, (void *)(w->from.at.pc - 1));
    *(struct user_state *)to = w->from;
    return got + sizeof(struct user_state);
}

/* Hands the record to the ring with the copy behind its frames. Returns 0 where it took it. */
static __always_inline long send_with_copy(struct counters *c, struct walk *w, __u64 size, __u64 copied, __u64 wake) {
    barrier_var(copied);
    copied &= 65535;
    if (copied > STACK_BYTES + sizeof(struct user_state))
        copied = STACK_BYTES + sizeof(struct user_state);
    w->sample.flags |= SAMPLE_HAS_STACK;
    if (bpf_ringbuf_output(&ring, &w->sample, size + copied, wake)) {
        w->sample.flags &= ~SAMPLE_HAS_STACK;
        c->copies_refused++;
        return -1;
    }
    c->copies++;
    c->copied_bytes += copied;
    c->allowance -= copied;
    c->copy_turn = 0;
    return 0;
}

#endif
