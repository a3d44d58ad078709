/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The kernel side: one object. sampler.h takes the samples, step.h walks native stacks,
 * lifecycle.h keeps the table of processes right between two looks of user space, cgroup.h
 * tells of containers. */
#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/bpf_perf_event.h>
#include <asm/ptrace.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#include "abi.h"
#include "kernel.h"

/* Keeps the compiler from proving things about a value by way of another register, which
 * the verifiers before 6.12 do not follow. */
#ifndef barrier_var
#define barrier_var(v) asm volatile("" : "+r"(v))
#endif

char license_of_programs[] SEC("license") = "Dual BSD/GPL";

#include "walk.h"
#include "maps.h"
#include "rows.h"
#include "step.h"
#include "copy.h"
#include "sampler.h"
#include "lifecycle.h"
#include "cgroup.h"
