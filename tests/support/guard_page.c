/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "guard_page.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void guard_page_open(struct guard_page *guard, size_t bytes)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    size_t usable_bytes = (bytes + page_bytes - 1) / page_bytes * page_bytes;
    guard->mapping_bytes = usable_bytes + page_bytes;
    void *mapping = mmap(NULL, guard->mapping_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) {
        abort();
    }
    guard->mapping = mapping;
    guard->end = guard->mapping + usable_bytes;
    if (mprotect(guard->end, page_bytes, PROT_NONE) != 0) {
        abort();
    }
}

uint8_t *guard_page_put(struct guard_page *guard, const void *data, size_t bytes)
{
    if (bytes > (size_t)(guard->end - guard->mapping)) {
        abort();
    }
    uint8_t *at = guard->end - bytes;
    if (bytes > 0) {
        memcpy(at, data, bytes);
    }
    return at;
}

void guard_page_close(struct guard_page *guard)
{
    (void)munmap(guard->mapping, guard->mapping_bytes);
}
