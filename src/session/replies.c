/* SPDX-License-Identifier: MIT */
/* Pieces of constant text around numbers and ids. Client ids and message ids need no escaping: their alphabets leave
 * out the quote, the backslash and control characters, which is checked where they come in. */
#include "replies.h"

static void literal(struct text *text, struct span piece)
{
    text_bytes(text, piece);
}

#define LITERAL(text, string) literal(text, (struct span)SPAN(string))

static void write_seq_and_id(struct text *text, uint32_t seq, struct span id)
{
    if (seq != 0) {
        LITERAL(text, ",\"seq\":");
        text_u64(text, seq);
    }
    if (id.bytes > 0) {
        LITERAL(text, ",\"id\":\"");
        text_bytes(text, id);
        text_char(text, '"');
    }
}

static void write_member(struct text *text, struct span name, struct span value, size_t bytes_max)
{
    if (value.bytes > bytes_max) {
        value.bytes = bytes_max;
    }
    text_bytes(text, name);
    text_json_string(text, value);
}

void reply_connected(struct text *text, struct span client_id, uint64_t heartbeat_s, uint64_t message_bytes_max)
{
    LITERAL(text, "{\"type\":\"connected\",\"message\":\"Connected\",\"client_id\":\"");
    text_bytes(text, client_id);
    LITERAL(text, "\",\"heartbeat\":");
    text_u64(text, heartbeat_s);
    LITERAL(text, ",\"max_message_bytes\":");
    text_u64(text, message_bytes_max);
    text_char(text, '}');
}

void reply_error(struct text *text, uint32_t seq, struct span id, struct span code, struct span sentence)
{
    LITERAL(text, "{\"type\":\"error\"");
    write_seq_and_id(text, seq, id);
    write_member(text, (struct span)SPAN(",\"code\":"), code, RECEIPT_CODE_BYTES_MAX);
    write_member(text, (struct span)SPAN(",\"error\":"), sentence, RECEIPT_REASON_BYTES_MAX);
    text_char(text, '}');
}

void reply_receipt(struct text *text, uint32_t seq, struct span id, enum receipt_status status, struct span code,
                   struct span reason)
{
    LITERAL(text, "{\"type\":\"receipt\"");
    write_seq_and_id(text, seq, id);
    LITERAL(text, ",\"status\":\"");
    text_string(text, receipt_status_name(status));
    text_char(text, '"');
    if (code.bytes > 0) {
        write_member(text, (struct span)SPAN(",\"code\":"), code, RECEIPT_CODE_BYTES_MAX);
    }
    if (reason.bytes > 0) {
        write_member(text, (struct span)SPAN(",\"reason\":"), reason, RECEIPT_REASON_BYTES_MAX);
    }
    text_char(text, '}');
}

void reply_busy(struct text *text, uint32_t retry_after_ms)
{
    LITERAL(text, "{\"type\":\"busy\",\"retry_after_ms\":");
    text_u64(text, retry_after_ms);
    text_char(text, '}');
}

void reply_ping(struct text *text)
{
    LITERAL(text, "{\"type\":\"ping\"}");
}

void reply_pong(struct text *text)
{
    LITERAL(text, "{\"type\":\"pong\"}");
}
