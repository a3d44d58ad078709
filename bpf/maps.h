/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Every map: what it holds, how large it is and why. Sizes that depend on the machine
 * are set by the loader before load. */
#ifndef EVERFLAME_MAPS_H
#define EVERFLAME_MAPS_H

struct mapping_chunk {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, MAPPING_CHUNK);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(key_size, 4);
    __uint(value_size, sizeof(struct mapping));
};

struct row_chunk {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, CHUNK_ELEMENTS);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(key_size, 4);
    __uint(value_size, ELEMENT_SIZE);
};

/* The pool of mappings. User space writes the chunks through mappings of them: no system
 * call, and the outer map is updated (15 ms each, RCU) only to add a chunk. 256 chunks are
 * four million mappings, 96 MiB; the agent's options allow fewer. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, 256);
    __type(key, __u32);
    __array(values, struct mapping_chunk);
} mapping_chunks SEC(".maps");

/* Unwind tables, packed: 256 chunks of 1 MiB at most. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, 256);
    __type(key, __u32);
    __array(values, struct row_chunk);
} row_chunks SEC(".maps");

/* Executable number -> where its table is, TABLE_NOT_YET or TABLE_NEVER. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, EXECUTABLE_LIMIT);
    __uint(map_flags, BPF_F_MMAPABLE);
    __type(key, __u32);
    __type(value, __u32);
} tables SEC(".maps");

/* pid -> its mappings. Written by user space and by the lifecycle programs. Preallocated:
 * those programs must not allocate. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 32768);
    __type(key, __u32);
    __type(value, struct process);
} processes SEC(".maps");

/* State of the walk under way on each CPU; too large for the BPF stack, and not a per-CPU
 * map, whose values cannot exceed 32 KiB. max_entries: number of CPUs. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct walk);
} walks SEC(".maps");

/* max_entries: number of CPUs + USER_COUNTER_ELEMENTS. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __uint(map_flags, BPF_F_MMAPABLE);
    __type(key, __u32);
    __type(value, struct counters);
} counters SEC(".maps");

/* Stacks whose frames the ring took in this epoch: hash + epoch, direct-mapped. A
 * collision only sends frames once more; nothing can fail or fill up. */
#define SEEN_SLOTS 16384
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, SEEN_SLOTS);
    __type(key, __u32);
    __type(value, __u64);
} seen SEC(".maps");

/* What user space tells the running programs. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __uint(map_flags, BPF_F_MMAPABLE);
    __type(key, __u32);
    __type(value, struct control);
} control SEC(".maps");

/* Processes to sample where the options say so (`record`); children are added by fork. One
 * that ends keeps its mark while the kernel takes it down. */
#define WANTED 1
#define WANTED_ENDS 2
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __type(key, __u32);
    __type(value, __u8);
} wanted SEC(".maps");

/* Samples to user space. Size is an option of the agent. */
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 20);
} ring SEC(".maps");

/* Control groups that were made, struct cgroup_birth: 128 of them between two looks. */
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 16);
} births SEC(".maps");

/* Set by the loader. The only read-only data, so that it starts at offset 0. */
const volatile struct options options;

static __always_inline __u64 address_mask(void) { return options.address_mask; }

#endif
