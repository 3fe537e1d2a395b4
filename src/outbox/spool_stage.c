/* SPDX-License-Identifier: MIT */
/* Records lie whole in the ring, so its end may stay unused when one does not fit there; `wrap` is where that begins.
 * The ring is turned while its end is not behind its start, which is also how a full one looks; an empty one begins
 * at 0. */
#include "check.h"
#include "spool_inside.h"

void spool_stage_init(struct spool_stage *stage, uint8_t *bytes, size_t bytes_max, size_t record_bytes_max)
{
    CHECK(bytes_max >= 2 * record_bytes_max);
    *stage = (struct spool_stage){
        .bytes = bytes, .bytes_max = bytes_max, .wrap = bytes_max, .record_bytes_max = record_bytes_max};
}

void spool_stage_begin(struct spool_stage *stage, uint64_t sequence)
{
    CHECK(spool_stage_is_empty(stage));
    stage->first_sequence = sequence;
    stage->next_sequence = sequence;
}

static bool is_turned(const struct spool_stage *stage)
{
    return stage->end <= stage->start && !spool_stage_is_empty(stage);
}

size_t spool_stage_bytes(const struct spool_stage *stage)
{
    return is_turned(stage) ? stage->bytes_max - stage->start + stage->end : stage->end - stage->start;
}

size_t spool_stage_records_bytes(const struct spool_stage *stage)
{
    return spool_stage_bytes(stage) - (stage->bytes_max - stage->wrap);
}

/* Where a record of so many bytes may begin; SIZE_MAX: nowhere. */
static size_t find_room(const struct spool_stage *stage, size_t record_bytes)
{
    if (is_turned(stage)) {
        return stage->start - stage->end >= record_bytes ? stage->end : SIZE_MAX;
    }
    if (stage->bytes_max - stage->end >= record_bytes) {
        return stage->end;
    }
    return stage->start >= record_bytes ? 0 : SIZE_MAX;
}

uint8_t *spool_stage_reserve(struct spool_stage *stage, size_t payload_bytes)
{
    size_t record_bytes = SPOOL_RECORD_BYTES(payload_bytes);
    CHECK(record_bytes <= stage->record_bytes_max);
    size_t at = find_room(stage, record_bytes);
    if (at == SIZE_MAX) {
        return NULL;
    }
    if (at != stage->end) {
        stage->wrap = stage->end;
        stage->end = 0;
    }
    return stage->bytes + at + SPOOL_RECORD_HEADER_BYTES;
}

uint64_t spool_stage_append(struct spool_stage *stage, size_t payload_bytes)
{
    stage->last = stage->end;
    stage->end += spool_record_write(stage->bytes + stage->end, stage->next_sequence, payload_bytes);
    CHECK(stage->end <= stage->bytes_max);
    return stage->next_sequence++;
}

size_t spool_stage_after(const struct spool_stage *stage, size_t at)
{
    size_t next = at + SPOOL_RECORD_BYTES(spool_record_payload(stage->bytes + at).bytes);
    return next == stage->wrap ? 0 : next;
}

void spool_stage_pop(struct spool_stage *stage)
{
    CHECK(!spool_stage_is_empty(stage));
    size_t next = spool_stage_after(stage, stage->start);
    if (next < stage->start) {
        stage->wrap = stage->bytes_max;
    }
    stage->start = next;
    stage->first_sequence++;
    if (spool_stage_is_empty(stage)) {
        stage->start = 0;
        stage->end = 0;
        stage->wrap = stage->bytes_max;
    }
}
