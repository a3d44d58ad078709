// Another BPF user that keeps the kernel busy: updates of a map with large values, on and
// on. While one runs, the kernel skips every tick's program on that CPU.
// usage: bpf_busy SECONDS
#include "burn.h"
#include <linux/bpf.h>
#include <sys/syscall.h>

enum { VALUE = 100000 };

static long bpf(int command, union bpf_attr *attribute) {
    return syscall(__NR_bpf, command, attribute, sizeof *attribute);
}

int main(int argc, char **argv) {
    union bpf_attr create;
    memset(&create, 0, sizeof create);
    create.map_type = BPF_MAP_TYPE_ARRAY;
    create.key_size = 4;
    create.value_size = VALUE;
    create.max_entries = 16;
    long map = bpf(BPF_MAP_CREATE, &create);
    if (map < 0) {
        perror("creating a map");
        return 1;
    }
    static char value[VALUE];
    double seconds = argument(argc, argv, 1, 5), start = thread_seconds();
    long updates = 0;
    for (uint32_t key = 0; thread_seconds() - start < seconds; key = (key + 1) % 16) {
        union bpf_attr update;
        memset(&update, 0, sizeof update);
        update.map_fd = (uint32_t)map;
        update.key = (uint64_t)&key;
        update.value = (uint64_t)value;
        if (bpf(BPF_MAP_UPDATE_ELEM, &update) == 0)
            updates++;
    }
    printf("{\"updates\":%ld}\n", updates);
    return 0;
}
