/* SPDX-License-Identifier: MIT */
#include "spool_model.h"

#include <string.h>

#include "check.h"

enum { HEADER_BYTES = 64, HEAD_BYTES = 32, ALIGN_BYTES = 8, PAYLOAD_BYTES_MAX = 1572864 };

static uint64_t number(const uint8_t *at, size_t bytes)
{
    uint64_t value = 0;
    while (bytes > 0) {
        bytes--;
        value = value * 256 + at[bytes];
    }
    return value;
}

static uint32_t checksum(const uint8_t *at, size_t bytes)
{
    uint32_t crc = UINT32_MAX;
    for (size_t bit = 0; bit < 8 * bytes; bit++) {
        uint32_t in = ((uint32_t)at[bit / 8] >> (bit % 8) ^ crc) & 1U;
        crc = crc >> 1 ^ (in != 0 ? 0x82F63B78U : 0);
    }
    return ~crc;
}

bool spool_model_header(struct span segment, struct spool_model_header *header)
{
    static const uint8_t magic[] = {0x50, 0x4F, 0x53, 0x54, 0x45, 0x52, 0x4E, 0xFF};
    const uint8_t *at = segment.data;
    if (memcmp(at, magic, sizeof magic) != 0 || number(at + 60, 4) != checksum(at, 60) || number(at + 8, 4) != 1 ||
        number(at + 12, 4) != segment.bytes) {
        return false;
    }
    header->number = number(at + 16, 8);
    header->first_sequence = number(at + 24, 8);
    header->released = number(at + 32, 8);
    header->salt = number(at + 40, 8);
    return header->number != 0 && header->salt != 0 && header->first_sequence != 0 &&
           header->released < header->first_sequence;
}

static size_t record_bytes(size_t payload_bytes)
{
    return HEAD_BYTES + payload_bytes + (ALIGN_BYTES - payload_bytes % ALIGN_BYTES) % ALIGN_BYTES;
}

/* A head by conditions 5 and 6, but for which salt it must be; the kind's last three letters, or NULL. */
static const char *head_kind(struct span segment, size_t offset, size_t *payload_bytes)
{
    const uint8_t *at = segment.data + offset;
    if (at[0] != 0xFF) {
        return NULL;
    }
    bool is_message = at[1] == 'm' && at[2] == 's' && at[3] == 'g';
    bool is_mark = at[1] == 'r' && at[2] == 'e' && at[3] == 'l';
    if ((!is_message && !is_mark) || number(at + 28, 4) != checksum(at, 28) || number(at + 16, 8) == 0) {
        return NULL;
    }
    *payload_bytes = (size_t)number(at + 4, 4);
    if (is_message) {
        bool is_possible = *payload_bytes >= 1 && *payload_bytes <= PAYLOAD_BYTES_MAX;
        return is_possible && record_bytes(*payload_bytes) <= segment.bytes - offset ? "msg" : NULL;
    }
    return *payload_bytes == 0 ? "rel" : NULL;
}

static bool is_payload_good(struct span segment, size_t offset, size_t payload_bytes)
{
    const uint8_t *at = segment.data + offset;
    return number(at + 24, 4) == checksum(at + HEAD_BYTES, payload_bytes);
}

static void add(struct spool_model *model, enum spool_model_kind kind, const struct spool_model_record *record)
{
    CHECK(model->count < SPOOL_MODEL_RECORDS_MAX);
    model->records[model->count] = *record;
    model->records[model->count++].kind = kind;
}

static struct spool_model_record record_at(struct span segment, size_t offset, bool is_message, size_t payload_bytes)
{
    return (struct spool_model_record){.kind = is_message ? SPOOL_MODEL_MESSAGE : SPOOL_MODEL_MARK,
                                       .sequence = number(segment.data + offset + 8, 8),
                                       .salt = number(segment.data + offset + 16, 8),
                                       .offset = offset,
                                       .payload = span_of(segment.data + offset + HEAD_BYTES, payload_bytes)};
}

void spool_model_read(struct spool_model *model, struct span segment, size_t payload_bytes_max,
                      const struct spool_model_header *header, uint64_t sequence_end)
{
    static const uint8_t zeros[HEAD_BYTES] = {0};
    uint64_t least = header->first_sequence;
    uint64_t released = header->released;
    uint64_t salt = header->salt;
    size_t offset = HEADER_BYTES;
    *model = (struct spool_model){.tail_offset = HEADER_BYTES};
    while (offset + HEAD_BYTES <= segment.bytes) {
        size_t payload_bytes = 0;
        const char *kind = head_kind(segment, offset, &payload_bytes);
        bool is_message = kind != NULL && kind[0] == 'm';
        struct spool_model_record record = record_at(segment, offset, is_message, payload_bytes);
        if (kind == NULL || (salt != 0 && record.salt != salt) ||
            (is_message ? record.sequence < least : record.sequence <= released)) {
            offset += ALIGN_BYTES;
            continue;
        }
        size_t next = offset + record_bytes(payload_bytes);
        salt = record.salt;
        if (!is_message) {
            released = record.sequence;
            add(model, SPOOL_MODEL_MARK, &record);
            model->tail_offset = next;
        } else if (record.sequence < sequence_end) {
            least = record.sequence + 1;
            model->begin_sequence = model->begin_sequence == 0 ? record.sequence : model->begin_sequence;
            if (payload_bytes > payload_bytes_max) {
                record.payload = span_of(NULL, 0);
                add(model, SPOOL_MODEL_TOO_LONG, &record);
            } else if (is_payload_good(segment, offset, payload_bytes)) {
                add(model, SPOOL_MODEL_MESSAGE, &record);
                model->tail_offset = next;
            }
        }
        offset = next;
    }
    model->has_end = segment.bytes - model->tail_offset < HEAD_BYTES ||
                     memcmp(segment.data + model->tail_offset, zeros, HEAD_BYTES) == 0;
}

bool spool_model_next(struct span segment, size_t *offset, struct spool_model_record *record)
{
    for (; *offset + HEAD_BYTES <= segment.bytes; *offset += ALIGN_BYTES) {
        size_t payload_bytes;
        const char *kind = head_kind(segment, *offset, &payload_bytes);
        if (kind != NULL) {
            *record = record_at(segment, *offset, kind[0] == 'm', payload_bytes);
            *offset += ALIGN_BYTES;
            return true;
        }
    }
    return false;
}

bool spool_model_holds(struct span segment, uint64_t sequence, struct span payload)
{
    struct spool_model_record record;
    for (size_t offset = HEADER_BYTES; spool_model_next(segment, &offset, &record);) {
        if (record.kind == SPOOL_MODEL_MESSAGE && record.sequence == sequence && span_equal(record.payload, payload) &&
            is_payload_good(segment, record.offset, payload.bytes)) {
            return true;
        }
    }
    return false;
}
