/* SPDX-License-Identifier: MIT */
/* Memory whose last byte lies right before a page that cannot be touched: a reader that looks one byte too far ends the
 * test. */
#ifndef POSTERN_TESTS_GUARD_PAGE_H
#define POSTERN_TESTS_GUARD_PAGE_H

#include <stddef.h>
#include <stdint.h>

struct guard_page {
    uint8_t *mapping;
    size_t mapping_bytes;
    uint8_t *end; /* the first byte that cannot be touched */
};

/* Holds up to `bytes` bytes. */
void guard_page_open(struct guard_page *guard, size_t bytes);
/* Copies the bytes so that they end at the guard, and returns where they begin. */
uint8_t *guard_page_put(struct guard_page *guard, const void *data, size_t bytes);
void guard_page_close(struct guard_page *guard);

#endif
