/* SPDX-License-Identifier: MIT */
/* Strong definitions of the whole family stand before the C library's, for it and for every library too (glibc manual,
 * "Replacing malloc"). The first call comes from the dynamic linker, before any constructor, so the heap begins with
 * whoever comes first. The loop's thread and the worker (getaddrinfo) may call at once: a spin lock that yields, since
 * each call is short, waiting is rare, and a mutex might itself want memory. This one file is compiled without the
 * poison list. */
#include "malloc_block.h"

#include <errno.h>
#include <malloc.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "heap.h"

/* The resolver takes some 80 KiB for a while, stdio and two AMQP links keep 20: the rest is for the modules that a
 * machine may have for host names, which allocate as they like. */
enum { MALLOC_BLOCK_BYTES = 1024 * 1024, SPINS_MAX = 100 };

static alignas(4096) uint8_t block[MALLOC_BLOCK_BYTES];
static struct heap heap;
static atomic_flag locked = ATOMIC_FLAG_INIT;

static void lock(void)
{
    for (int spins = 0; atomic_flag_test_and_set_explicit(&locked, memory_order_acquire); spins++) {
        if (spins >= SPINS_MAX) {
            (void)sched_yield(); /* its holder may wait for this core */
        }
    }
    if (heap.memory == NULL) {
        heap_init(&heap, block, sizeof block);
    }
}

static void unlock(void)
{
    atomic_flag_clear_explicit(&locked, memory_order_release);
}

static void *take(size_t alignment, size_t bytes)
{
    lock();
    void *memory = heap_take(&heap, alignment, bytes);
    unlock();
    if (memory == NULL) {
        errno = ENOMEM;
    }
    return memory;
}

static bool is_power_of_two(size_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

void malloc_block_counters(struct port_heap *counters)
{
    lock();
    *counters = (struct port_heap){.capacity_bytes = sizeof block,
                                   .used_bytes = heap.used_bytes,
                                   .peak_bytes = heap.peak_bytes,
                                   .refused_count = heap.refused_count};
    unlock();
}

void *malloc(size_t bytes)
{
    return take(1, bytes);
}

void free(void *memory)
{
    if (memory != NULL) {
        lock();
        heap_give(&heap, memory);
        unlock();
    }
}

void *calloc(size_t count, size_t bytes_each)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, bytes_each, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    void *memory = take(1, bytes);
    return memory != NULL ? memset(memory, 0, bytes) : NULL;
}

void *realloc(void *memory, size_t bytes)
{
    if (memory == NULL) {
        return take(1, bytes);
    }
    if (bytes == 0) {
        free(memory);
        return NULL;
    }
    lock();
    void *resized = heap_resize(&heap, memory, bytes);
    unlock();
    if (resized == NULL) {
        errno = ENOMEM;
    }
    return resized;
}

void *reallocarray(void *memory, size_t count, size_t bytes_each)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, bytes_each, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(memory, bytes);
}

int posix_memalign(void **result, size_t alignment, size_t bytes)
{
    if (!is_power_of_two(alignment) || alignment % sizeof(void *) != 0) {
        return EINVAL;
    }
    int saved = errno; /* the result says it, not errno */
    void *memory = take(alignment, bytes);
    errno = saved;
    if (memory == NULL) {
        return ENOMEM;
    }
    *result = memory;
    return 0;
}

void *memalign(size_t alignment, size_t bytes)
{
    if (!is_power_of_two(alignment)) {
        errno = EINVAL;
        return NULL;
    }
    return take(alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    return memalign(alignment, bytes);
}

void *valloc(size_t bytes)
{
    return take(page_bytes(), bytes);
}

void *pvalloc(size_t bytes)
{
    size_t page = page_bytes();
    if (bytes > SIZE_MAX - page) {
        errno = ENOMEM;
        return NULL;
    }
    return take(page, (bytes + page - 1) / page * page);
}

size_t malloc_usable_size(void *memory)
{
    if (memory == NULL) {
        return 0;
    }
    lock();
    size_t bytes = heap_usable_bytes(&heap, memory);
    unlock();
    return bytes;
}
