/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Looking up the unwind rule of an address in a table (layout: abi.h). Bounded steps:
 * directory, at most 14 steps over block heads, at most 30 pairs, one sequence. */
#ifndef EVERFLAME_ROWS_H
#define EVERFLAME_ROWS_H

struct element {
    __u32 words[16];
};

/* Element n of the space that all tables share. */
static __always_inline struct element *element(__u32 n) {
    __u32 chunk = n / CHUNK_ELEMENTS;
    void *inner = bpf_map_lookup_elem(&row_chunks, &chunk);
    if (!inner)
        return 0;
    __u32 at = n % CHUNK_ELEMENTS;
    return bpf_map_lookup_elem(inner, &at);
}

/* Number of the rule for `pc` (relative to the table's base), or -1. */
static __always_inline __s64 rule_number(__u32 table, struct table_header *h, __u32 pc) {
    __u32 page = pc >> 16;
    if (page >= h->pages)
        return -1;
    struct element *e = element(table + h->directory + (page >> 3));
    if (!e)
        return -1;
    __u32 k = (page & 7) * 2;
    __u32 low = e->words[k & 15], high = e->words[(k + 1) & 15];
    __u32 blocks = table + h->blocks;
    for (int i = 0; i < 14; i++) {
        if (low >= high)
            break;
        __u32 middle = (low + high + 1) >> 1;
        e = element(blocks + middle);
        if (!e)
            return -1;
        if (e->words[0] <= pc)
            low = middle;
        else
            high = middle - 1;
    }
    e = element(blocks + low);
    if (!e)
        return -1;
    __u32 at = e->words[0];
    if (at > pc)
        return -1;
    __u32 code = -1, start = at, escaped = 0;
    __u16 *pairs = (__u16 *)&e->words[1];
    for (int i = 0; i < 30; i++) {
        __u32 pair = pairs[i];
        if (escaped) {
            code = 0x10000 | pair;
            escaped = 0;
            continue;
        }
        __u32 delta = pair & 255, c = pair >> 8;
        if (delta == 255) {
            if (!c)
                break;
            at += c << 8;
            continue;
        }
        if (at + delta > pc)
            break;
        at += delta;
        start = at;
        code = c;
        if (c == 255)
            escaped = 1;
    }
    if (code == (__u32)-1)
        return -1;
    if (code >= 0x10000)
        return code & 0xffff;
    if (code < h->direct_rules)
        return code;
    __u32 number = code - h->direct_rules, shorts = h->short_count, first = 0, last = 15;
    if (number < shorts) {
        first = (number & 3) * 4;
        last = first + 3;
        number >>= 2;
    } else {
        number += ((shorts + 3) >> 2) - shorts;
    }
    e = element(table + h->sequences + number);
    if (!e)
        return -1;
    /* Words of offset and rule. */
    __u32 offset = pc - start, rule = e->words[first & 15] >> 16;
    for (int i = 1; i < 16; i++) {
        __u32 at = first + i, word = e->words[at & 15];
        if (at > last || !(word & 0xffff) || (word & 0xffff) > offset)
            break;
        rule = word >> 16;
    }
    return rule;
}

/* The rule for an ELF virtual address, or 0 where the table has none. */
static __always_inline struct unwind_rule *rule_of(__u32 table, __u64 address) {
    struct table_header *h = (struct table_header *)element(table);
    if (!h || h->magic != TABLE_MAGIC)
        return 0;
    __u64 pc = address - h->base;
    if (pc >> 32)
        return 0;
    __s64 rule = rule_number(table, h, pc);
    if (rule < 0)
        return 0;
    struct element *e = element(table + h->rules + ((__u32)rule >> 2));
    if (!e)
        return 0;
    struct unwind_rule *rules = (struct unwind_rule *)e;
    return &rules[rule & 3];
}

#endif
