#include "base/memory_limit.h"

#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

/* A control group's limit; "max" and absent files mean none. */
static size_t limit_in_file(const char *path)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return SIZE_MAX;
    unsigned long long value;
    int found = fscanf(file, "%llu", &value);
    fclose(file);
    return found == 1 && value > 0 && value < SIZE_MAX ? (size_t)value : SIZE_MAX;
}

size_t draft_memory_limit(void)
{
    size_t limit = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    size_t group = limit_in_file("/sys/fs/cgroup/memory.max");
    size_t old_group = limit_in_file("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    limit = group < limit ? group : limit;
    return old_group < limit ? old_group : limit;
}
