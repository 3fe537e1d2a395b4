/* SPDX-License-Identifier: MIT */
/* Method: a table of segments, of which one is written and the others with messages wait to be read and released. This
 * file has the table and the front; spool_write.c brings the stage to the disk, spool_read.c reads back,
 * spool_recovery.c finds at start what there is. */
#include "spool.h"

#include "arena.h"
#include "check.h"
#include "log.h"
#include "number.h"
#include "spool_inside.h"
#include "text.h"

static size_t read_buffer_bytes(size_t record_bytes_max)
{
    size_t least_bytes = SPOOL_READ_BYTES_MIN;
    return record_bytes_max > least_bytes ? record_bytes_max : least_bytes;
}

struct spool *spool_init(struct arena *arena, struct port *port, struct log *log, const struct spool_options *options,
                         const struct spool_handler *handler, void *context)
{
    size_t record_bytes_max = SPOOL_RECORD_BYTES(options->payload_bytes_max);
    size_t buffer_bytes = read_buffer_bytes(record_bytes_max);
    struct spool *spool = arena_take(arena, "spool", 1, sizeof *spool);
    struct spool_segment *segments =
        arena_take(arena, "spool, a segment on the disk", SPOOL_SEGMENTS_MAX, sizeof(struct spool_segment));
    uint8_t *stage = arena_take(arena, "spool, records for the disk", 1, options->stage_bytes);
    uint8_t *buffer = arena_take(arena, "spool, a piece read back", 1, buffer_bytes);
    if (arena_measuring(arena)) {
        return NULL;
    }
    uint64_t segment_count = options->bytes_max / options->segment_bytes;
    CHECK(segment_count >= SPOOL_SEGMENTS_MIN && segment_count <= SPOOL_SEGMENTS_MAX);
    CHECK(options->payload_bytes_max <= SPOOL_PAYLOAD_BYTES_MAX &&
          options->segment_bytes % SPOOL_RECORD_ALIGN_BYTES == 0);
    CHECK(options->segment_bytes >= SPOOL_SEGMENT_HEADER_BYTES + SPOOL_RECORD_HEADER_BYTES + record_bytes_max);
    CHECK(strlen(options->directory) <= SPOOL_DIRECTORY_BYTES_MAX);
    *spool = (struct spool){.port = port,
                            .log = log,
                            .options = *options,
                            .handler = handler,
                            .context = context,
                            .segments = segments,
                            .segment_count = (uint32_t)segment_count,
                            .written_index = SPOOL_NO_SEGMENT,
                            .oldest_index = SPOOL_NO_SEGMENT,
                            .last_index = (uint32_t)segment_count - 1,
                            .lock = PORT_NONE,
                            .retry_wait_ms = SPOOL_RETRY_MS_MIN,
                            .is_written = true,
                            .write = {.port = port, .file = PORT_NONE, .file_ended = PORT_NONE},
                            .read = {.port = port,
                                     .file = {.file = PORT_NONE},
                                     .file_ended = PORT_NONE,
                                     .buffer = buffer,
                                     .buffer_bytes_max = buffer_bytes,
                                     .segment_index = SPOOL_NO_SEGMENT,
                                     .file_segment_index = SPOOL_NO_SEGMENT}};
    spool_stage_init(&spool->stage, stage, options->stage_bytes, record_bytes_max);
    spool_stage_begin(&spool->stage, 1);
    return spool;
}

/* ---- segments ---- */

void spool_segment_path(const struct spool *spool, uint32_t index, char path[SPOOL_PATH_BYTES])
{
    (void)snprintf(path, SPOOL_PATH_BYTES, "%s/%05u.segment", spool->options.directory, (unsigned)index);
}

uint32_t spool_find_segment(const struct spool *spool, uint64_t sequence)
{
    uint32_t found = SPOOL_NO_SEGMENT;
    for (uint32_t index = 0; index < spool->segment_end; index++) {
        const struct spool_segment *segment = &spool->segments[index];
        bool holds = segment->state == SPOOL_SEGMENT_WRITTEN || segment->state == SPOOL_SEGMENT_KEPT;
        if (holds && segment->last_sequence >= sequence &&
            (found == SPOOL_NO_SEGMENT || segment->first_sequence < spool->segments[found].first_sequence)) {
            found = index;
        }
    }
    return found;
}

/* Free, and to be written. */
static bool is_usable(const struct spool *spool, uint32_t index)
{
    return spool->segments[index].state == SPOOL_SEGMENT_FREE && index < spool->segment_count;
}

void spool_set_state(struct spool *spool, uint32_t index, enum spool_segment_state state)
{
    static const bool allowed[SPOOL_SEGMENT_STATE_COUNT][SPOOL_SEGMENT_STATE_COUNT] = {
        [SPOOL_SEGMENT_ABSENT] = {[SPOOL_SEGMENT_FREE] = true, [SPOOL_SEGMENT_KEPT] = true},
        [SPOOL_SEGMENT_FREE] = {[SPOOL_SEGMENT_ABSENT] = true, [SPOOL_SEGMENT_WRITTEN] = true},
        [SPOOL_SEGMENT_WRITTEN] = {[SPOOL_SEGMENT_FREE] = true, [SPOOL_SEGMENT_KEPT] = true},
        [SPOOL_SEGMENT_KEPT] = {[SPOOL_SEGMENT_FREE] = true, [SPOOL_SEGMENT_WRITTEN] = true},
    };
    struct spool_segment *segment = &spool->segments[index];
    CHECK(allowed[segment->state][state]);
    spool->free_count -= is_usable(spool, index);
    segment->state = (uint8_t)state;
    spool->free_count += is_usable(spool, index);
    if (index >= spool->segment_end) {
        spool->segment_end = index + 1;
    }
    if (state == SPOOL_SEGMENT_FREE && spool->read.segment_index == index) {
        spool->read.segment_index = SPOOL_NO_SEGMENT; /* all of it was read */
    }
}

void spool_retire(struct spool *spool, uint32_t index)
{
    const struct spool_segment *segment = &spool->segments[index];
    bool is_done =
        segment->last_sequence < segment->first_sequence || segment->last_sequence <= spool->released_sequence;
    spool_set_state(spool, index, is_done ? SPOOL_SEGMENT_FREE : SPOOL_SEGMENT_KEPT);
    if (is_done && spool->oldest_index == index) {
        spool->oldest_index = spool_find_segment(spool, 0);
    }
}

/* ---- room ---- */

/* What surely goes into a part of a segment: a record that does not fit at its end leaves less than a record unused. */
static uint64_t usable_bytes(const struct spool *spool, uint32_t end_offset)
{
    uint64_t rest_bytes = spool->options.segment_bytes - end_offset;
    uint64_t unusable_bytes = spool->stage.record_bytes_max + SPOOL_RECORD_HEADER_BYTES;
    return rest_bytes > unusable_bytes ? rest_bytes - unusable_bytes : 0;
}

static uint64_t disk_room_bytes(const struct spool *spool)
{
    uint64_t room_bytes = spool->free_count * usable_bytes(spool, SPOOL_SEGMENT_HEADER_BYTES);
    if (spool->written_index != SPOOL_NO_SEGMENT) {
        room_bytes += usable_bytes(spool, spool->segments[spool->written_index].end_offset);
    }
    return room_bytes;
}

bool spool_has_room(const struct spool *spool, size_t record_bytes)
{
    const struct spool_stage *stage = &spool->stage;
    size_t left_bytes = stage->bytes_max - spool_stage_bytes(stage);
    return left_bytes >= stage->record_bytes_max && left_bytes - stage->record_bytes_max >= record_bytes &&
           spool_disk_has_room(spool, record_bytes);
}

bool spool_disk_has_room(const struct spool *spool, size_t record_bytes)
{
    return spool_stage_records_bytes(&spool->stage) + record_bytes <= disk_room_bytes(spool);
}

bool spool_is_filling(const struct spool *spool)
{
    return !spool_disk_has_room(spool, spool->stage.bytes_max);
}

bool spool_is_on_disk(const struct spool *spool, uint64_t sequence)
{
    return sequence != 0 && sequence < spool->stage.first_sequence;
}

/* ---- the front ---- */

uint8_t *spool_reserve(struct spool *spool, size_t payload_bytes)
{
    return spool_stage_reserve(&spool->stage, payload_bytes);
}

uint64_t spool_append(struct spool *spool, size_t payload_bytes)
{
    spool->counters.appended_count++;
    uint64_t sequence = spool_stage_append(&spool->stage, payload_bytes);
    size_t used_bytes = spool_stage_bytes(&spool->stage);
    if (used_bytes > spool->counters.stage_peak_bytes) {
        spool->counters.stage_peak_bytes = used_bytes;
    }
    return sequence;
}

void spool_release(struct spool *spool, uint64_t sequence)
{
    CHECK(sequence < spool->read_sequence);
    if (sequence <= spool->released_sequence) {
        return;
    }
    spool->released_sequence = sequence;
    while (spool->oldest_index != SPOOL_NO_SEGMENT) {
        const struct spool_segment *oldest = &spool->segments[spool->oldest_index];
        if (oldest->state == SPOOL_SEGMENT_WRITTEN || oldest->last_sequence > sequence) {
            break;
        }
        spool_retire(spool, spool->oldest_index);
    }
}

uint64_t spool_turn(struct spool *spool, uint64_t now_ms)
{
    uint64_t read_ms = spool_read_turn(spool, now_ms);
    spool_write_turn(spool, now_ms);
    return number_smaller(read_ms, spool->writing == SPOOL_WRITING_PAUSED ? spool->retry_ms : UINT64_MAX);
}

bool spool_on_job(struct spool *spool, const struct port_job *job, uint64_t now_ms)
{
    if (job == &spool->write.job) {
        spool_write_done(spool, now_ms);
        return true;
    }
    if (job == &spool->read.job) {
        spool_read_done(spool, now_ms);
        return true;
    }
    return false;
}

uint64_t spool_unread_count(const struct spool *spool)
{
    return spool->stage.next_sequence - spool->read_sequence;
}

uint64_t spool_message_count(const struct spool *spool)
{
    return spool->stage.next_sequence - 1 - spool->released_sequence;
}

uint64_t spool_unreleased_sequence(const struct spool *spool)
{
    return spool->released_sequence + 1;
}

uint64_t spool_read_sequence(const struct spool *spool)
{
    return spool->read_sequence;
}

uint64_t spool_own_sequence(const struct spool *spool)
{
    return spool->own_sequence;
}

void spool_note_lost(struct spool *spool, uint64_t first, uint64_t last, const char *cause)
{
    spool->counters.lost_count += last - first + 1;
    log_event(spool->log, LOG_ERROR, "spool_lost", LOG_U64("first", first), LOG_U64("last", last),
              LOG_U64("messages", last - first + 1), LOG_TEXT("cause", cause));
}

void spool_close(struct spool *spool)
{
    spool->is_closing = true;
    spool->is_written = false;
}

bool spool_is_closed(const struct spool *spool)
{
    return spool->is_written && spool->writing != SPOOL_WRITING_OUT && !spool->read.is_out;
}

static void close_one(struct spool *spool, port_file *file)
{
    if (*file != PORT_NONE) {
        spool->port->close_file(spool->port->context, *file);
        *file = PORT_NONE;
    }
}

void spool_release_files(struct spool *spool)
{
    if (spool->writing != SPOOL_WRITING_OUT) {
        close_one(spool, &spool->write.file);
        close_one(spool, &spool->write.file_ended);
        close_one(spool, &spool->lock);
    }
    if (!spool->read.is_out) {
        close_one(spool, &spool->read.file.file);
        close_one(spool, &spool->read.file_ended);
    }
}

/* A whole segment counts until the last of its messages is released, because only then it is free. */
static uint64_t used_bytes(const struct spool *spool)
{
    uint64_t bytes = 0;
    for (uint32_t index = 0; index < spool->segment_end; index++) {
        const struct spool_segment *segment = &spool->segments[index];
        bool holds = (segment->state == SPOOL_SEGMENT_WRITTEN || segment->state == SPOOL_SEGMENT_KEPT) &&
                     segment->last_sequence >= segment->first_sequence &&
                     segment->last_sequence > spool->released_sequence;
        bytes += holds ? segment->end_offset : 0;
    }
    return bytes;
}

const struct spool_counters *spool_counters(struct spool *spool)
{
    struct spool_counters *counters = &spool->counters;
    counters->message_count = spool_message_count(spool);
    counters->used_bytes = used_bytes(spool);
    counters->unread_count = spool_unread_count(spool);
    counters->unsynced_count = spool->stage.next_sequence - spool->stage.first_sequence;
    counters->segment_count = spool->segment_count;
    counters->segment_free_count = spool->free_count;
    counters->stage_used_bytes = spool_stage_bytes(&spool->stage);
    counters->is_failing = spool->writing == SPOOL_WRITING_PAUSED || spool->retry_wait_ms > SPOOL_RETRY_MS_MIN;
    return counters;
}
