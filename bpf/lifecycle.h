/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Fork, exec and exit, as far as the table of processes is concerned: what user space
 * could only do too late. A child runs with its parent's mappings from its first
 * instruction; a new image has none of the old; a dead pid has none at all. */
#ifndef EVERFLAME_LIFECYCLE_H
#define EVERFLAME_LIFECYCLE_H

/* args: parent, child */
SEC("raw_tracepoint/sched_process_fork")
int process_forks(struct bpf_raw_tracepoint_args *ctx) {
    struct task_struct *parent = (void *)ctx->args[0], *child = (void *)ctx->args[1];
    __u32 pid = BPF_CORE_READ(child, tgid), parent_pid = BPF_CORE_READ(parent, tgid);
    if (pid == parent_pid)
        return 0; /* a thread */
    if (options.only_wanted) {
        __u8 mark = WANTED;
        if (bpf_map_lookup_elem(&wanted, &parent_pid))
            bpf_map_update_elem(&wanted, &pid, &mark, BPF_ANY);
        else /* of one who had the number before */
            bpf_map_delete_elem(&wanted, &pid);
    }
    struct process *p = bpf_map_lookup_elem(&processes, &parent_pid);
    if (!p)
        return 0;
    struct process copy = *p;
    bpf_map_update_elem(&processes, &pid, &copy, BPF_ANY);
    return 0;
}

/* args: task, old pid, binary */
SEC("raw_tracepoint/sched_process_exec")
int process_execs(struct bpf_raw_tracepoint_args *ctx) {
    struct task_struct *task = (void *)ctx->args[0];
    __u32 pid = BPF_CORE_READ(task, tgid);
    struct process none = {.exec_ns = bpf_ktime_get_ns()};
    bpf_map_update_elem(&processes, &pid, &none, BPF_ANY);
    return 0;
}

/* args: task */
SEC("raw_tracepoint/sched_process_exit")
int process_exits(struct bpf_raw_tracepoint_args *ctx) {
    struct task_struct *task = (void *)ctx->args[0];
    if (BPF_CORE_READ(task, signal, live.counter))
        return 0; /* other threads go on */
    __u32 pid = BPF_CORE_READ(task, tgid);
    bpf_map_delete_elem(&processes, &pid);
    __u8 *mark = options.only_wanted ? bpf_map_lookup_elem(&wanted, &pid) : 0;
    if (mark)
        *mark = WANTED_ENDS;
    return 0;
}

/* args: task. Nothing of it runs any more: its mark makes room for others, unless a new
 * process has the number already. */
SEC("raw_tracepoint/sched_process_free")
int process_is_gone(struct bpf_raw_tracepoint_args *ctx) {
    if (!options.only_wanted)
        return 0;
    struct task_struct *task = (void *)ctx->args[0];
    __u32 pid = BPF_CORE_READ(task, tgid);
    __u8 *mark = bpf_map_lookup_elem(&wanted, &pid);
    if (mark && *mark == WANTED_ENDS)
        bpf_map_delete_elem(&wanted, &pid);
    return 0;
}

#endif
