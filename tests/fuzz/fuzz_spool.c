/* SPDX-License-Identifier: MIT */
/* A folder of segments in any state. The walk through a segment finds what spool_model.c finds, whatever pieces it is
 * brought in. A start reads no message whose checksums are wrong, all that no damage touched, each once and in order,
 * counts what is missing, changes nothing that was there, and another start reads the same; what is then appended is
 * found by the next, behind what was not released. A start that is refused leaves all as it was.
 *
 * Input: the options; how many of the messages are released in the end; the cuts; then how the folder is drawn: steps
 * of one byte and their arguments (enum step), so that checksums are right unless the drawing damages them. */
#include <stdio.h>
#include <string.h>

#include "arena.h"
#include "fuzz.h"
#include "fuzz_port.h"
#include "log.h"
#include "number.h"
#include "parcel.h"
#include "spool.h"
#include "spool_format.h"
#include "spool_model.h"
#include "text.h"

enum {
    OPTION_SHORT_PAYLOADS = 1, /* payloads of at most PAYLOAD_SHORT_BYTES are allowed */
    OPTION_FEW_SEGMENTS = 2,
    OPTION_CLOSES = 4, /* in good order, after the appends */
    OPTION_APPENDS = 8 /* and times 16: how many */
};

enum {
    SEGMENT_BYTES = FUZZ_FILE_BYTES,
    PAYLOAD_BYTES_MAX = 200,
    PAYLOAD_SHORT_BYTES = 40,
    SEGMENTS = 8,
    SEGMENTS_FEW = 4,
    STAGE_BYTES = 2048,
    MESSAGES_MAX = 512,
    APPENDED_BYTES = 100,
    APPENDED_SHORT_BYTES = 21
};

/* ---- drawing ---- */

enum step {
    STEP_BEGIN,   /* the next file, with a header: number, first sequence, released; 0: what would come next */
    STEP_MESSAGE, /* bytes, and what they are */
    STEP_DAMAGED, /* the same with a wrong byte in its payload */
    STEP_MARK,    /* R */
    STEP_JUMP,    /* the next sequence; 255: a large one */
    STEP_RAW,     /* a count, and bytes */
    STEP_SEEK,    /* to an offset, times 8 */
    STEP_FLIP,    /* offset (two bytes), and which bits */
    STEP_CUT,     /* the file, to so many bytes (times 8, and the rest) */
    STEP_REMOVE,
    STEP_COPY, /* over this file: another one */
    STEP_FILE, /* goes on in another one, as it is */
    STEP_SALT, /* of the records that follow */
    STEP_COUNT
};

struct drawing {
    struct span steps;
    size_t index;
    size_t offset;
    uint64_t sequence;
    uint64_t number;
    uint64_t salt; /* as a segment's number, where the drawing says nothing else */
};

static void draw_header(struct drawing *drawing)
{
    uint8_t number = fuzz_byte(&drawing->steps);
    uint8_t first = fuzz_byte(&drawing->steps);
    uint8_t released = fuzz_byte(&drawing->steps);
    drawing->index = (drawing->index + 1) % FUZZ_FILES;
    drawing->number = number == 0 ? drawing->number + 1 : number;
    drawing->sequence = first == 0 ? drawing->sequence : first;
    drawing->salt = drawing->number;
    const struct spool_header header = {.version = SPOOL_VERSION,
                                        .segment_bytes = SEGMENT_BYTES,
                                        .number = drawing->number,
                                        .first_sequence = drawing->sequence,
                                        .released = released,
                                        .salt = drawing->salt};
    struct fuzz_file *file = &fuzz_files[drawing->index];
    *file = (struct fuzz_file){.is_there = true, .bytes = SEGMENT_BYTES};
    spool_header_write(file->data, &header);
    drawing->offset = SPOOL_SEGMENT_HEADER_BYTES;
}

static void draw_message(struct drawing *drawing, bool is_damaged)
{
    uint8_t record[SPOOL_RECORD_BYTES(UINT8_MAX + 1)];
    size_t payload_bytes = 1U + fuzz_byte(&drawing->steps);
    memset(record + SPOOL_RECORD_HEADER_BYTES, fuzz_byte(&drawing->steps), payload_bytes);
    size_t bytes = spool_record_write(record, drawing->sequence++, payload_bytes);
    spool_record_bind(record, drawing->salt);
    record[SPOOL_RECORD_HEADER_BYTES] ^= is_damaged;
    if (SEGMENT_BYTES - drawing->offset >= bytes) {
        memcpy(fuzz_files[drawing->index].data + drawing->offset, record, bytes);
        drawing->offset += bytes;
    }
}

static void draw_raw(struct drawing *drawing, struct span bytes)
{
    if (bytes.bytes > 0 && SEGMENT_BYTES - drawing->offset >= bytes.bytes) {
        memcpy(fuzz_files[drawing->index].data + drawing->offset, bytes.data, bytes.bytes);
        drawing->offset += bytes.bytes;
    }
}

static void draw_mark(struct drawing *drawing)
{
    uint8_t record[SPOOL_RECORD_HEADER_BYTES];
    spool_mark_write(record, drawing->salt, fuzz_byte(&drawing->steps));
    draw_raw(drawing, span_of(record, sizeof record));
}

static void draw_step(struct drawing *drawing)
{
    struct fuzz_file *file = &fuzz_files[drawing->index];
    uint8_t step = fuzz_byte(&drawing->steps);
    switch ((enum step)(step % STEP_COUNT)) {
    case STEP_BEGIN:
        draw_header(drawing);
        break;
    case STEP_MESSAGE:
        draw_message(drawing, false);
        break;
    case STEP_DAMAGED:
        draw_message(drawing, true);
        break;
    case STEP_MARK:
        draw_mark(drawing);
        break;
    case STEP_JUMP: {
        uint8_t sequence = fuzz_byte(&drawing->steps);
        drawing->sequence = sequence == UINT8_MAX ? UINT64_C(1) << 40 : sequence + 1U;
        break;
    }
    case STEP_RAW: {
        uint8_t count = fuzz_byte(&drawing->steps);
        draw_raw(drawing, fuzz_take(&drawing->steps, count));
        break;
    }
    case STEP_SEEK:
        drawing->offset = (size_t)fuzz_byte(&drawing->steps) * 8 % SEGMENT_BYTES;
        break;
    case STEP_FLIP: {
        size_t offset = (size_t)fuzz_byte(&drawing->steps) * 256;
        offset = (offset + fuzz_byte(&drawing->steps)) % SEGMENT_BYTES;
        file->data[offset] ^= fuzz_byte(&drawing->steps);
        break;
    }
    case STEP_CUT: {
        size_t eighths = fuzz_byte(&drawing->steps);
        file->bytes = (eighths * 8 + fuzz_byte(&drawing->steps)) % (SEGMENT_BYTES + 1);
        break;
    }
    case STEP_REMOVE:
        file->is_there = false;
        break;
    case STEP_COPY:
        *file = fuzz_files[fuzz_byte(&drawing->steps) % FUZZ_FILES];
        break;
    case STEP_FILE:
        drawing->index = fuzz_byte(&drawing->steps) % FUZZ_FILES;
        fuzz_files[drawing->index].is_there = true;
        break;
    case STEP_SALT:
        drawing->salt = fuzz_byte(&drawing->steps);
        break;
    case STEP_COUNT:
        break;
    }
}

static void draw(struct span steps)
{
    struct drawing drawing = {.steps = steps, .index = FUZZ_FILES - 1, .sequence = 1};
    memset(fuzz_files, 0, sizeof fuzz_files);
    while (drawing.steps.bytes > 0) {
        draw_step(&drawing);
    }
    for (size_t i = 0; i < FUZZ_FILES; i++) { /* a file has nothing behind its end */
        struct fuzz_file *file = &fuzz_files[i];
        file->bytes = file->is_there ? file->bytes : 0;
        memset(file->data + file->bytes, 0, sizeof file->data - file->bytes);
    }
}

/* ---- a segment's walk ---- */

static void note_found(struct fuzz_trace *trace, enum spool_model_kind kind, uint64_t sequence, size_t offset,
                       struct span payload)
{
    fuzz_note(trace, kind, sequence, payload);
    fuzz_note(trace, 9, offset, span_of(NULL, 0));
}

static void walk(struct fuzz_trace *trace, struct span segment, size_t payload_bytes_max,
                 const struct spool_model_header *header, uint64_t sequence_end, struct fuzz_cuts cuts)
{
    struct spool_scan scan;
    struct spool_record record;
    uint32_t offset = SPOOL_SEGMENT_HEADER_BYTES;
    struct span piece = {NULL, 0};
    enum spool_found found;
    size_t least_bytes = SPOOL_RECORD_BYTES(payload_bytes_max);
    fuzz_trace_begin(trace);
    const struct spool_header given = {
        .first_sequence = header->first_sequence, .released = header->released, .salt = header->salt};
    spool_scan_begin(&scan, SEGMENT_BYTES, (uint32_t)payload_bytes_max, &given, sequence_end);
    while ((found = spool_scan_next(&scan, offset, piece, &record)) != SPOOL_FOUND_END) {
        if (found == SPOOL_FOUND_MORE) {
            size_t left = segment.bytes - scan.offset;
            size_t cut = fuzz_cut(&cuts, left);
            size_t bytes = cut > least_bytes ? cut : least_bytes < left ? least_bytes : left;
            CHECK(piece.bytes == 0 || scan.offset > offset); /* it gets on */
            offset = scan.offset;
            piece = span_of(fuzz_guarded(span_of(segment.data + offset, bytes)), bytes);
            continue;
        }
        note_found(trace,
                   found == SPOOL_FOUND_MESSAGE ? SPOOL_MODEL_MESSAGE
                   : found == SPOOL_FOUND_MARK  ? SPOOL_MODEL_MARK
                                                : SPOOL_MODEL_TOO_LONG,
                   record.sequence, record.offset, found == SPOOL_FOUND_MESSAGE ? record.payload : span_of(NULL, 0));
    }
    fuzz_note(trace, scan.is_tail_clean, scan.tail_offset, span_of(NULL, 0));
}

static void check_walks(size_t payload_bytes_max, struct fuzz_cuts cuts)
{
    static struct spool_model model;
    static struct fuzz_trace expected;
    static struct fuzz_trace got;
    const struct fuzz_cuts ways[] = {fuzz_whole, fuzz_single, cuts};
    for (size_t i = 0; i < FUZZ_FILES; i++) {
        struct span segment = span_of(fuzz_files[i].data, SEGMENT_BYTES);
        const struct spool_model_header unknown = {.first_sequence = 1};
        struct spool_model_header header = unknown;
        if (!fuzz_files[i].is_there) {
            continue;
        }
        bool is_valid = spool_model_header(segment, &header);
        struct spool_header read;
        CHECK((spool_header_read(segment.data, SEGMENT_BYTES, &read) == SPOOL_HEADER_VALID) == is_valid);
        if (!is_valid) {
            header = unknown;
        }
        uint64_t sequence_end = header.first_sequence + cuts.sizes[0];
        spool_model_read(&model, segment, payload_bytes_max, &header, sequence_end);
        fuzz_trace_begin(&expected);
        for (size_t k = 0; k < model.count; k++) {
            const struct spool_model_record *record = &model.records[k];
            note_found(&expected, record->kind, record->sequence, record->offset, record->payload);
        }
        fuzz_note(&expected, model.has_end, model.tail_offset, span_of(NULL, 0));
        for (size_t k = 0; k < sizeof ways / sizeof ways[0]; k++) {
            walk(&got, segment, payload_bytes_max, &header, sequence_end, ways[k]);
            fuzz_expect_same(&expected, &got);
        }
    }
}

/* ---- starts ---- */

struct start {
    struct port port;
    struct log log;
    struct spool *spool;
    size_t found_count;
    size_t appended_bytes; /* of each message that it appends */
    uint64_t synced_sequence;
    size_t synced_count;
    size_t count; /* read */
    uint64_t sequences[MESSAGES_MAX];
    struct span payloads[MESSAGES_MAX];
    size_t kept_bytes;
    uint8_t kept[FUZZ_FILES * FUZZ_FILE_BYTES];
};

static void on_found(void *context, struct span payload)
{
    struct start *start = context;
    struct parcel parcel;
    start->found_count++;
    if (parcel_open(payload, &parcel)) {
        CHECK(parcel.body.data + parcel.body.bytes == payload.data + payload.bytes);
    }
}

static void on_synced(void *context, uint64_t sequence, struct span payload)
{
    struct start *start = context;
    CHECK(payload.bytes == start->appended_bytes &&
          (start->synced_count == 0 || sequence == start->synced_sequence + 1));
    start->synced_sequence = sequence;
    start->synced_count++;
}

static size_t allowed_payload_bytes(uint8_t options)
{
    return (options & OPTION_SHORT_PAYLOADS) != 0 ? PAYLOAD_SHORT_BYTES : PAYLOAD_BYTES_MAX;
}

/* False: refused. */
static bool open_spool(struct start *start, uint8_t options)
{
    static _Alignas(ARENA_ALIGN_BYTES) uint8_t memory[768 * 1024];
    static struct arena arena;
    static const struct spool_handler handler = {.on_found = on_found, .on_synced = on_synced};
    const struct log_options log = {
        .path = "log", .level = LOG_DEBUG, .file_bytes_max = 2 * LOG_LINE_BYTES_MAX, .file_count = 2};
    const struct spool_options spool = {
        .directory = "spool",
        .bytes_max = SEGMENT_BYTES * (uint64_t)((options & OPTION_FEW_SEGMENTS) != 0 ? SEGMENTS_FEW : SEGMENTS),
        .segment_bytes = SEGMENT_BYTES,
        .payload_bytes_max = allowed_payload_bytes(options),
        .stage_bytes = STAGE_BYTES};
    char error_memory[256];
    struct text error = text_in(error_memory, sizeof error_memory);
    memset(memory, 0, arena.used_bytes); /* of the start before */
    arena_begin(&arena, memory, sizeof memory);
    start->port = fuzz_port();
    start->found_count = 0;
    start->appended_bytes = (options & OPTION_SHORT_PAYLOADS) != 0 ? APPENDED_SHORT_BYTES : APPENDED_BYTES;
    start->synced_count = 0;
    start->count = 0;
    start->kept_bytes = 0;
    log_open(&start->log, &start->port, &arena, &log);
    start->spool = spool_init(&arena, &start->port, &start->log, &spool, &handler, start);
    bool is_open = spool_open(start->spool, &error);
    CHECK(is_open == (error.used_bytes == 0) && !error.truncated);
    return is_open;
}

static void close_spool(struct start *start)
{
    spool_release_files(start->spool);
    log_close(&start->log);
    CHECK(fuzz_port_counts.open_count == 0);
}

static bool turn(struct start *start)
{
    bool is_busy = false;
    struct port_job *job;
    (void)spool_turn(start->spool, 1000);
    while ((job = start->port.finished_job(start->port.context)) != NULL) {
        CHECK(spool_on_job(start->spool, job, 1000));
        is_busy = true;
    }
    return is_busy;
}

static void keep(struct start *start, uint64_t sequence, struct span payload)
{
    CHECK(payload.bytes <= sizeof start->kept - start->kept_bytes);
    uint8_t *at = start->kept + start->kept_bytes;
    memcpy(at, payload.data, payload.bytes);
    start->kept_bytes += payload.bytes;
    start->sequences[start->count] = sequence;
    start->payloads[start->count++] = span_of(at, payload.bytes);
}

static void read_all(struct start *start, struct fuzz_trace *trace)
{
    uint64_t unread_count = spool_unread_count(start->spool);
    uint64_t last_sequence = 0;
    uint64_t sequence;
    struct span payload;
    fuzz_trace_begin(trace);
    for (;;) {
        enum spool_next next = spool_peek(start->spool, &sequence, &payload);
        if (next == SPOOL_NEXT_NONE) {
            break;
        }
        if (next == SPOOL_NEXT_LATER) {
            CHECK(turn(start));
            continue;
        }
        CHECK(sequence > last_sequence && start->count < MESSAGES_MAX);
        last_sequence = sequence;
        keep(start, sequence, payload);
        fuzz_note(trace, 0, sequence, payload);
        spool_pass(start->spool);
    }
    log_flush(&start->log);
    CHECK(start->count + spool_counters(start->spool)->lost_count == unread_count);
    CHECK(spool_unread_count(start->spool) == 0);
}

/* ---- what a start must read ---- */

/* By the sequence, of those read; the count when it is not among them. */
static size_t find(const struct start *start, uint64_t sequence)
{
    size_t at = 0;
    while (at < start->count && start->sequences[at] != sequence) {
        at++;
    }
    return at;
}

static void check_read(const struct fuzz_file *files, const struct start *start)
{
    for (size_t k = 0; k < start->count; k++) {
        bool is_there = false;
        for (size_t i = 0; i < FUZZ_FILES && !is_there; i++) {
            is_there = files[i].is_there && spool_model_holds(span_of(files[i].data, SEGMENT_BYTES),
                                                              start->sequences[k], start->payloads[k]);
        }
        CHECK(is_there);
    }
}

struct segments {
    size_t count;
    struct spool_model_header headers[FUZZ_FILES]; /* in the order of their numbers */
    struct span bytes[FUZZ_FILES];
};

/* False: the headers do not say in which order the segments stand, because one is damaged or two contradict. */
static bool sort_segments(struct segments *segments, const struct fuzz_file *files)
{
    segments->count = 0;
    for (size_t i = 0; i < FUZZ_FILES; i++) {
        struct spool_model_header header;
        struct span bytes = span_of(files[i].data, SEGMENT_BYTES);
        if (!files[i].is_there || spool_is_zero(files[i].data, SEGMENT_BYTES)) {
            continue;
        }
        if (!spool_model_header(bytes, &header)) {
            return false;
        }
        size_t at = segments->count++;
        for (; at > 0 && segments->headers[at - 1].number > header.number; at--) {
            segments->headers[at] = segments->headers[at - 1];
            segments->bytes[at] = segments->bytes[at - 1];
        }
        segments->headers[at] = header;
        segments->bytes[at] = bytes;
    }
    for (size_t i = 1; i < segments->count; i++) {
        if (segments->headers[i - 1].number == segments->headers[i].number ||
            segments->headers[i - 1].first_sequence >= segments->headers[i].first_sequence) {
            return false;
        }
    }
    return true;
}

/* Reads all of them; what any header or mark releases. */
static uint64_t read_models(const struct segments *segments, size_t payload_bytes_max,
                            struct spool_model models[FUZZ_FILES])
{
    uint64_t released = 0;
    for (size_t i = 0; i < segments->count; i++) {
        uint64_t end = i + 1 < segments->count ? segments->headers[i + 1].first_sequence : UINT64_MAX;
        spool_model_read(&models[i], segments->bytes[i], payload_bytes_max, &segments->headers[i], end);
        released = number_larger(released, segments->headers[i].released);
        for (size_t k = 0; k < models[i].count; k++) {
            bool is_mark = models[i].records[k].kind == SPOOL_MODEL_MARK;
            released = number_larger(released, is_mark ? models[i].records[k].sequence : 0);
        }
    }
    return released;
}

static void check_was_read(const struct start *start, const struct spool_model_record *record, uint64_t released)
{
    if (record->kind == SPOOL_MODEL_MESSAGE && record->sequence > released) {
        size_t at = find(start, record->sequence);
        CHECK(at < start->count && span_equal(start->payloads[at], record->payload));
    }
}

/* Each record that is valid, and not released by any header or mark, was read; that one, and no other with its
 * sequence. */
static void check_complete(const struct fuzz_file *files, size_t payload_bytes_max, const struct start *start)
{
    static struct spool_model models[FUZZ_FILES];
    struct segments segments;
    if (!sort_segments(&segments, files)) {
        return;
    }
    uint64_t released = read_models(&segments, payload_bytes_max, models);
    for (size_t i = 0; i < segments.count; i++) {
        for (size_t k = 0; k < models[i].count; k++) {
            check_was_read(start, &models[i].records[k], released);
        }
    }
}

static bool has_sequence(const struct spool_model *model, const struct spool_model_header *header, uint64_t sequence)
{
    uint64_t last = 0;
    for (size_t k = 0; k < model->count; k++) {
        last = model->records[k].kind == SPOOL_MODEL_MESSAGE ? model->records[k].sequence : last;
    }
    return sequence >= header->first_sequence && sequence <= last;
}

/* One segment has lost its header, and the others say in which order they stand. What it has and no other one, in one
 * stretch of sequences before the next segment's first, was read. */
static void check_headless(const struct fuzz_file *files, size_t payload_bytes_max, const struct start *start)
{
    static struct fuzz_file others[FUZZ_FILES];
    static struct spool_model models[FUZZ_FILES];
    static struct spool_model headless;
    const struct spool_model_header unknown = {.first_sequence = 1};
    struct spool_model_header header;
    struct segments segments;
    size_t headless_count = 0;
    memcpy(others, files, sizeof others);
    for (size_t i = 0; i < FUZZ_FILES; i++) {
        struct span bytes = span_of(files[i].data, SEGMENT_BYTES);
        if (files[i].is_there && !spool_is_zero(files[i].data, SEGMENT_BYTES) && !spool_model_header(bytes, &header)) {
            headless_count++;
            others[i].is_there = false;
            spool_model_read(&headless, bytes, payload_bytes_max, &unknown, UINT64_MAX);
        }
    }
    if (headless_count != 1 || !sort_segments(&segments, others)) {
        return;
    }
    uint64_t released = read_models(&segments, payload_bytes_max, models);
    uint64_t end = UINT64_MAX;
    for (size_t k = 0; k < headless.count; k++) {
        bool is_mark = headless.records[k].kind == SPOOL_MODEL_MARK;
        released = number_larger(released, is_mark ? headless.records[k].sequence : 0);
    }
    for (size_t i = segments.count; i > 0 && segments.headers[i - 1].first_sequence > headless.begin_sequence; i--) {
        end = segments.headers[i - 1].first_sequence;
    }
    bool is_begun = false;
    for (size_t k = 0; k < headless.count; k++) {
        const struct spool_model_record *record = &headless.records[k];
        bool is_elsewhere = false;
        for (size_t i = 0; i < segments.count; i++) {
            is_elsewhere = is_elsewhere || has_sequence(&models[i], &segments.headers[i], record->sequence);
        }
        if (record->kind != SPOOL_MODEL_MESSAGE || (is_elsewhere && !is_begun)) {
            continue;
        }
        if (is_elsewhere || record->sequence >= end) {
            break;
        }
        is_begun = true;
        check_was_read(start, record, released);
    }
}

static bool is_same_folder(const struct fuzz_file *before)
{
    bool is_same = true;
    for (size_t i = 0; i < FUZZ_FILES; i++) {
        is_same = is_same && before[i].is_there == fuzz_files[i].is_there && before[i].bytes == fuzz_files[i].bytes &&
                  memcmp(before[i].data, fuzz_files[i].data, SEGMENT_BYTES) == 0;
    }
    return is_same;
}

/* What stood in the files still stands there; what was missing of them is zeros. True when an empty file that the
 * setting does not count in was removed; its header may have hidden what another one has (condition 9). */
static bool check_unchanged(const struct fuzz_file *before)
{
    bool is_removed = false;
    for (size_t i = 0; i < FUZZ_FILES; i++) {
        is_removed = is_removed || (before[i].is_there && !fuzz_files[i].is_there);
        CHECK(!before[i].is_there || !fuzz_files[i].is_there ||
              memcmp(before[i].data, fuzz_files[i].data, SEGMENT_BYTES) == 0);
    }
    return is_removed;
}

/* ---- going on ---- */

static void append(struct start *start, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!spool_has_room(start->spool, SPOOL_RECORD_BYTES(start->appended_bytes))) {
            return;
        }
        uint8_t *payload = spool_reserve(start->spool, start->appended_bytes);
        CHECK(payload != NULL);
        memset(payload, (int)('a' + i), start->appended_bytes);
        uint64_t sequence = spool_append(start->spool, start->appended_bytes);
        while (turn(start)) {
        }
        CHECK(start->synced_count == i + 1 && start->synced_sequence == sequence); /* there was room */
    }
}

/* Numbers and first sequences of the headers that are whole rise together. */
static bool are_headers_plausible(const struct fuzz_file *files)
{
    struct spool_model_header headers[FUZZ_FILES];
    size_t count = 0;
    for (size_t i = 0; i < FUZZ_FILES; i++) {
        count += spool_model_header(span_of(files[i].data, SEGMENT_BYTES), &headers[count]);
    }
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < count; k++) {
            const struct spool_model_header *one = &headers[i];
            const struct spool_model_header *other = &headers[k];
            if ((one->number < other->number && one->first_sequence > other->first_sequence) ||
                (one->number == other->number && one->first_sequence != other->first_sequence)) {
                return false;
            }
        }
    }
    return true;
}

/* No two headers contradict, and no file holds a record that the start did not find though it is not released. Such a
 * record, hidden by another segment, could come back when that is used again. */
static bool is_plausible(const struct fuzz_file *files, struct start *start)
{
    uint64_t released = spool_own_sequence(start->spool) - 1 - spool_counters(start->spool)->message_count;
    for (size_t i = 0; i < FUZZ_FILES; i++) {
        struct span segment = span_of(files[i].data, SEGMENT_BYTES);
        struct spool_model_header header = {.salt = 0};
        struct spool_model_record record;
        bool is_whole = spool_model_header(segment, &header);
        for (size_t at = 0; spool_model_next(segment, &at, &record);) {
            bool is_of_segment = !is_whole || record.salt == header.salt;
            if (is_of_segment && record.sequence > released &&
                (record.kind == SPOOL_MODEL_MARK || find(start, record.sequence) == start->count)) {
                return false;
            }
        }
    }
    return are_headers_plausible(files);
}

/* What was written is as the format has it: the headers do not contradict, and the end stands behind the last record.
 */
static void check_written(const struct start *start)
{
    static struct spool_model model;
    CHECK(are_headers_plausible(fuzz_files));
    for (size_t i = 0; i < FUZZ_FILES; i++) {
        struct spool_model_header header;
        struct span segment = span_of(fuzz_files[i].data, SEGMENT_BYTES);
        if (!spool_model_header(segment, &header)) {
            continue;
        }
        spool_model_read(&model, segment, PAYLOAD_BYTES_MAX, &header, UINT64_MAX);
        for (size_t k = 0; k < model.count; k++) {
            bool is_last = model.records[k].kind == SPOOL_MODEL_MESSAGE && start->synced_count > 0 &&
                           model.records[k].sequence == start->synced_sequence;
            CHECK(!is_last || model.has_end);
        }
    }
}

/* `again` reads what `start` read beyond `released`, then what it appended; of the rest only what `start` read too. */
static void check_follows(const struct start *start, size_t released_count, bool is_marked, const struct start *again)
{
    size_t at = 0;
    uint64_t released = released_count == 0 ? 0 : start->sequences[released_count - 1];
    while (at < again->count && again->sequences[at] <= released) {
        CHECK(!is_marked && find(start, again->sequences[at]) < released_count);
        at++;
    }
    CHECK(again->count - at == start->count - released_count + start->synced_count);
    for (size_t i = released_count; i < start->count; i++) {
        CHECK(again->sequences[at++] == start->sequences[i]);
    }
    for (size_t i = 0; i < start->synced_count; i++) {
        CHECK(again->sequences[at++] == start->synced_sequence - (start->synced_count - 1 - i));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct start start;
    static struct start again;
    static struct fuzz_trace trace;
    static struct fuzz_trace trace_again;
    static struct fuzz_file before[FUZZ_FILES];
    struct span input = fuzz_input(data, bytes);
    uint8_t options = fuzz_byte(&input);
    uint8_t release = fuzz_byte(&input);
    struct fuzz_cuts cuts = fuzz_take_cuts(&input);
    fuzz_port_seed = 1;
    draw(input);
    memcpy(before, fuzz_files, sizeof before);
    check_walks(allowed_payload_bytes(options), cuts);

    if (!open_spool(&start, options)) {
        close_spool(&start);
        CHECK(is_same_folder(before));
        return 0;
    }
    read_all(&start, &trace);
    check_read(before, &start);
    check_complete(before, allowed_payload_bytes(options), &start);
    check_headless(before, allowed_payload_bytes(options), &start);
    bool is_removed = check_unchanged(before);
    bool is_known = !is_removed && is_plausible(before, &start);
    close_spool(&start);

    if (!open_spool(&start, options)) {
        CHECK(is_removed);
        close_spool(&start);
        return 0;
    }
    size_t secured_count = fuzz_port_counts.write_count;
    read_all(&start, &trace_again);
    if (!is_removed) {
        fuzz_expect_same(&trace, &trace_again);
    }
    size_t released_count = release % (start.count + 1);
    if (released_count > 0) {
        spool_release(start.spool, start.sequences[released_count - 1]);
    }
    append(&start, (options & OPTION_APPENDS) != 0 ? options >> 4 : 0U);
    if ((options & OPTION_CLOSES) != 0) {
        spool_close(start.spool);
        while (turn(&start)) {
        }
        CHECK(spool_is_closed(start.spool));
    }
    bool is_marked = fuzz_port_counts.write_count > secured_count;
    close_spool(&start);

    if (is_known) {
        check_written(&start);
    }
    bool is_open = open_spool(&again, options);
    CHECK(is_open || !is_known);
    if (is_known) {
        read_all(&again, &trace_again);
        check_follows(&start, released_count, is_marked, &again);
    }
    close_spool(&again);
    return 0;
}
