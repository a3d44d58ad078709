/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The sampler: runs at each tick of a CPU's clock event. Every path from its first
 * instruction ends in exactly one of the counters idle, ring, ring_full. */
#ifndef EVERFLAME_SAMPLER_H
#define EVERFLAME_SAMPLER_H

/* Counts ticks that never came, from the time since the one before. A tick that is late
 * by more than half a period is followed by one that is early: hence the sign. */
static __always_inline void count_gap(struct counters *c, __u64 now, __u64 tid, __u64 period) {
    __u64 last = c->last_time;
    __u64 same_busy_task = tid && c->last_tid == tid;
    c->last_time = now;
    c->last_tid = tid;
    if (c->rearmed) {
        c->rearmed = 0;
        return;
    }
    if (!last || !period)
        return;
    __s64 missed = (__s64)((now - last + period / 2) / period) - 1;
    if (!missed)
        return;
    if (missed > 0)
        c->last_missed_sure = same_busy_task;
    if (c->last_missed_sure)
        c->missed_sure += missed;
    else
        c->missed_perhaps_idle += missed;
}

/* User registers of the current task, wherever it was interrupted. */
static __always_inline int user_registers(struct bpf_perf_event_data *ctx, struct task_struct *task, struct walk *w) {
    if (IS_USER(&ctx->regs)) {
        TAKE_REGISTERS(&w->from.at, &ctx->regs);
        w->narrow = IS_NARROW(&ctx->regs);
        /* Old verifiers want the context read by constant offsets alone: these reads must
         * not become one with those below. */
        asm volatile("" ::: "memory");
        return 1;
    }
    void *at;
    struct NATIVE_REGISTERS *regs = (void *)w->room;
    if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
        at = (void *)bpf_task_pt_regs((void *)bpf_get_current_task_btf());
    else /* before 5.15: they are at the top of the kernel stack */
        at = BPF_CORE_READ(task, stack) + options.kernel_stack - NATIVE_REGISTERS_SIZE;
    if (bpf_probe_read_kernel(regs, sizeof(*regs), at) || !IS_USER(regs))
        return 0;
    TAKE_REGISTERS(&w->from.at, regs);
    w->narrow = IS_NARROW(regs);
    return 1;
}

static __always_inline void take_kernel_frames(struct bpf_perf_event_data *ctx, struct walk *w) {
    if (IS_USER(&ctx->regs))
        return;
    long bytes = bpf_get_stack(ctx, w->frames, KERNEL_FRAMES * 8, 0);
    if (bytes <= 0)
        return;
    __u64 h = w->sample.stack;
    __u32 n = (__u64)bytes / 8;
    for (int i = 0; i < KERNEL_FRAMES; i++) {
        if (i >= n)
            break;
        h = (h ^ w->frames[i]) * 0x9E3779B97F4A7C15ull;
        h ^= h >> 29;
    }
    if (n > KERNEL_FRAMES)
        n = KERNEL_FRAMES;
    w->sample.stack = h;
    w->frames_taken = n;
}

/* Whether the mappings that the walk went by are still the process's, and their place was
 * not given to others under it. */
static __always_inline int is_current(struct walk *w, __u32 pid) {
    struct process *p = bpf_map_lookup_elem(&processes, &pid);
    if (!p || p->generation != w->generation)
        return 0;
    if (!w->count)
        return 1;
    __u32 chunk = w->chunk, head = w->first - 1;
    void *inner = bpf_map_lookup_elem(&mapping_chunks, &chunk);
    struct mapping *m = inner ? bpf_map_lookup_elem(inner, &head) : 0;
    return m && m->start == w->generation;
}

/* Between a new image's memory and its first instruction there is no user stack: the old one
 * is gone, and nothing of it is kept. */
static __always_inline int is_between_images(struct task_struct *task, struct walk *w) {
    __u64 word;
    return BPF_CORE_READ_BITFIELD_PROBED(task, in_execve) && bpf_probe_read_user(&word, 8, (void *)w->from.at.sp);
}

static __always_inline void walk_user(struct bpf_perf_event_data *ctx, struct task_struct *task, struct walk *w,
                                      __u32 cpu, __u32 pid) {
    if (!user_registers(ctx, task, w)) {
        w->reason = NO_USER_REGISTERS;
        return;
    }
    w->count = 0;
    struct process *p = bpf_map_lookup_elem(&processes, &pid);
    if (p) {
        w->chunk = p->chunk;
        w->first = p->first;
        w->last = p->first;
        w->count = p->count;
        w->generation = p->generation;
    }
    __u64 kernel_stack = w->sample.stack;
    walk_to_root(w, cpu);
    if (p && !is_current(w, pid))
        w->reason = TABLE_CHANGED;
    if ((w->reason == UNKNOWN_MAPPING || w->reason == TABLE_CHANGED) && !w->narrow)
        w->late = 1;
    int between = w->reason != COMPLETE && is_between_images(task, w);
    if (between || w->reason == TABLE_CHANGED) {
        /* Frames by what others have mapped would be made up. */
        w->frames_taken -= w->user_taken;
        w->user_taken = 0;
        w->sample.stack = kernel_stack;
    }
    if (between) {
        w->late = 0;
        w->reason = COMPLETE; /* its stack ends in the kernel's entry */
    }
}

/* Hands the record to the ring, with its frames unless they went before in this epoch. */
static __always_inline void send(struct counters *c, struct walk *w, __u64 now) {
    __u64 hash = w->sample.stack;
    __u32 slot = hash & (SEEN_SLOTS - 1);
    __u32 zero = 0;
    struct control *control_now = bpf_map_lookup_elem(&control, &zero);
    __u64 mark = hash + (control_now ? control_now->epoch : 0);
    __u64 *seen_mark = bpf_map_lookup_elem(&seen, &slot);
    __u64 size = 0;
    int known = seen_mark && *seen_mark == mark;
    if (!known) {
        w->sample.flags |= SAMPLE_HAS_FRAMES;
        size = (__u64)w->frames_taken * 8;
    }
    barrier_var(size);
    size &= 16383;
    if (size > (USER_FRAMES + KERNEL_FRAMES) * 8)
        size = (USER_FRAMES + KERNEL_FRAMES) * 8;
    __u64 wake = BPF_RB_NO_WAKEUP;
    __u64 copied = 0;
    __u64 filled = bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA);
    if (filled * 2 > options.ring_size) {
        wake = BPF_RB_FORCE_WAKEUP;
        c->wakeups++;
    }
    if (wants_copy(c, w)) { /* copies leave a quarter of the ring to plain records */
        if (filled * 4 <= options.ring_size * 3)
            copied = copy_stack(c, w, size, now);
        else
            c->copies_refused++;
    }
    size += sizeof(struct sample);
    if (!copied || send_with_copy(c, w, size, copied, wake)) {
        if (bpf_ringbuf_output(&ring, &w->sample, size, wake)) {
            c->ring_full++;
            return;
        }
    }
    c->ring++;
    if (!known) {
        c->frames_sent++;
        if (seen_mark)
            *seen_mark = mark;
    }
}

SEC("perf_event")
int sampler(struct bpf_perf_event_data *ctx) {
    __u32 cpu = bpf_get_smp_processor_id();
    struct counters *c = bpf_map_lookup_elem(&counters, &cpu);
    if (!c)
        return 0;
    c->taken++;
    __u64 now = bpf_ktime_get_ns();
    __u64 ids = bpf_get_current_pid_tgid();
    __u32 pid = ids >> 32, tid = ids;
    count_gap(c, now, tid, ctx->sample_period);
    if (!tid || (options.only_wanted && !bpf_map_lookup_elem(&wanted, &pid))) {
        c->idle++;
        return 0;
    }
    struct walk *w = bpf_map_lookup_elem(&walks, &cpu);
    if (!w) { /* cannot be: there is one for every CPU that has counters */
        c->ring_full++;
        return 0;
    }
    struct task_struct *task = (void *)bpf_get_current_task();
    w->deadline = now + options.time_limit_ns;
    w->frames_taken = 0;
    w->user_taken = 0;
    w->late = 0;
    w->reason = COMPLETE;
    w->sample.time = now;
    w->sample.stack = 0;
    w->sample.cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
    w->sample.pid = pid;
    w->sample.tid = tid;
    w->sample.cpu = cpu;
    w->sample.period = ctx->sample_period;
    w->sample.flags = 0;
    w->sample.reserved = 0;
    bpf_get_current_comm(w->sample.comm, sizeof(w->sample.comm));

    take_kernel_frames(ctx, w);
    w->sample.kernel_frames = w->frames_taken;
    if (BPF_CORE_READ(task, flags) & PF_KTHREAD)
        w->sample.flags |= SAMPLE_KERNEL_THREAD;
    else if (BPF_CORE_READ(task, mm)) /* gone in a task that exits: its stack ends in the kernel's entry */
        walk_user(ctx, task, w, cpu, pid);
    if (w->reason == COMPLETE && w->sample.kernel_frames == KERNEL_FRAMES)
        w->reason = DEPTH_LIMIT;
    if (w->late)
        w->sample.flags |= SAMPLE_LATE;
    w->sample.user_frames = w->user_taken;
    w->sample.completeness = w->reason;
    /* Two stacks of the same frames differ where one goes on in user space. */
    w->sample.stack ^= (__u64)w->sample.kernel_frames << 32 | w->reason;
    send(c, w, now);

    __u64 took = bpf_ktime_get_ns() - now;
    c->run_ns += took;
    if (took > c->max_ns)
        c->max_ns = took;
    return 0;
}

#endif
