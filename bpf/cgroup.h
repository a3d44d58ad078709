/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Tells of each control group when it is made, by the id that samples carry and the path that
 * names its container. Those that nobody tells of are known from /proc, a little later. */
#ifndef EVERFLAME_CGROUP_H
#define EVERFLAME_CGROUP_H

/* args: cgroup, path */
SEC("raw_tracepoint/cgroup_mkdir")
int cgroup_is_made(struct bpf_raw_tracepoint_args *ctx) {
    struct cgroup *made = (void *)ctx->args[0];
    if (BPF_CORE_READ(made, root, hierarchy_id))
        return 0; /* of version 1, which numbers its own */
    __u32 cpu = bpf_get_smp_processor_id();
    struct counters *c = bpf_map_lookup_elem(&counters, &cpu);
    struct cgroup_birth *birth = bpf_ringbuf_reserve(&births, sizeof(*birth), 0);
    if (!birth) {
        if (c)
            c->births_lost++;
        return 0;
    }
    birth->id = BPF_CORE_READ(made, kn, id);
    long length = bpf_probe_read_kernel_str(birth->path, sizeof(birth->path), (void *)ctx->args[1]);
    if (length <= 0 || length == sizeof(birth->path)) {
        /* Its end, which names the container, is not there. */
        bpf_ringbuf_discard(birth, BPF_RB_NO_WAKEUP);
        if (c)
            c->births_lost++;
        return 0;
    }
    bpf_ringbuf_submit(birth, BPF_RB_NO_WAKEUP);
    return 0;
}

#endif
