/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The few kernel types that the programs touch. Offsets are relocated at load time
 * (CO-RE), so only the names of fields matter, not their order. */
#ifndef EVERFLAME_KERNEL_H
#define EVERFLAME_KERNEL_H

#define PF_KTHREAD 0x00200000

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node {
    __u64 id;
};

struct cgroup_root {
    int hierarchy_id; /* 0: version 2 */
};

struct cgroup {
    struct kernfs_node *kn;
    struct cgroup_root *root;
};

struct css_set {
    struct cgroup *dfl_cgrp;
};

typedef struct {
    int counter;
} atomic_t;

struct signal_struct {
    atomic_t live; /* threads of the process that have not exited */
};

struct task_struct {
    unsigned int flags;
    int pid;
    int tgid;
    unsigned in_execve : 1;
    void *stack;
    void *mm;
    struct css_set *cgroups;
    struct signal_struct *signal;
};

#ifdef __TARGET_ARCH_arm64
struct pt_regs {
    struct user_pt_regs user_regs; /* only its size is asked for */
};
#endif

#pragma clang attribute pop

#endif
