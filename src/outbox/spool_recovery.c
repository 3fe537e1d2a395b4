/* SPDX-License-Identifier: MIT */
/* Method: first all headers are read, which gives the order of the segments; then the segments, the newest first, so
 * that the release marks in it tell which older ones need no reading. Those whose header is damaged come last, because
 * nobody knows their number: one may be what a failed write left, and then its messages, or some of them, were written
 * again elsewhere. Of such a segment counts what no other one has. Up to there nothing is changed, and the start can be
 * refused: it is when the disk does not give what it has, because to go on would be to write over it, or to give its
 * sequences to others. Then missing files are made, and writing goes on behind what was found. */
#include "arena.h"
#include "check.h"
#include "log.h"
#include "number.h"
#include "spool_inside.h"
#include "text.h"

enum { NAME_DIGITS = 5, SEGMENTS_LEAST = 2 };

struct recovery {
    struct spool *spool;
    struct text *error;
    uint64_t message_count;
    uint64_t foreign_count;
    char foreign_name[64];
    uint32_t newest_index;
    uint32_t knowing_index; /* says what is released, and is counted in if one of these does; or SPOOL_NO_SEGMENT */
};

/* ---- the folder ---- */

static bool read_name(const char *name, uint32_t *index)
{
    *index = 0;
    for (size_t i = 0; i < NAME_DIGITS; i++) {
        if (name[i] < '0' || name[i] > '9') {
            return false;
        }
        *index = *index * 10 + (uint32_t)(name[i] - '0');
    }
    return strcmp(name + NAME_DIGITS, ".segment") == 0 && *index < SPOOL_SEGMENTS_MAX;
}

static void on_name(void *argument, const char *name)
{
    struct recovery *recovery = argument;
    uint32_t index;
    if (read_name(name, &index)) {
        recovery->spool->segments[index].is_there = true;
    } else if (strcmp(name, "lock") != 0 && recovery->foreign_count++ == 0) {
        (void)snprintf(recovery->foreign_name, sizeof recovery->foreign_name, "%s", name);
    }
}

static bool refuse(struct recovery *recovery, const char *what)
{
    const struct port *port = recovery->spool->port;
    text_string(recovery->error, what);
    text_string(recovery->error, ": ");
    text_string(recovery->error, port->error_text(port->context));
    return false;
}

static bool enter_folder(struct recovery *recovery)
{
    struct spool *spool = recovery->spool;
    struct port *port = spool->port;
    char path[SPOOL_PATH_BYTES];
    if (port->make_directory(port->context, spool->options.directory) != PORT_OK) {
        return refuse(recovery, "the folder cannot be made");
    }
    (void)snprintf(path, sizeof path, "%s/lock", spool->options.directory);
    switch (port->lock_file(port->context, path, &spool->lock)) {
    case PORT_OK:
        break;
    case PORT_AGAIN:
        spool->lock = PORT_NONE;
        text_string(recovery->error, "another gateway is using this folder");
        return false;
    case PORT_CLOSED:
    case PORT_FAILED:
        spool->lock = PORT_NONE;
        return refuse(recovery, "the folder cannot be locked");
    }
    if (port->list_directory(port->context, spool->options.directory, on_name, recovery) != PORT_OK) {
        return refuse(recovery, "the folder cannot be read");
    }
    if (recovery->foreign_count > 0) {
        log_event(spool->log, LOG_WARN, "spool_foreign_file", LOG_TEXT("name", recovery->foreign_name),
                  LOG_U64("files", recovery->foreign_count));
    }
    return true;
}

/* ---- reading a segment ---- */

static bool refuse_segment(struct recovery *recovery, uint32_t index, const char *what)
{
    const struct port *port = recovery->spool->port;
    char path[SPOOL_PATH_BYTES];
    spool_segment_path(recovery->spool, index, path);
    text_string(recovery->error, path);
    text_string(recovery->error, what);
    text_string(recovery->error, port->error_text(port->context));
    text_string(recovery->error, "; see to the file's rights and the disk and start again, or move the file away: what "
                                 "it holds is lost then");
    return false;
}

static bool open_segment(struct recovery *recovery, uint32_t index, struct spool_file *opened)
{
    const struct port *port = recovery->spool->port;
    char path[SPOOL_PATH_BYTES];
    spool_segment_path(recovery->spool, index, path);
    return port->open_file(port->context, path, false, &opened->file, &opened->bytes) == PORT_OK ||
           refuse_segment(recovery, index, " cannot be opened: ");
}

/* Reads into the reader's buffer. */
static bool read_part(struct recovery *recovery, uint32_t index, const struct spool_file *opened, uint32_t offset,
                      size_t bytes)
{
    const struct spool *spool = recovery->spool;
    size_t unreadable_bytes;
    spool_read_piece(spool->port, opened, offset, spool->read.buffer, bytes, &unreadable_bytes);
    return unreadable_bytes == 0 || refuse_segment(recovery, index, " cannot be read: ");
}

static void learn_released(struct recovery *recovery, uint32_t index, uint64_t released)
{
    struct spool *spool = recovery->spool;
    if (released > spool->released_sequence ||
        (released == spool->released_sequence && released > 0 && index < spool->segment_count)) {
        spool->released_sequence = released;
        recovery->knowing_index = index;
    }
}

struct walk {
    uint64_t first_sequence; /* of the messages that count; 0: none */
    uint64_t last_sequence;
    uint64_t message_count; /* not released */
    uint64_t place_count;   /* that are damaged */
    uint64_t missing_count;
    uint64_t too_long_sequence; /* of the last message that memory is not made for; 0: none */
    uint64_t too_long_bytes;
    bool is_rest; /* of a segment with a damaged header */
    struct spool_scan scan;
};

static bool is_elsewhere(const struct spool *spool, uint64_t sequence)
{
    for (uint32_t index = 0; index < spool->segment_end; index++) {
        const struct spool_segment *segment = &spool->segments[index];
        if (segment->state == SPOOL_SEGMENT_KEPT && !segment->is_header_damaged &&
            segment->first_sequence <= sequence && sequence <= segment->last_sequence) {
            return true;
        }
    }
    return false;
}

/* Of a segment with a damaged header: what others have is passed over, and ends it behind what they have not. */
static bool pass_over(const struct spool *spool, struct walk *walk, uint64_t sequence)
{
    if (!walk->is_rest || !is_elsewhere(spool, sequence)) {
        return false;
    }
    if (walk->first_sequence == 0) {
        walk->last_sequence = sequence;
    } else {
        walk->scan.sequence_end = sequence;
    }
    return true;
}

static void note_message(struct recovery *recovery, struct walk *walk, const struct spool_record *record)
{
    struct spool *spool = recovery->spool;
    uint64_t expected = walk->last_sequence + 1;
    if (walk->first_sequence == 0) {
        walk->first_sequence = record->sequence;
    }
    walk->last_sequence = record->sequence;
    if (record->sequence > spool->released_sequence) {
        uint64_t missing_from = expected > spool->released_sequence ? expected : spool->released_sequence + 1;
        walk->missing_count += record->sequence - missing_from;
        walk->place_count += record->is_behind_hole;
        walk->message_count++;
        spool->handler->on_found(spool->context, record->payload);
    }
}

/* False: refused. */
static bool walk_segment(struct recovery *recovery, uint32_t index, const struct spool_file *opened,
                         const struct spool_header *header, uint64_t sequence_end, bool is_rest, struct walk *walk)
{
    struct spool *spool = recovery->spool;
    uint32_t segment_bytes = spool->options.segment_bytes;
    uint32_t offset = SPOOL_SEGMENT_HEADER_BYTES;
    size_t bytes = 0;
    *walk = (struct walk){.last_sequence = header->first_sequence - 1, .is_rest = is_rest};
    spool_scan_begin(&walk->scan, segment_bytes, (uint32_t)spool->options.payload_bytes_max, header, sequence_end);
    for (;;) {
        struct spool_record record;
        switch (spool_scan_next(&walk->scan, offset, span_of(spool->read.buffer, bytes), &record)) {
        case SPOOL_FOUND_MESSAGE:
            if (!pass_over(spool, walk, record.sequence)) {
                note_message(recovery, walk, &record);
            }
            break;
        case SPOOL_FOUND_MARK:
            learn_released(recovery, index, record.sequence);
            if (record.sequence >= walk->last_sequence) {
                walk->place_count = 0; /* what was damaged was done with */
                walk->missing_count = 0;
                walk->message_count = 0;
            } else {
                walk->message_count = number_smaller(walk->message_count, walk->last_sequence - record.sequence);
            }
            break;
        case SPOOL_FOUND_TOO_LONG:
            if (!pass_over(spool, walk, record.sequence)) {
                walk->too_long_sequence = record.sequence;
                walk->too_long_bytes = record.payload_bytes;
            }
            break;
        case SPOOL_FOUND_MORE: {
            size_t left_bytes = segment_bytes - walk->scan.offset;
            offset = walk->scan.offset;
            bytes = left_bytes < spool->read.buffer_bytes_max ? left_bytes : spool->read.buffer_bytes_max;
            if (!read_part(recovery, index, opened, offset, bytes)) {
                return false;
            }
            break;
        }
        case SPOOL_FOUND_END:
            return true;
        }
    }
}

/* ---- headers ---- */

/* A header that is damaged: the records say which sequences the segment has. */
static bool find_sequences(struct recovery *recovery, uint32_t index, const struct spool_file *opened)
{
    struct spool *spool = recovery->spool;
    struct spool_segment *segment = &spool->segments[index];
    struct walk walk;
    log_event(spool->log, LOG_WARN, "spool_header_damaged", LOG_U64("segment", index));
    const struct spool_header unknown = {.first_sequence = 1, .released = 0};
    if (!walk_segment(recovery, index, opened, &unknown, UINT64_MAX, false, &walk)) {
        return false;
    }
    segment->is_header_damaged = true;
    segment->first_sequence = walk.scan.begin_sequence;
    segment->salt = walk.scan.salt;
    spool_set_state(spool, index, walk.scan.begin_sequence == 0 ? SPOOL_SEGMENT_FREE : SPOOL_SEGMENT_KEPT);
    return true;
}

/* A header of zeros: the segment was never begun if the rest is zeros too. */
static bool look_through(struct recovery *recovery, uint32_t index, const struct spool_file *opened, bool *is_zero)
{
    const struct spool *spool = recovery->spool;
    uint32_t segment_bytes = spool->options.segment_bytes;
    *is_zero = true;
    for (uint32_t offset = 0; *is_zero && offset < segment_bytes;) {
        size_t bytes = (size_t)number_smaller(segment_bytes - offset, spool->read.buffer_bytes_max);
        if (!read_part(recovery, index, opened, offset, bytes)) {
            return false;
        }
        *is_zero = spool_is_zero(spool->read.buffer, bytes);
        offset += (uint32_t)bytes;
    }
    return true;
}

static bool judge_header(struct recovery *recovery, uint32_t index, const struct spool_file *opened)
{
    struct spool *spool = recovery->spool;
    struct spool_segment *segment = &spool->segments[index];
    struct spool_header header;
    bool is_zero;
    if (!read_part(recovery, index, opened, 0, SPOOL_SEGMENT_HEADER_BYTES)) {
        return false;
    }
    switch (spool_header_read(spool->read.buffer, spool->options.segment_bytes, &header)) {
    case SPOOL_HEADER_VALID:
        segment->number = header.number;
        segment->first_sequence = header.first_sequence;
        segment->salt = header.salt;
        spool_set_state(spool, index, SPOOL_SEGMENT_KEPT);
        learn_released(recovery, index, header.released);
        return true;
    case SPOOL_HEADER_OTHER_VERSION:
        text_string(recovery->error, "its files are of version ");
        text_u64(recovery->error, header.version);
        text_string(recovery->error, " with segments of ");
        text_u64(recovery->error, header.segment_bytes);
        text_string(recovery->error, " bytes, which this program does not read; let the program that wrote them send "
                                     "what they hold, or name another folder");
        return false;
    case SPOOL_HEADER_UNUSED:
        if (!look_through(recovery, index, opened, &is_zero)) {
            return false;
        }
        if (is_zero) {
            spool_set_state(spool, index, SPOOL_SEGMENT_FREE);
            return true;
        }
        break;
    case SPOOL_HEADER_DAMAGED:
        break;
    }
    return find_sequences(recovery, index, opened);
}

static bool read_headers(struct recovery *recovery)
{
    struct spool *spool = recovery->spool;
    for (uint32_t index = 0; index < SPOOL_SEGMENTS_MAX; index++) {
        struct spool_file opened;
        if (!spool->segments[index].is_there) {
            continue;
        }
        if (!open_segment(recovery, index, &opened)) {
            return false;
        }
        if (opened.bytes < spool->options.segment_bytes) {
            log_event(spool->log, LOG_WARN, "spool_short_segment", LOG_U64("segment", index),
                      LOG_U64("bytes", opened.bytes));
        }
        bool is_good = judge_header(recovery, index, &opened);
        spool->port->close_file(spool->port->context, opened.file);
        if (!is_good) {
            return false;
        }
    }
    return true;
}

/* ---- the messages ---- */

static bool is_before(const struct spool *spool, uint32_t a, uint32_t b)
{
    const struct spool_segment *left = &spool->segments[a];
    const struct spool_segment *right = &spool->segments[b];
    if (left->first_sequence != right->first_sequence) {
        return left->first_sequence < right->first_sequence;
    }
    return left->number != right->number ? left->number < right->number : a < b;
}

/* Of the kept segments with a good header, or with a damaged one, the last one that stands before `before`; of those
 * with the same first sequence the one with the higher number is later. */
static uint32_t find_before(const struct spool *spool, uint32_t before, bool is_header_damaged)
{
    uint32_t found = SPOOL_NO_SEGMENT;
    for (uint32_t index = 0; index < spool->segment_end; index++) {
        const struct spool_segment *segment = &spool->segments[index];
        if (segment->state == SPOOL_SEGMENT_KEPT && segment->is_header_damaged == is_header_damaged &&
            index != before && (before == SPOOL_NO_SEGMENT || is_before(spool, index, before)) &&
            (found == SPOOL_NO_SEGMENT || is_before(spool, found, index))) {
            found = index;
        }
    }
    return found;
}

static void tell_findings(const struct recovery *recovery, uint32_t index, const struct walk *walk)
{
    struct spool *spool = recovery->spool;
    if (walk->place_count > 0) {
        log_event(spool->log, LOG_WARN, "spool_damaged", LOG_U64("segment", index),
                  LOG_U64("places", walk->place_count), LOG_U64("messages", walk->missing_count));
    }
    if (index == recovery->newest_index && !walk->scan.is_tail_clean) {
        log_event(spool->log, LOG_WARN, "spool_tail_cut", LOG_U64("segment", index),
                  LOG_U64("offset", walk->scan.tail_offset),
                  LOG_TEXT("cause", "what was being written when the gateway ended; it was never accepted, unless the "
                                    "disk is at fault"));
    }
}

static bool read_segment(struct recovery *recovery, uint32_t index, uint64_t sequence_end)
{
    struct spool *spool = recovery->spool;
    struct spool_segment *segment = &spool->segments[index];
    struct spool_file opened;
    struct walk walk;
    segment->last_sequence = segment->first_sequence - 1;
    segment->end_offset = SPOOL_SEGMENT_HEADER_BYTES;
    if (!open_segment(recovery, index, &opened)) {
        return false;
    }
    struct spool_header header = {.first_sequence = segment->first_sequence, .salt = segment->salt};
    bool is_read = true;
    if (!segment->is_header_damaged) {
        is_read = read_part(recovery, index, &opened, 0, SPOOL_SEGMENT_HEADER_BYTES);
        (void)spool_header_read(spool->read.buffer, spool->options.segment_bytes, &header);
    }
    is_read =
        is_read && walk_segment(recovery, index, &opened, &header, sequence_end, segment->is_header_damaged, &walk);
    spool->port->close_file(spool->port->context, opened.file);
    if (!is_read) {
        return false;
    }
    if (walk.too_long_sequence > spool->released_sequence) {
        text_string(recovery->error, "a message of ");
        text_u64(recovery->error, walk.too_long_bytes);
        text_string(recovery->error, " bytes stands in it, which is more than MAX_MESSAGE_BYTES allows for");
        return false;
    }
    if (walk.first_sequence != 0) {
        segment->last_sequence = walk.last_sequence;
    }
    segment->end_offset = walk.scan.tail_offset;
    recovery->message_count += walk.message_count;
    tell_findings(recovery, index, &walk);
    return true;
}

/* Of a segment with a damaged header: what stands behind the beginning of a later one is from an earlier use. */
static uint64_t find_end(const struct spool *spool, uint32_t index)
{
    uint64_t end = UINT64_MAX;
    for (uint32_t other = 0; other < spool->segment_end; other++) {
        const struct spool_segment *segment = &spool->segments[other];
        if (segment->state == SPOOL_SEGMENT_KEPT && segment->first_sequence > spool->segments[index].first_sequence) {
            end = number_smaller(end, segment->first_sequence);
        }
    }
    return end;
}

/* Those with a good header, or those with a damaged one. `last_sequence` becomes the last that was found. */
static bool read_some(struct recovery *recovery, bool is_header_damaged, uint64_t *last_sequence)
{
    struct spool *spool = recovery->spool;
    uint64_t sequence_end = UINT64_MAX;
    for (uint32_t index = find_before(spool, SPOOL_NO_SEGMENT, is_header_damaged); index != SPOOL_NO_SEGMENT;
         index = find_before(spool, index, is_header_damaged)) {
        struct spool_segment *segment = &spool->segments[index];
        sequence_end = is_header_damaged ? find_end(spool, index) : sequence_end;
        if (sequence_end > spool->released_sequence + 1) {
            if (!read_segment(recovery, index, sequence_end)) {
                return false;
            }
        } else {
            segment->last_sequence = segment->first_sequence - 1; /* all released: not read */
        }
        *last_sequence = number_larger(*last_sequence, segment->last_sequence);
        sequence_end = segment->first_sequence;
        if (segment->number >= spool->next_number) {
            spool->next_number = segment->number + 1;
        }
    }
    return true;
}

static bool read_segments(struct recovery *recovery)
{
    struct spool *spool = recovery->spool;
    uint64_t last_sequence = spool->released_sequence;
    recovery->newest_index = find_before(spool, SPOOL_NO_SEGMENT, false);
    if (!read_some(recovery, false, &last_sequence) || !read_some(recovery, true, &last_sequence)) {
        return false;
    }
    spool->own_sequence = number_larger(last_sequence, spool->released_sequence) + 1;
    return true;
}

/* ---- going on ---- */

static bool make_segment(struct spool *spool, uint32_t index)
{
    struct port *port = spool->port;
    char path[SPOOL_PATH_BYTES];
    struct spool_file opened;
    spool_segment_path(spool, index, path);
    if (port->open_file(port->context, path, true, &opened.file, &opened.bytes) != PORT_OK) {
        return false;
    }
    bool is_made = port->preallocate(port->context, opened.file, spool->options.segment_bytes) == PORT_OK;
    port->close_file(port->context, opened.file);
    return is_made;
}

/* Makes those that are missing, and sees to it that all have their space. */
static bool make_segments(struct recovery *recovery)
{
    struct spool *spool = recovery->spool;
    struct port *port = spool->port;
    char reason[SPOOL_ERROR_BYTES] = "";
    uint32_t made_count = 0;
    for (uint32_t index = 0; index < spool->segment_count; index++) {
        struct spool_segment *segment = &spool->segments[index];
        if (!segment->is_there && index < spool->segment_end) {
            log_event(spool->log, LOG_WARN, "spool_segment_missing", LOG_U64("segment", index));
        }
        if (make_segment(spool, index)) {
            made_count++;
            if (segment->state == SPOOL_SEGMENT_ABSENT) {
                spool_set_state(spool, index, SPOOL_SEGMENT_FREE);
            }
            continue;
        }
        (void)snprintf(reason, sizeof reason, "%s", port->error_text(port->context));
        if (segment->state == SPOOL_SEGMENT_FREE) {
            spool_set_state(spool, index, SPOOL_SEGMENT_ABSENT);
        }
        if (!segment->is_there) {
            char path[SPOOL_PATH_BYTES];
            spool_segment_path(spool, index, path);
            (void)port->remove_file(port->context, path); /* it may not even be there */
        }
    }
    if (made_count < spool->segment_count) {
        log_event(spool->log, LOG_ERROR, "spool_short", LOG_U64("segments", made_count),
                  LOG_U64("wanted", spool->segment_count), LOG_TEXT("reason", reason),
                  LOG_TEXT("remedy", "see to the disk and start again; until then the spool holds less"));
    }
    if (made_count >= SEGMENTS_LEAST) {
        return true;
    }
    text_string(recovery->error, "no segments can be made: ");
    text_string(recovery->error, reason);
    return false;
}

/* What the setting does not count in is read until it is empty, and goes at the start after that; but what was released
 * must go on standing somewhere, or it would come back. */
static void remove_surplus(const struct recovery *recovery)
{
    struct spool *spool = recovery->spool;
    uint64_t surplus_count = 0;
    for (uint32_t index = spool->segment_count; index < spool->segment_end; index++) {
        if (spool->segments[index].state == SPOOL_SEGMENT_FREE && index != recovery->knowing_index) {
            char path[SPOOL_PATH_BYTES];
            spool_segment_path(spool, index, path);
            (void)spool->port->remove_file(spool->port->context, path);
            spool_set_state(spool, index, SPOOL_SEGMENT_ABSENT);
        }
        surplus_count += spool->segments[index].state != SPOOL_SEGMENT_ABSENT;
    }
    if (surplus_count > 0) {
        log_event(spool->log, LOG_INFO, "spool_surplus", LOG_U64("segments", surplus_count));
    }
}

/* Segments without a message that is not released become free; the newest is written on, where it can be. */
static void sort_out(struct recovery *recovery)
{
    struct spool *spool = recovery->spool;
    for (uint32_t index = 0; index < spool->segment_end; index++) {
        struct spool_segment *segment = &spool->segments[index];
        if (segment->state == SPOOL_SEGMENT_KEPT &&
            (segment->last_sequence < segment->first_sequence || segment->last_sequence <= spool->released_sequence)) {
            spool_set_state(spool, index, SPOOL_SEGMENT_FREE);
        }
    }
    uint32_t newest = recovery->newest_index;
    if (newest != SPOOL_NO_SEGMENT) {
        const struct spool_segment *segment = &spool->segments[newest];
        spool->last_index = newest < spool->segment_count ? newest : spool->last_index;
        bool is_last = segment->last_sequence + 1 == spool->own_sequence; /* else one with a damaged header is */
        if (segment->state == SPOOL_SEGMENT_KEPT && newest < spool->segment_count && is_last) {
            spool_set_state(spool, newest, SPOOL_SEGMENT_WRITTEN);
            spool->written_index = newest;
        }
    }
    spool->oldest_index = spool_find_segment(spool, 0);
}

static bool recover(struct recovery *recovery)
{
    struct spool *spool = recovery->spool;
    struct port *port = spool->port;
    char parent[SPOOL_PATH_BYTES];
    if (!enter_folder(recovery) || !read_headers(recovery) || !read_segments(recovery)) {
        return false;
    }
    sort_out(recovery);
    if (!make_segments(recovery)) {
        return false;
    }
    remove_surplus(recovery);
    spool_secure_segments(spool);
    (void)snprintf(parent, sizeof parent, "%s/..", spool->options.directory);
    if (port->sync_directory(port->context, spool->options.directory) != PORT_OK ||
        port->sync_directory(port->context, parent) != PORT_OK) {
        return refuse(recovery, "the folder cannot be synced");
    }
    return true;
}

bool spool_open(struct spool *spool, struct text *error)
{
    struct recovery recovery = {
        .spool = spool, .error = error, .newest_index = SPOOL_NO_SEGMENT, .knowing_index = SPOOL_NO_SEGMENT};
    spool->next_number = 1;
    if (!recover(&recovery)) {
        spool_release_files(spool);
        return false;
    }
    spool->read_sequence = spool->released_sequence + 1;
    spool->marked_sequence = spool->released_sequence;
    spool->written_sequence = spool->own_sequence - 1;
    spool_stage_begin(&spool->stage, spool->own_sequence);
    log_event(spool->log, LOG_INFO, "spool_opened", LOG_TEXT("directory", spool->options.directory),
              LOG_U64("messages", recovery.message_count), LOG_U64("next", spool->own_sequence),
              LOG_U64("released", spool->released_sequence), LOG_U64("segments", spool->segment_count),
              LOG_U64("free", spool->free_count));
    return true;
}
