/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The walk of the kernel program as a library: the same step over maps that are plain
 * arrays and over memory that the caller answers for. User space walks stacks with it that
 * the kernel could only copy; tests and fuzzers feed it whatever they like. */
#include <linux/types.h>
#include <string.h>

#include "host.h"

#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#undef __noinline
#define __noinline static __attribute__((noinline))
#define barrier_var(v) __asm__ volatile("" : "+r"(v))

#include "../walk.h"

/* What the walk under way on this thread looks at. */
static _Thread_local struct host *here;
static _Thread_local struct array walks, mapping_chunks, row_chunks, tables;

static void *bpf_map_lookup_elem(struct array *map, const __u32 *key) {
    return *key < map->count ? (char *)map->base + (size_t)*key * map->stride : 0;
}

/* As the kernel's: all or nothing, and nothing is zeros. */
static long bpf_probe_read_user(void *to, __u32 size, const void *from) {
    if (!here->read(here->memory, (__u64)from, to, size))
        return 0;
    memset(to, 0, size);
    return -1;
}

/* There is no interrupt to get out of. */
static __u64 bpf_ktime_get_ns(void) { return 0; }

__attribute__((unused)) static inline __u64 address_mask(void) { return here->address_mask; }

#include "../rows.h"
#include "../step.h"

void everflame_walk(struct host *host) {
    struct walk w;
    w.from.at = host->at;
    w.deadline = ~0ull;
    w.frames_taken = 0;
    w.user_taken = 0;
    w.chunk = 0;
    w.first = 0;
    w.count = host->mappings.count;
    w.last = 0;
    w.narrow = 0;
    w.late = 0;
    w.sample.stack = 0;

    here = host;
    walks = (struct array){&w, 1, sizeof(w)};
    mapping_chunks = (struct array){&host->mappings, 1, sizeof(host->mappings)};
    row_chunks = host->row_chunks;
    tables = host->tables;
    walk_to_root(&w, 0);
    here = 0;

    host->reason = w.reason;
    host->taken = w.user_taken;
    host->late = w.late > 1 ? w.late : 0;
    memcpy(host->frames, w.frames, w.user_taken * sizeof(__u64));
}

void everflame_rules(struct host *host, __u32 executable, const __u64 *addresses, __u32 count,
                     struct unwind_rule *rules) {
    row_chunks = host->row_chunks;
    tables = host->tables;
    __u32 *place = bpf_map_lookup_elem(&tables, &executable);
    __u32 table = place ? *place : TABLE_NEVER;
    for (__u32 i = 0; i < count; i++) {
        struct unwind_rule *rule =
            table == TABLE_NEVER || table == TABLE_NOT_YET ? 0 : rule_of(table - 1, addresses[i]);
        rules[i] = rule ? *rule : (struct unwind_rule){0};
    }
}
