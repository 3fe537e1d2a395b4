/* SPDX-License-Identifier: MIT */
/* Method: one write at a time is out. It takes from the stage's front what fits the segment, which begins a new one
 * where nothing does; the records stay in the stage until the sync came back. After a failure the segment is given up,
 * and the same records go into another one, so a write needs no way back. */
#include "check.h"
#include "log.h"
#include "spool_inside.h"

static const bool allowed[SPOOL_WRITING_COUNT][SPOOL_WRITING_COUNT] = {
    [SPOOL_WRITING_READY] = {[SPOOL_WRITING_OUT] = true},
    [SPOOL_WRITING_OUT] = {[SPOOL_WRITING_READY] = true, [SPOOL_WRITING_PAUSED] = true},
    [SPOOL_WRITING_PAUSED] = {[SPOOL_WRITING_READY] = true},
};

static void move(struct spool *spool, enum spool_writing writing)
{
    CHECK(allowed[spool->writing][writing]);
    spool->writing = writing;
}

/* ---- on the worker ---- */

static bool write_all(struct spool_write *write)
{
    static const uint8_t end[SPOOL_END_BYTES] = {0};
    const struct port *port = write->port;
    uint64_t size_bytes;
    if (write->file_ended != PORT_NONE) {
        port->close_file(port->context, write->file_ended);
        write->file_ended = PORT_NONE;
    }
    if (write->file == PORT_NONE) {
        enum port_result opened = port->open_file(port->context, write->path, false, &write->file, &size_bytes);
        if (opened != PORT_OK) {
            write->file = PORT_NONE;
            (void)snprintf(write->error, sizeof write->error, "%s",
                           opened == PORT_CLOSED ? "the file is gone" : port->error_text(port->context));
            return false;
        }
    }
    uint64_t offset = write->offset;
    struct {
        uint64_t offset;
        struct span bytes;
    } pieces[5];
    size_t count = 0;
    if (write->has_header) {
        pieces[count].offset = 0;
        pieces[count++].bytes = span_of(write->header, sizeof write->header);
    }
    const struct span parts[] = {span_of(write->mark, write->has_mark ? sizeof write->mark : 0), write->records[0],
                                 write->records[1], span_of(end, write->has_end ? sizeof end : 0)};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        pieces[count].offset = offset;
        pieces[count++].bytes = parts[i];
        offset += parts[i].bytes;
    }
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].bytes.bytes > 0 && port->write_at(port->context, write->file, pieces[i].offset,
                                                        pieces[i].bytes.data, pieces[i].bytes.bytes) != PORT_OK) {
            (void)snprintf(write->error, sizeof write->error, "%s", port->error_text(port->context));
            return false;
        }
    }
    if (write->is_to_sync && port->sync_file(port->context, write->file) != PORT_OK) {
        (void)snprintf(write->error, sizeof write->error, "%s", port->error_text(port->context));
        return false;
    }
    return true;
}

static void run(struct port_job *job)
{
    struct spool_write *write = job->context;
    write->has_failed = !write_all(write);
}

/* ---- what to write ---- */

static bool is_mark_due(const struct spool *spool)
{
    uint64_t released = spool->released_sequence;
    uint64_t marked = spool->marked_sequence;
    return released > marked && spool->written_sequence > marked &&
           (released - marked >= SPOOL_MARK_MESSAGES || released >= spool->written_sequence || spool->is_closing);
}

/* The next free one behind the last that was begun, so that all wear alike; one that failed only if all have. */
static uint32_t find_free(const struct spool *spool)
{
    uint32_t found = SPOOL_NO_SEGMENT;
    for (uint32_t step = 1; step <= spool->segment_count; step++) {
        uint32_t index = (spool->last_index + step) % spool->segment_count;
        const struct spool_segment *segment = &spool->segments[index];
        if (segment->state == SPOOL_SEGMENT_FREE &&
            (found == SPOOL_NO_SEGMENT || segment->failure_count < spool->segments[found].failure_count)) {
            found = index;
        }
    }
    return found;
}

static bool begin_segment(struct spool *spool)
{
    struct spool_write *write = &spool->write;
    uint32_t index = find_free(spool);
    if (index == SPOOL_NO_SEGMENT) {
        return false;
    }
    if (spool->written_index != SPOOL_NO_SEGMENT) {
        spool_retire(spool, spool->written_index);
        write->file_ended = write->file;
        write->file = PORT_NONE;
    }
    struct spool_segment *segment = &spool->segments[index];
    do {
        spool->port->random(spool->port->context, &segment->salt, sizeof segment->salt);
    } while (segment->salt == 0);
    segment->number = spool->next_number++;
    segment->first_sequence = spool->stage.first_sequence;
    segment->last_sequence = segment->first_sequence - 1;
    segment->end_offset = SPOOL_SEGMENT_HEADER_BYTES;
    spool_set_state(spool, index, SPOOL_SEGMENT_WRITTEN);
    spool->written_index = index;
    spool->last_index = index;
    const struct spool_header header = {.version = SPOOL_VERSION,
                                        .segment_bytes = spool->options.segment_bytes,
                                        .number = segment->number,
                                        .first_sequence = segment->first_sequence,
                                        .released = spool->released_sequence,
                                        .salt = segment->salt};
    spool_header_write(write->header, &header);
    write->has_header = true;
    return true;
}

/* Takes records from the stage's front, one batch at most and as far as they fit, for the segment that is written.
 * Returns their bytes. */
static size_t take_records(struct spool *spool, size_t room_bytes)
{
    struct spool_write *write = &spool->write;
    uint64_t salt = spool->segments[spool->written_index].salt;
    const struct spool_stage *stage = &spool->stage;
    size_t taken_bytes = 0;
    size_t at = stage->start;
    write->records[0] = span_of(stage->bytes + at, 0);
    write->records[1] = span_of(stage->bytes, 0);
    for (uint64_t sequence = stage->first_sequence; sequence < stage->next_sequence; sequence++) {
        size_t record_bytes = SPOOL_RECORD_BYTES(spool_record_payload(stage->bytes + at).bytes);
        if (record_bytes > room_bytes - taken_bytes ||
            (taken_bytes > 0 && taken_bytes + record_bytes > SPOOL_BATCH_BYTES)) {
            break;
        }
        spool_record_bind(stage->bytes + at, salt);
        write->records[at < stage->start].bytes += record_bytes;
        taken_bytes += record_bytes;
        write->last_sequence = sequence;
        at = spool_stage_after(stage, at);
    }
    return taken_bytes;
}

/* Fills the job; false when nothing is to be written, or nothing can be. */
static bool prepare(struct spool *spool)
{
    struct spool_write *write = &spool->write;
    const struct spool_stage *stage = &spool->stage;
    bool has_records = !spool_stage_is_empty(stage);
    bool is_sync_due = spool->is_closing && spool->is_mark_unsynced && spool->written_index != SPOOL_NO_SEGMENT;
    if (!has_records && !is_mark_due(spool) && !is_sync_due) {
        return false;
    }
    size_t first_bytes = has_records ? SPOOL_RECORD_BYTES(spool_record_payload(stage->bytes + stage->start).bytes) : 0;
    write->has_header = false;
    write->has_mark = spool->released_sequence > spool->marked_sequence;
    size_t least_bytes = first_bytes + (write->has_mark ? SPOOL_RECORD_HEADER_BYTES : 0);
    if (spool->written_index == SPOOL_NO_SEGMENT ||
        spool->options.segment_bytes - spool->segments[spool->written_index].end_offset < least_bytes) {
        if (!begin_segment(spool)) {
            return false;
        }
        write->has_mark = false; /* the header says it */
    }
    write->released = spool->released_sequence;
    if (write->has_mark) {
        spool_mark_write(write->mark, spool->segments[spool->written_index].salt, write->released);
    }
    write->offset = spool->segments[spool->written_index].end_offset;
    write->end_offset = write->offset + (write->has_mark ? SPOOL_RECORD_HEADER_BYTES : 0);
    write->last_sequence = stage->first_sequence - 1;
    write->end_offset += (uint32_t)take_records(spool, spool->options.segment_bytes - write->end_offset);
    write->has_end = spool->options.segment_bytes - write->end_offset >= SPOOL_END_BYTES;
    write->is_to_sync = has_records || spool->is_closing;
    if (write->last_sequence > spool->written_sequence) {
        spool->written_sequence = write->last_sequence;
    }
    spool_segment_path(spool, spool->written_index, write->path);
    return true;
}

/* What was confirmed before it was written need not be. */
static void forget_released(struct spool *spool)
{
    struct spool_stage *stage = &spool->stage;
    while (!spool_stage_is_empty(stage) && stage->first_sequence <= spool->released_sequence) {
        spool_stage_pop(stage);
    }
}

void spool_write_turn(struct spool *spool, uint64_t now_ms)
{
    switch (spool->writing) {
    case SPOOL_WRITING_OUT:
    case SPOOL_WRITING_COUNT:
        return;
    case SPOOL_WRITING_PAUSED:
        forget_released(spool);
        spool->is_written = true;
        if (now_ms < spool->retry_ms) {
            return;
        }
        move(spool, SPOOL_WRITING_READY);
        break;
    case SPOOL_WRITING_READY:
        forget_released(spool);
        break;
    }
    spool->is_written = !prepare(spool);
    if (!spool->is_written) {
        move(spool, SPOOL_WRITING_OUT);
        spool->write.job = (struct port_job){.run = run, .context = &spool->write, .lane = PORT_LANE_STORAGE};
        CHECK(spool->port->submit_job(spool->port->context, &spool->write.job));
    }
}

/* ---- what became of it ---- */

static void give_up_segment(struct spool *spool, uint64_t now_ms)
{
    struct spool_write *write = &spool->write;
    struct spool_segment *segment = &spool->segments[spool->written_index];
    spool->counters.write_failure_count++;
    log_event(spool->log, LOG_ERROR, "spool_write_failed", LOG_TEXT("path", write->path),
              LOG_TEXT("reason", write->error),
              LOG_U64("messages", spool->stage.next_sequence - spool->stage.first_sequence),
              LOG_U64("retry_ms", spool->retry_wait_ms),
              LOG_TEXT("remedy", "see to the disk (the kernel's log says more); until a write succeeds nothing is "
                                 "accepted, and it is tried again by itself"));
    if (segment->failure_count < UINT16_MAX) {
        segment->failure_count++;
    }
    spool_retire(spool, spool->written_index);
    spool->written_index = SPOOL_NO_SEGMENT;
    write->file_ended = write->file;
    write->file = PORT_NONE;
    spool->retry_ms = now_ms + spool->retry_wait_ms;
    uint64_t doubled_ms = spool->retry_wait_ms * 2;
    spool->retry_wait_ms = doubled_ms < SPOOL_RETRY_MS_MAX ? doubled_ms : SPOOL_RETRY_MS_MAX;
    move(spool, SPOOL_WRITING_PAUSED);
}

void spool_write_done(struct spool *spool, uint64_t now_ms)
{
    struct spool_write *write = &spool->write;
    if (write->has_failed) {
        give_up_segment(spool, now_ms);
        return;
    }
    struct spool_segment *segment = &spool->segments[spool->written_index];
    spool->counters.write_count++;
    spool->counters.written_bytes += write->end_offset - write->offset +
                                     (write->has_header ? SPOOL_SEGMENT_HEADER_BYTES : 0) +
                                     (write->has_end ? SPOOL_END_BYTES : 0);
    segment->end_offset = write->end_offset;
    segment->last_sequence =
        write->last_sequence >= segment->first_sequence ? write->last_sequence : segment->last_sequence;
    segment->failure_count = 0;
    spool->marked_sequence = write->released;
    spool->is_mark_unsynced = !write->is_to_sync;
    if (spool->oldest_index == SPOOL_NO_SEGMENT) {
        spool->oldest_index = spool->written_index;
    }
    if (spool->retry_wait_ms > SPOOL_RETRY_MS_MIN) {
        spool->retry_wait_ms = SPOOL_RETRY_MS_MIN;
        log_event(spool->log, LOG_INFO, "spool_write_recovered", LOG_TEXT("path", write->path));
    }
    move(spool, SPOOL_WRITING_READY);
    struct spool_stage *stage = &spool->stage;
    while (stage->first_sequence <= write->last_sequence) {
        struct span payload = spool_record_payload(stage->bytes + stage->start);
        spool->counters.synced_count++;
        spool->handler->on_synced(spool->context, stage->first_sequence, payload);
        spool_stage_pop(stage);
    }
}
