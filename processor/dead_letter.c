/* SPDX-License-Identifier: MIT */
/* Headers that came are passed on, but for our own from an earlier failure, of which only the time survives. */
#include "dead_letter.h"

#include "check.h"
#include "intake.h"

#define REASON "x-postern-reason"
#define DETAIL "x-postern-detail"
#define FIRST_FAILURE "x-postern-first-failure"
#define DELIVERY_COUNT "x-delivery-count" /* a quorum queue's own, of the queue the message leaves */

void dead_letter_make(const struct delivery *delivery, uint64_t now_s, struct amqp_publish *out,
                      struct amqp_header headers[DEAD_LETTER_HEADERS_MAX])
{
    CHECK(delivery->state == DELIVERY_DEAD && delivery->header_count <= AMQP_HEADERS_MAX);
    int64_t first_failure_s = (int64_t)now_s;
    size_t count = 0;
    for (size_t i = 0; i < delivery->header_count; i++) {
        const struct amqp_header *const header = &delivery->headers[i];
        if (span_is(header->name, FIRST_FAILURE)) {
            if (header->kind == AMQP_HEADER_TIMESTAMP) {
                first_failure_s = header->integer;
            }
        } else if (!span_is(header->name, REASON) && !span_is(header->name, DETAIL) &&
                   !span_is(header->name, DELIVERY_COUNT)) {
            if (count < DEAD_LETTER_HEADERS_MAX - DEAD_LETTER_OWN_HEADERS) {
                headers[count++] = *header;
            }
        }
    }
    headers[count++] =
        (struct amqp_header){.name = SPAN(REASON), .kind = AMQP_HEADER_TEXT, .text = span_text(delivery->code)};
    headers[count++] = (struct amqp_header){
        .name = SPAN(DETAIL), .kind = AMQP_HEADER_TEXT, .text = span_of(delivery->detail, delivery->detail_bytes)};
    headers[count++] =
        (struct amqp_header){.name = SPAN(FIRST_FAILURE), .kind = AMQP_HEADER_TIMESTAMP, .integer = first_failure_s};
    *out = (struct amqp_publish){.body = delivery->body,
                                 .content_type = delivery->content_type,
                                 .correlation_id = delivery->correlation_id,
                                 .reply_to = delivery->reply_to,
                                 .message_id = delivery->property_id,
                                 .type = delivery->property_type,
                                 .app_id = delivery->app_id,
                                 .timestamp_s = delivery->timestamp_s,
                                 .headers = headers,
                                 .header_count = count};
}
