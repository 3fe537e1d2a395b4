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
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        bytes[20 + i] = (uint8_t)parts[i].bytes;
    }
    bytes[24] = parcel->is_id_made;
    memset(bytes + 25, 0, 3);
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
    size_t queue_bytes = head[20];
    size_t client_bytes = head[21];
    size_t type_bytes = head[22];
    size_t id_bytes = head[23];
    uint64_t parts_bytes = (uint64_t)queue_bytes + client_bytes + type_bytes + id_bytes + body_bytes;
    if (body_bytes == 0 || parts_bytes != bytes.bytes - PARCEL_HEAD_BYTES || queue_bytes == 0 || client_bytes == 0 ||
        client_bytes > CLIENT_ID_BYTES_MAX || type_bytes == 0 || type_bytes > MESSAGE_TYPE_BYTES_MAX || id_bytes == 0 ||
        id_bytes > PARCEL_ID_BYTES_MAX || head[24] > 1) {
        return false;
    }
    const uint8_t *at = head + PARCEL_HEAD_BYTES;
    *parcel = (struct parcel){.received_wall_ms = (int64_t)load_u64(head),
                              .origin = {.session_index = load_u32(head + 8),
                                         .session_generation = load_u32(head + 12),
                                         .seq = load_u32(head + 16)},
                              .queue = span_of(at, queue_bytes),
                              .client_id = span_of(at + queue_bytes, client_bytes),
                              .type = span_of(at + queue_bytes + client_bytes, type_bytes),
                              .id = span_of(at + queue_bytes + client_bytes + type_bytes, id_bytes),
                              .is_id_made = head[24] == 1};
    parcel->body = span_of(parcel->id.data + id_bytes, body_bytes);
    return true;
}

void parcel_forget_origin(uint8_t *bytes)
{
    store_u32(bytes + 8, UINT32_MAX);
    store_u32(bytes + 12, 0);
    store_u32(bytes + 16, 0);
}
