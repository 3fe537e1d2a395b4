/* SPDX-License-Identifier: MIT */
/* A head of fixed size with the lengths of what follows it, then the parts one after another. */
#include "parcel.h"

#include "check.h"
#include "envelope.h"
#include "limits.h"
#include "little_endian.h"
#include "spool_format.h"
#include "text.h"

_Static_assert((int)PARCEL_HEAD_BYTES + (int)QUEUE_NAME_BYTES_MAX + (int)CLIENT_ID_BYTES_MAX +
                       (int)MESSAGE_TYPE_BYTES_MAX + (int)PARCEL_ID_BYTES_MAX + (int)ENVELOPE_BODY_OVERHEAD_BYTES_MAX +
                       (int)SPOOL_RECORD_HEADER_BYTES + (int)SPOOL_RECORD_ALIGN_BYTES <=
                   (int)OUTBOX_OVERHEAD_BYTES_MAX,
               "what outbox_has_room reckons with is enough");
_Static_assert((int)MESSAGE_ID_BYTES_MAX <= (int)PARCEL_ID_BYTES_MAX, "a client's id fits");

size_t parcel_pack(uint8_t *bytes, size_t capacity_bytes, const struct parcel *parcel, const struct envelope_body *body)
{
    const struct span parts[] = {parcel->queue, parcel->client_id, parcel->type, parcel->id};
    struct text text = text_in(bytes, capacity_bytes);
    text.used_bytes = PARCEL_HEAD_BYTES;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        CHECK(parts[i].bytes >= 1 && parts[i].bytes <= UINT8_MAX);
        text_bytes(&text, parts[i]);
    }
    size_t body_start = text.used_bytes;
    envelope_write_body(&text, body);
    CHECK(!text.truncated);
    store_u64(bytes, (uint64_t)parcel->received_wall_ms);
    store_u32(bytes + 8, parcel->origin.session_index);
    store_u32(bytes + 12, parcel->origin.session_generation);
    store_u32(bytes + 16, parcel->origin.seq);
    bytes[20] = parcel->origin.receipts_mask;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        bytes[21 + i] = (uint8_t)parts[i].bytes;
    }
    bytes[25] = parcel->is_id_made;
    bytes[26] = 0;
    bytes[27] = 0;
    store_u32(bytes + 28, (uint32_t)(text.used_bytes - body_start));
    return text.used_bytes;
}

bool parcel_open(struct span bytes, struct parcel *parcel)
{
    if (bytes.bytes < PARCEL_HEAD_BYTES) {
        return false;
    }
    const uint8_t *head = bytes.data;
    size_t body_bytes = load_u32(head + 28);
    size_t parts_bytes = (size_t)head[21] + head[22] + head[23] + head[24];
    if (body_bytes == 0 || parts_bytes + body_bytes != bytes.bytes - PARCEL_HEAD_BYTES || head[21] == 0 ||
        head[22] == 0 || head[22] > CLIENT_ID_BYTES_MAX || head[23] == 0 || head[23] > MESSAGE_TYPE_BYTES_MAX ||
        head[24] == 0 || head[24] > PARCEL_ID_BYTES_MAX || head[25] > 1) {
        return false;
    }
    *parcel = (struct parcel){.received_wall_ms = (int64_t)load_u64(head),
                              .origin = {.session_index = load_u32(head + 8),
                                         .session_generation = load_u32(head + 12),
                                         .seq = load_u32(head + 16),
                                         .receipts_mask = head[20]},
                              .is_id_made = head[25] == 1};
    const uint8_t *at = head + PARCEL_HEAD_BYTES;
    parcel->queue = span_of(at, head[21]);
    parcel->client_id = span_of(at += head[21], head[22]);
    parcel->type = span_of(at += head[22], head[23]);
    parcel->id = span_of(at += head[23], head[24]);
    parcel->body = span_of(at += head[24], body_bytes);
    return true;
}
