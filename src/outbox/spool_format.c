/* SPDX-License-Identifier: MIT */
/* A record's header has a checksum of its own: so its length can be trusted where its payload is damaged, and a place
 * in a hole is judged by 32 bytes. The walk tries each multiple of 8; whatever is not a record there is passed over,
 * and whether that was a hole or the segment's unused rest shows only when a valid record follows or none does. */
#include "spool_format.h"

#include "check.h"
#include "crc32c.h"
#include "little_endian.h"

enum { HEADER_CRC_OFFSET = 60, SALT_OFFSET = 16, PAYLOAD_CRC_OFFSET = 24, RECORD_CRC_OFFSET = 28 };

static const uint8_t SEGMENT_MAGIC[8] = {'P', 'O', 'S', 'T', 'E', 'R', 'N', 0xFF};
static const uint8_t KIND_MESSAGE[4] = {0xFF, 'm', 's', 'g'};
static const uint8_t KIND_MARK[4] = {0xFF, 'r', 'e', 'l'};

bool spool_is_zero(const uint8_t *bytes, size_t count)
{
    return count == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0); /* each is as the one before */
}

/* ---- segments ---- */

void spool_header_write(uint8_t bytes[SPOOL_SEGMENT_HEADER_BYTES], const struct spool_header *header)
{
    memset(bytes, 0, SPOOL_SEGMENT_HEADER_BYTES);
    memcpy(bytes, SEGMENT_MAGIC, sizeof SEGMENT_MAGIC);
    store_u32(bytes + 8, header->version);
    store_u32(bytes + 12, header->segment_bytes);
    store_u64(bytes + 16, header->number);
    store_u64(bytes + 24, header->first_sequence);
    store_u64(bytes + 32, header->released);
    store_u64(bytes + 40, header->salt);
    store_u32(bytes + HEADER_CRC_OFFSET, crc32c(span_of(bytes, HEADER_CRC_OFFSET)));
}

enum spool_header_kind spool_header_read(const uint8_t bytes[SPOOL_SEGMENT_HEADER_BYTES], uint32_t segment_bytes,
                                         struct spool_header *header)
{
    if (spool_is_zero(bytes, SPOOL_SEGMENT_HEADER_BYTES)) {
        return SPOOL_HEADER_UNUSED;
    }
    if (memcmp(bytes, SEGMENT_MAGIC, sizeof SEGMENT_MAGIC) != 0 ||
        load_u32(bytes + HEADER_CRC_OFFSET) != crc32c(span_of(bytes, HEADER_CRC_OFFSET))) {
        return SPOOL_HEADER_DAMAGED;
    }
    *header = (struct spool_header){.version = load_u32(bytes + 8),
                                    .segment_bytes = load_u32(bytes + 12),
                                    .number = load_u64(bytes + 16),
                                    .first_sequence = load_u64(bytes + 24),
                                    .released = load_u64(bytes + 32),
                                    .salt = load_u64(bytes + 40)};
    if (header->version != SPOOL_VERSION || header->segment_bytes != segment_bytes) {
        return SPOOL_HEADER_OTHER_VERSION;
    }
    bool is_possible = header->number > 0 && header->first_sequence > 0 && header->salt != 0 &&
                       header->released < header->first_sequence;
    return is_possible ? SPOOL_HEADER_VALID : SPOOL_HEADER_DAMAGED;
}

/* ---- records ---- */

static void write_head(uint8_t *record, const uint8_t kind[4], uint64_t sequence, struct span payload)
{
    memcpy(record, kind, 4);
    store_u32(record + 4, (uint32_t)payload.bytes);
    store_u64(record + 8, sequence);
    store_u64(record + SALT_OFFSET, 0);
    store_u32(record + PAYLOAD_CRC_OFFSET, crc32c(payload));
}

void spool_record_bind(uint8_t *record, uint64_t salt)
{
    store_u64(record + SALT_OFFSET, salt);
    store_u32(record + RECORD_CRC_OFFSET, crc32c(span_of(record, RECORD_CRC_OFFSET)));
}

size_t spool_record_write(uint8_t *record, uint64_t sequence, size_t payload_bytes)
{
    CHECK(payload_bytes >= 1 && payload_bytes <= SPOOL_PAYLOAD_BYTES_MAX && sequence > 0);
    uint8_t *payload = record + SPOOL_RECORD_HEADER_BYTES;
    size_t record_bytes = SPOOL_RECORD_BYTES(payload_bytes);
    write_head(record, KIND_MESSAGE, sequence, span_of(payload, payload_bytes));
    memset(payload + payload_bytes, 0, record_bytes - SPOOL_RECORD_HEADER_BYTES - payload_bytes);
    return record_bytes;
}

void spool_mark_write(uint8_t record[SPOOL_RECORD_HEADER_BYTES], uint64_t salt, uint64_t released)
{
    write_head(record, KIND_MARK, released, span_of(NULL, 0));
    spool_record_bind(record, salt);
}

struct span spool_record_payload(const uint8_t *record)
{
    return span_of(record + SPOOL_RECORD_HEADER_BYTES, load_u32(record + 4));
}

/* ---- the walk ---- */

void spool_scan_begin(struct spool_scan *scan, uint32_t segment_bytes, uint32_t payload_bytes_max,
                      const struct spool_header *header, uint64_t sequence_end)
{
    *scan = (struct spool_scan){.segment_bytes = segment_bytes,
                                .payload_bytes_max = payload_bytes_max,
                                .offset = SPOOL_SEGMENT_HEADER_BYTES,
                                .tail_offset = SPOOL_SEGMENT_HEADER_BYTES,
                                .sequence_min = header->first_sequence,
                                .sequence_end = sequence_end,
                                .salt = header->salt,
                                .released = header->released,
                                .is_tail_clean = true};
}

enum judgement {
    JUDGED_NOTHING, /* no valid header (conditions 5 to 7) */
    JUDGED_MESSAGE,
    JUDGED_MARK
};

static enum judgement judge_head(const struct spool_scan *scan, const uint8_t *head, struct spool_record *record)
{
    bool is_message = memcmp(head, KIND_MESSAGE, 4) == 0;
    if (!is_message && memcmp(head, KIND_MARK, 4) != 0) {
        return JUDGED_NOTHING;
    }
    if (load_u32(head + RECORD_CRC_OFFSET) != crc32c(span_of(head, RECORD_CRC_OFFSET))) {
        return JUDGED_NOTHING;
    }
    uint64_t salt = load_u64(head + SALT_OFFSET);
    if (salt == 0 || (scan->salt != 0 && salt != scan->salt)) {
        return JUDGED_NOTHING;
    }
    record->offset = scan->offset;
    record->payload_bytes = load_u32(head + 4);
    record->sequence = load_u64(head + 8);
    if (!is_message) {
        return record->payload_bytes == 0 && record->sequence > scan->released ? JUDGED_MARK : JUDGED_NOTHING;
    }
    if (record->payload_bytes < 1 || record->payload_bytes > SPOOL_PAYLOAD_BYTES_MAX ||
        SPOOL_RECORD_BYTES(record->payload_bytes) > scan->segment_bytes - scan->offset) {
        return JUDGED_NOTHING;
    }
    return record->sequence >= scan->sequence_min ? JUDGED_MESSAGE : JUDGED_NOTHING;
}

/* The header of a message is valid. */
static void pass_sequence(struct spool_scan *scan, uint64_t sequence)
{
    scan->begin_sequence = scan->begin_sequence == 0 ? sequence : scan->begin_sequence;
    scan->sequence_min = sequence + 1;
}

/* A valid record, of so many bytes, stands at scan->offset. */
static void pass_valid(struct spool_scan *scan, struct spool_record *record, size_t record_bytes)
{
    record->is_behind_hole = scan->offset != scan->tail_offset;
    scan->offset += (uint32_t)record_bytes;
    scan->tail_offset = scan->offset;
    scan->is_tail_clean = true;
}

enum spool_found spool_scan_next(struct spool_scan *scan, uint32_t bytes_offset, struct span bytes,
                                 struct spool_record *record)
{
    CHECK(bytes_offset <= scan->offset);
    for (;;) {
        if (scan->segment_bytes - scan->offset < SPOOL_RECORD_HEADER_BYTES) {
            return SPOOL_FOUND_END;
        }
        size_t at = scan->offset - bytes_offset;
        size_t left = at < bytes.bytes ? bytes.bytes - at : 0;
        if (left < SPOOL_RECORD_HEADER_BYTES) {
            return SPOOL_FOUND_MORE;
        }
        const uint8_t *head = bytes.data + at;
        if (scan->offset == scan->tail_offset) {
            scan->is_tail_clean = spool_is_zero(head, SPOOL_END_BYTES);
        }
        switch (judge_head(scan, head, record)) {
        case JUDGED_NOTHING:
            scan->offset += SPOOL_RECORD_ALIGN_BYTES;
            continue;
        case JUDGED_MARK:
            scan->salt = load_u64(head + SALT_OFFSET);
            scan->released = record->sequence;
            pass_valid(scan, record, SPOOL_RECORD_HEADER_BYTES);
            return SPOOL_FOUND_MARK;
        case JUDGED_MESSAGE:
            scan->salt = load_u64(head + SALT_OFFSET);
            break;
        }
        size_t record_bytes = SPOOL_RECORD_BYTES(record->payload_bytes);
        if (record->sequence >= scan->sequence_end) {
            scan->offset += (uint32_t)record_bytes; /* the next segment has it */
            continue;
        }
        if (record->payload_bytes > scan->payload_bytes_max) {
            pass_sequence(scan, record->sequence);
            scan->offset += (uint32_t)record_bytes;
            return SPOOL_FOUND_TOO_LONG;
        }
        if (left < record_bytes) {
            return SPOOL_FOUND_MORE;
        }
        record->payload = spool_record_payload(head);
        pass_sequence(scan, record->sequence);
        if (crc32c(record->payload) != load_u32(head + PAYLOAD_CRC_OFFSET)) {
            scan->offset += (uint32_t)record_bytes;
            continue;
        }
        pass_valid(scan, record, record_bytes);
        return SPOOL_FOUND_MESSAGE;
    }
}
