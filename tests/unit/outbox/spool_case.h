/* SPDX-License-Identifier: MIT */
/* A spool that is filled, damaged and started again: a test for each row of the table of damages in
 * doc/spool-format.md. Segments hold about twenty messages. */
#ifndef POSTERN_TESTS_SPOOL_CASE_H
#define POSTERN_TESTS_SPOOL_CASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "little_endian.h"
#include "spool_format.h"
#include "spool_rig.h"

enum { SEGMENT_BYTES = 2048, SEGMENTS = 8, RECORDS_MAX = 64, HEADER = SPOOL_SEGMENT_HEADER_BYTES };

static inline int open_rig(void **state)
{
    static struct spool_rig rig;
    spool_rig_open(&rig, SEGMENT_BYTES, SEGMENTS, 1);
    *state = &rig;
    return spool_rig_start(&rig) ? 0 : -1;
}

static inline int close_rig(void **state)
{
    spool_rig_close(*state);
    return 0;
}

/* `count` messages, synced, and the spool stopped. */
static inline void fill(struct spool_rig *rig, size_t count)
{
    spool_rig_append_many(rig, count);
    spool_rig_settle(rig);
    assert_int_equal(rig->synced_count, rig->appended_count);
    spool_rig_stop(rig);
}

struct record {
    uint32_t offset;
    uint32_t bytes;
    uint64_t sequence;
};

/* The messages' records in a segment; returns how many. */
static inline size_t find_records(const uint8_t *bytes, struct record records[RECORDS_MAX])
{
    struct spool_scan scan;
    struct spool_record found;
    size_t count = 0;
    struct spool_header header = {.first_sequence = 1};
    (void)spool_header_read(bytes, SEGMENT_BYTES, &header);
    spool_scan_begin(&scan, SEGMENT_BYTES, RIG_PAYLOAD_MAX, &header, UINT64_MAX);
    for (;;) {
        switch (spool_scan_next(&scan, 0, span_of(bytes, SEGMENT_BYTES), &found)) {
        case SPOOL_FOUND_MESSAGE:
            assert_true(count < RECORDS_MAX);
            records[count++] =
                (struct record){found.offset, (uint32_t)SPOOL_RECORD_BYTES(found.payload_bytes), found.sequence};
            break;
        case SPOOL_FOUND_MARK:
            break;
        case SPOOL_FOUND_END:
            return count;
        case SPOOL_FOUND_TOO_LONG:
        case SPOOL_FOUND_MORE:
            fail();
        }
    }
}

/* Reads all there is: right messages, in order, none twice. Returns how many; `missing` gets the first one that is not
 * there, SIZE_MAX if all are. */
static inline size_t read_all(struct spool_rig *rig, uint64_t *missing)
{
    uint64_t message;
    uint64_t sequence;
    uint64_t expected = 0;
    size_t count = 0;
    *missing = UINT64_MAX;
    while (spool_rig_read(rig, &message, &sequence)) {
        assert_true(message >= expected);
        if (message > expected && *missing == UINT64_MAX) {
            *missing = expected;
        }
        expected = message + 1;
        count++;
    }
    if (expected < rig->appended_count && *missing == UINT64_MAX) {
        *missing = expected;
    }
    return count;
}

static inline void assert_lost(struct spool_rig *rig, uint64_t first, uint64_t last)
{
    char text[96];
    (void)snprintf(text, sizeof text, "event=spool_lost first=%llu last=%llu", (unsigned long long)first,
                   (unsigned long long)last);
    assert_int_equal(spool_rig_log_count(rig, text), 1);
    assert_int_equal(spool_counters(rig->spool)->lost_count, last - first + 1);
}

/* The spool takes and gives back messages as ever. */
static inline void assert_well(struct spool_rig *rig)
{
    uint64_t message;
    uint64_t sequence;
    uint64_t first = rig->appended_count;
    while (spool_rig_read(rig, &message, &sequence)) {
        spool_release(rig->spool, sequence);
    }
    spool_rig_append_many(rig, 30);
    spool_rig_settle(rig);
    spool_rig_kill(rig);
    assert_true(spool_rig_start(rig));
    while (spool_rig_read(rig, &message, &sequence)) {
        if (message >= first) { /* what was released before may come again */
            assert_int_equal(message, first++);
        }
    }
    assert_int_equal(first, rig->appended_count);
}

#endif
