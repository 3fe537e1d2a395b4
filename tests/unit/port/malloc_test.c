/* SPDX-License-Identifier: MIT */
/* The program's own malloc family, in a program that is linked with it: this one, CMocka and the C library included.
 * Builds with sanitizers have the sanitizer's. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "malloc_block.h"

enum { THREAD_STACK_BYTES = 128 * 1024, THREAD_ROUNDS = 50000, THREAD_PIECES = 16 };

/* Sizes that the compiler cannot see, so that it neither warns of them nor leaves a call out. */
static volatile size_t beyond = SIZE_MAX / 2;

static size_t used_bytes(void)
{
    struct port_heap heap;
    malloc_block_counters(&heap);
    return heap.used_bytes;
}

static void assert_aligned(void *memory, size_t alignment)
{
    assert_non_null(memory);
    assert_int_equal((uintptr_t)memory % alignment, 0);
}

static void test_all_comes_from_the_block(void **state)
{
    (void)state;
    struct port_heap heap;
    malloc_block_counters(&heap);
    assert_int_equal(heap.capacity_bytes, 1024 * 1024);
    size_t before = used_bytes();
    uint8_t *memory = malloc(1000);
    assert_aligned(memory, _Alignof(max_align_t));
    assert_in_range(used_bytes() - before, 1000, 1100);
    assert_in_range(malloc_usable_size(memory), 1000, 1100);
    free(memory);
    assert_int_equal(used_bytes(), before);
    char *line = strdup("from the C library"); /* which calls malloc, and that is ours */
    assert_true(used_bytes() > before);
    free(line);
    free(NULL);
    assert_int_equal(malloc_usable_size(NULL), 0);
    assert_int_equal(used_bytes(), before);
    malloc_block_counters(&heap);
    assert_true(heap.peak_bytes >= before + 1000);
}

static void test_calloc_zeroes_and_multiplies_with_care(void **state)
{
    (void)state;
    uint8_t *memory = malloc(5000);
    memset(memory, 0xFF, 5000);
    free(memory);
    memory = calloc(50, 100);
    assert_non_null(memory);
    for (size_t at = 0; at < 5000; at++) {
        assert_int_equal(memory[at], 0);
    }
    free(memory);
    errno = 0;
    assert_null(calloc(beyond, 4));
    assert_int_equal(errno, ENOMEM);
    errno = 0;
    assert_null(reallocarray(NULL, beyond, 4));
    assert_int_equal(errno, ENOMEM);
}

static void test_realloc_keeps_what_was_there(void **state)
{
    (void)state;
    size_t before = used_bytes();
    char *text = realloc(NULL, 8);
    memcpy(text, "kept it", 8);
    text = reallocarray(text, 300, 40);
    assert_string_equal(text, "kept it");
    text = realloc(text, 8);
    assert_string_equal(text, "kept it");
    errno = 0;
    assert_null(realloc(text, beyond));
    assert_int_equal(errno, ENOMEM);
    assert_string_equal(text, "kept it");
    assert_null(realloc(text, 0)); /* as in glibc: given back */
    assert_int_equal(used_bytes(), before);
}

static void test_alignments(void **state)
{
    (void)state;
    size_t before = used_bytes();
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *memory = NULL;
    for (size_t alignment = sizeof(void *); alignment <= 16384; alignment *= 2) {
        assert_int_equal(posix_memalign(&memory, alignment, 33), 0);
        assert_aligned(memory, alignment);
        free(memory);
        memory = aligned_alloc(alignment, alignment * 2);
        assert_aligned(memory, alignment);
        free(memory);
        memory = memalign(alignment, 1);
        assert_aligned(memory, alignment);
        free(memory);
    }
    memory = valloc(10);
    assert_aligned(memory, page);
    free(memory);
    memory = pvalloc(page + 1);
    assert_aligned(memory, page);
    assert_true(malloc_usable_size(memory) >= 2 * page);
    free(memory);
    assert_int_equal(used_bytes(), before);
}

static void test_wrong_alignments_and_too_much_are_refused(void **state)
{
    (void)state;
    volatile size_t odd = 24;
    void *memory = &memory;
    assert_int_equal(posix_memalign(&memory, odd, 8), EINVAL);
    assert_int_equal(posix_memalign(&memory, sizeof(void *) / 2, 8), EINVAL);
    errno = 0;
    assert_int_equal(posix_memalign(&memory, 64, beyond), ENOMEM);
    assert_int_equal(errno, 0);
    assert_ptr_equal(memory, &memory);
    assert_null(memalign(odd, 8));
    assert_int_equal(errno, EINVAL);
    assert_null(pvalloc(beyond * 2 + 1));
    assert_int_equal(errno, ENOMEM);
    struct port_heap heap;
    malloc_block_counters(&heap);
    uint64_t refused = heap.refused_count;
    errno = 0;
    memory = malloc(beyond);
    assert_null(memory);
    assert_int_equal(errno, ENOMEM);
    malloc_block_counters(&heap);
    assert_true(heap.refused_count == refused + 1);
}

/* Takes and gives back with a pattern of its own; the result is whether every byte stayed as it was. */
static void *hammer(void *argument)
{
    uint8_t pattern = *(uint8_t *)argument;
    uint8_t *pieces[THREAD_PIECES] = {NULL};
    size_t sizes[THREAD_PIECES] = {0};
    uint32_t random = pattern;
    for (size_t round = 0; round < THREAD_ROUNDS; round++) {
        random = random * 1664525 + 1013904223;
        size_t index = random >> 16 & (THREAD_PIECES - 1);
        for (size_t at = 0; at < sizes[index]; at++) {
            if (pieces[index][at] != pattern) {
                return NULL;
            }
        }
        free(pieces[index]);
        sizes[index] = random >> 20 & 511;
        pieces[index] = malloc(sizes[index]);
        if (pieces[index] == NULL) {
            return NULL;
        }
        memset(pieces[index], pattern, sizes[index]);
    }
    for (size_t index = 0; index < THREAD_PIECES; index++) {
        free(pieces[index]);
    }
    return argument;
}

static void test_two_threads_at_once(void **state)
{
    (void)state;
    static _Alignas(16384) uint8_t stack[THREAD_STACK_BYTES];
    uint8_t patterns[2] = {0x11, 0xEE};
    pthread_t thread;
    pthread_attr_t attributes;
    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstack(&attributes, stack, sizeof stack), 0);
    size_t before = used_bytes();
    assert_int_equal(pthread_create(&thread, &attributes, hammer, &patterns[0]), 0);
    void *result = NULL;
    assert_ptr_equal(hammer(&patterns[1]), &patterns[1]);
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_ptr_equal(result, &patterns[0]);
    assert_int_equal(pthread_attr_destroy(&attributes), 0);
    assert_true(used_bytes() <= before + 1024); /* what the thread library keeps */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_comes_from_the_block),
        cmocka_unit_test(test_calloc_zeroes_and_multiplies_with_care),
        cmocka_unit_test(test_realloc_keeps_what_was_there),
        cmocka_unit_test(test_alignments),
        cmocka_unit_test(test_wrong_alignments_and_too_much_are_refused),
        cmocka_unit_test(test_two_threads_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
