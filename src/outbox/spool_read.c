/* SPDX-License-Identifier: MIT */
/* Method: the reader walks one segment after another in a buffer that the worker fills, up to where the segment was
 * synced. Where it reaches what is still in the stage it reads there, so that it catches up with the appends without
 * waiting for the disk. A read that fails is tried again for a while, with the file opened anew, because a disk that
 * stumbles must cost no message; what then cannot be read is passed over, and so is all the rest of a disk that is
 * dead, so that it does not stand in the way for ever. What is not found between two sequences is lost, and said. */
#include "check.h"
#include "log.h"
#include "number.h"
#include "spool_inside.h"

/* ---- on the worker ---- */

void spool_read_piece(const struct port *port, const struct spool_file *file, uint32_t offset, uint8_t *buffer,
                      size_t bytes, size_t *unreadable_bytes)
{
    size_t there_bytes = file->bytes > offset ? (size_t)number_smaller(file->bytes - offset, bytes) : 0;
    *unreadable_bytes = 0;
    memset(buffer + there_bytes, 0, bytes - there_bytes);
    if (there_bytes == 0 || port->read_at(port->context, file->file, offset, buffer, there_bytes) == PORT_OK) {
        return;
    }
    for (size_t at = 0; at < there_bytes;) {
        size_t page_left = SPOOL_PAGE_BYTES - (offset + at) % SPOOL_PAGE_BYTES;
        size_t piece_bytes = page_left < there_bytes - at ? page_left : there_bytes - at;
        if (port->read_at(port->context, file->file, offset + at, buffer + at, piece_bytes) != PORT_OK) {
            memset(buffer + at, 0, piece_bytes);
            *unreadable_bytes += piece_bytes;
        }
        at += piece_bytes;
    }
}

static void run(struct port_job *job)
{
    struct spool_read *read = job->context;
    const struct port *port = read->port;
    read->is_gone = false;
    if (read->file_ended != PORT_NONE) {
        port->close_file(port->context, read->file_ended);
        read->file_ended = PORT_NONE;
    }
    if (read->file.file == PORT_NONE) {
        enum port_result opened =
            port->open_file(port->context, read->path, false, &read->file.file, &read->file.bytes);
        if (opened != PORT_OK) {
            read->file.file = PORT_NONE;
            read->is_gone = opened == PORT_CLOSED;
            (void)snprintf(read->error, sizeof read->error, "%s",
                           opened == PORT_CLOSED ? "the file is gone" : port->error_text(port->context));
            memset(read->buffer, 0, read->bytes);
            read->unreadable_bytes = read->bytes;
            return;
        }
    }
    spool_read_piece(port, &read->file, read->offset, read->buffer, read->bytes, &read->unreadable_bytes);
    if (read->unreadable_bytes > 0) {
        (void)snprintf(read->error, sizeof read->error, "%s", port->error_text(port->context));
    }
}

/* ---- the walk ---- */

static void submit(struct spool *spool)
{
    struct spool_read *read = &spool->read;
    if (read->file_segment_index != read->segment_index || read->file.file == PORT_NONE) {
        if (read->file.file != PORT_NONE) {
            read->file_ended = read->file.file;
            read->file.file = PORT_NONE;
        }
        read->file_segment_index = read->segment_index;
        spool_segment_path(spool, read->segment_index, read->path);
    }
    size_t left_bytes = read->scan.segment_bytes - read->scan.offset;
    read->offset = read->scan.offset;
    read->bytes = left_bytes < read->buffer_bytes_max ? left_bytes : read->buffer_bytes_max;
    read->is_out = true;
    read->job = (struct port_job){.run = run, .context = read, .lane = PORT_LANE_STORAGE};
    CHECK(spool->port->submit_job(spool->port->context, &read->job));
}

void spool_read_done(struct spool *spool, uint64_t now_ms)
{
    struct spool_read *read = &spool->read;
    read->is_out = false;
    if (read->unreadable_bytes == 0) {
        read->retry_wait_ms = 0;
        return;
    }
    if (!read->is_gone && read->retry_wait_ms <= SPOOL_RETRY_MS_MAX) {
        read->retry_wait_ms = read->retry_wait_ms == 0 ? SPOOL_RETRY_MS_MIN : read->retry_wait_ms * 2;
    }
    read->is_waiting = !read->is_gone && read->retry_wait_ms <= SPOOL_RETRY_MS_MAX;
    log_event(spool->log, LOG_ERROR, "spool_unreadable", LOG_TEXT("path", read->path), LOG_U64("offset", read->offset),
              LOG_U64("bytes", read->unreadable_bytes), LOG_TEXT("reason", read->error),
              LOG_U64("retry_ms", read->is_waiting ? read->retry_wait_ms : 0));
    if (!read->is_waiting) {
        spool->counters.unreadable_bytes += read->unreadable_bytes;
        return;
    }
    read->retry_ms = now_ms + read->retry_wait_ms;
    read->bytes = 0;
    read->file_ended = read->file.file;
    read->file.file = PORT_NONE;
}

uint64_t spool_read_turn(struct spool *spool, uint64_t now_ms)
{
    struct spool_read *read = &spool->read;
    if (!read->is_waiting) {
        return UINT64_MAX;
    }
    read->is_waiting = now_ms < read->retry_ms;
    return read->is_waiting ? read->retry_ms : now_ms; /* whoever wants to read asks again */
}

/* What lies before `sequence` and was not found is lost. */
static void skip_to(struct spool *spool, uint64_t sequence)
{
    uint64_t first = spool->read_sequence;
    if (sequence > first) {
        spool->read_sequence = sequence;
        spool_note_lost(spool, first, sequence - 1, "damaged on the disk, or its file is gone");
    }
}

static void begin_walk(struct spool *spool, uint32_t index)
{
    struct spool_read *read = &spool->read;
    read->segment_index = index;
    read->offset = SPOOL_SEGMENT_HEADER_BYTES;
    read->bytes = 0;
    const struct spool_header header = {.first_sequence = spool->segments[index].first_sequence,
                                        .salt = spool->segments[index].salt};
    spool_scan_begin(&read->scan, SPOOL_SEGMENT_HEADER_BYTES, (uint32_t)spool->options.payload_bytes_max, &header,
                     UINT64_MAX);
}

/* Looks for the message of read_sequence, or the next one behind it, on the disk. */
static enum spool_next walk(struct spool *spool)
{
    struct spool_read *read = &spool->read;
    while (spool->read_sequence < spool->stage.first_sequence) {
        if (read->is_out || read->is_waiting) {
            return SPOOL_NEXT_LATER;
        }
        if (read->segment_index == SPOOL_NO_SEGMENT) {
            uint32_t index = spool_find_segment(spool, spool->read_sequence);
            if (index == SPOOL_NO_SEGMENT) {
                skip_to(spool, spool->stage.first_sequence);
                break;
            }
            begin_walk(spool, index);
        }
        const struct spool_segment *segment = &spool->segments[read->segment_index];
        read->scan.segment_bytes = segment->end_offset;
        read->scan.sequence_end = segment->last_sequence + 1;
        struct spool_record record;
        switch (spool_scan_next(&read->scan, read->offset, span_of(read->buffer, read->bytes), &record)) {
        case SPOOL_FOUND_MESSAGE:
            if (record.sequence >= spool->read_sequence) {
                skip_to(spool, record.sequence);
                spool->read_payload = record.payload;
                return SPOOL_NEXT_MESSAGE;
            }
            break;
        case SPOOL_FOUND_MARK:
        case SPOOL_FOUND_TOO_LONG:
            break;
        case SPOOL_FOUND_MORE:
            submit(spool);
            return SPOOL_NEXT_LATER;
        case SPOOL_FOUND_END:
            skip_to(spool, segment->last_sequence + 1);
            read->segment_index = SPOOL_NO_SEGMENT;
            break;
        }
    }
    return SPOOL_NEXT_NONE;
}

/* Where the stage has the message of read_sequence. */
static size_t staged_at(const struct spool *spool)
{
    const struct spool_stage *stage = &spool->stage;
    bool is_first = spool->read_sequence == stage->first_sequence;
    return is_first ? stage->start : spool_stage_after(stage, spool->read_stage_at);
}

enum spool_next spool_peek(struct spool *spool, uint64_t *sequence, struct span *payload)
{
    if (spool->read_payload.data == NULL && walk(spool) == SPOOL_NEXT_LATER) {
        return SPOOL_NEXT_LATER;
    }
    if (spool->read_payload.data == NULL && spool->read_sequence == spool->stage.next_sequence) {
        return SPOOL_NEXT_NONE;
    }
    bool is_staged = spool->read_payload.data == NULL;
    *sequence = spool->read_sequence;
    *payload = is_staged ? spool_record_payload(spool->stage.bytes + staged_at(spool)) : spool->read_payload;
    return SPOOL_NEXT_MESSAGE;
}

void spool_pass(struct spool *spool)
{
    CHECK(spool->read_sequence < spool->stage.next_sequence);
    if (spool->read_payload.data == NULL) {
        spool->read_stage_at = staged_at(spool);
    }
    spool->read_payload = span_of(NULL, 0);
    spool->read_sequence++;
}

void spool_pass_lost(struct spool *spool, const char *cause)
{
    uint64_t sequence = spool->read_sequence;
    spool_pass(spool);
    spool_note_lost(spool, sequence, sequence, cause);
}

void spool_pass_all(struct spool *spool)
{
    spool->read_payload = span_of(NULL, 0);
    spool->read_sequence = spool->stage.next_sequence;
    spool->read_stage_at = spool->stage.last;
    spool->read.segment_index = SPOOL_NO_SEGMENT;
}
