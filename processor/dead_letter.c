/* SPDX-License-Identifier: MIT */
/* Our own headers come first, because they must fit; then those that came, in their order, as long as number and bytes
 * allow: one that is too long is left out, and shorter ones behind it may still fit. Of our own from an earlier failure
 * only the time survives, and the length of a body that is no longer whole. */
#include "dead_letter.h"

#include "check.h"
#include "intake.h"

#define REASON "x-postern-reason"
#define DETAIL "x-postern-detail"
#define FIRST_FAILURE "x-postern-first-failure"
#define BODY_BYTES "x-postern-body-bytes"
#define HEADERS_LOST "x-postern-headers-lost"
#define DELIVERY_COUNT "x-delivery-count" /* a quorum queue's own, of the queue the message leaves */

struct list {
    struct amqp_header *headers;
    size_t count;
    size_t bytes;
};

/* As encoded: a short string, a kind, and a long string or eight bytes (AMQP 0-9-1 section 4.2.5). */
static size_t header_bytes(const struct amqp_header *header)
{
    return 1 + header->name.bytes + 1 + (header->kind == AMQP_HEADER_TEXT ? 4 + header->text.bytes : 8);
}

static void add(struct list *list, struct amqp_header header)
{
    list->headers[list->count++] = header;
    list->bytes += header_bytes(&header);
}

static bool is_left_behind(const struct delivery *delivery, const struct amqp_header *header)
{
    const bool is_cut = delivery->body_bytes > delivery->body.bytes;
    return span_is(header->name, REASON) || span_is(header->name, DETAIL) || span_is(header->name, FIRST_FAILURE) ||
           span_is(header->name, HEADERS_LOST) || span_is(header->name, DELIVERY_COUNT) ||
           (is_cut && span_is(header->name, BODY_BYTES));
}

static void add_own(const struct delivery *delivery, uint64_t now_s, struct list *list)
{
    int64_t first_failure_s = (int64_t)now_s;
    for (size_t i = 0; i < delivery->header_count; i++) {
        const struct amqp_header *const header = &delivery->headers[i];
        if (span_is(header->name, FIRST_FAILURE) && header->kind == AMQP_HEADER_TIMESTAMP) {
            first_failure_s = header->integer;
        }
    }
    add(list, (struct amqp_header){.name = SPAN(REASON), .kind = AMQP_HEADER_TEXT, .text = span_text(delivery->code)});
    add(list, (struct amqp_header){.name = SPAN(DETAIL),
                                   .kind = AMQP_HEADER_TEXT,
                                   .text = span_of(delivery->detail, delivery->detail_bytes)});
    add(list,
        (struct amqp_header){.name = SPAN(FIRST_FAILURE), .kind = AMQP_HEADER_TIMESTAMP, .integer = first_failure_s});
    if (delivery->body_bytes > delivery->body.bytes) {
        add(list, (struct amqp_header){
                      .name = SPAN(BODY_BYTES), .kind = AMQP_HEADER_INTEGER, .integer = (int64_t)delivery->body_bytes});
    }
}

static void add_those_that_came(const struct delivery *delivery, struct list *list)
{
    struct amqp_header lost = {.name = SPAN(HEADERS_LOST), .kind = AMQP_HEADER_INTEGER};
    const size_t bytes_max = AMQP_PUBLISH_HEADERS_BYTES_MAX - header_bytes(&lost);
    for (size_t i = 0; i < delivery->header_count; i++) {
        const struct amqp_header *const header = &delivery->headers[i];
        if (is_left_behind(delivery, header)) {
            continue;
        }
        if (list->count + 1 < DEAD_LETTER_HEADERS_MAX && list->bytes + header_bytes(header) <= bytes_max) {
            add(list, *header);
        } else {
            lost.integer++;
        }
    }
    if (lost.integer > 0) {
        add(list, lost);
    }
}

void dead_letter_make(const struct delivery *delivery, uint64_t now_s, struct amqp_publish *out,
                      struct amqp_header headers[DEAD_LETTER_HEADERS_MAX])
{
    CHECK(delivery->state == DELIVERY_DEAD && delivery->header_count <= AMQP_HEADERS_MAX);
    struct list list = {.headers = headers, .bytes = 4}; /* the table's length */
    add_own(delivery, now_s, &list);
    add_those_that_came(delivery, &list);
    CHECK(list.count <= DEAD_LETTER_HEADERS_MAX && list.bytes <= AMQP_PUBLISH_HEADERS_BYTES_MAX);
    *out = (struct amqp_publish){.body = delivery->body,
                                 .content_type = delivery->content_type,
                                 .correlation_id = delivery->correlation_id,
                                 .reply_to = delivery->reply_to,
                                 .message_id = delivery->property_id,
                                 .type = delivery->property_type,
                                 .app_id = delivery->app_id,
                                 .timestamp_s = delivery->timestamp_s,
                                 .headers = headers,
                                 .header_count = list.count};
}
