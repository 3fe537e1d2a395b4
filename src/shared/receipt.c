/* SPDX-License-Identifier: MIT */
/* The batch is read by hand and not through json.c: the values are strings without escapes, so that one pass suffices,
 * and 128 KiB would take 1.3 MB of tokens for nothing. The reader takes a part of JSON: whatever it takes, json.c
 * takes too, but for a member that is not known and given twice. The tests hold it to that.
 *
 * The writer keeps room for the batch's end from the start, so that ending never fails; a receipt that does not fit is
 * taken back whole. */
#include "receipt.h"

#include "check.h"
#include "envelope.h"

static const char batch_begin[] = "{\"receipts\":[";
static const char batch_end[] = "]}";
enum { BATCH_END_BYTES = sizeof batch_end - 1 };

_Static_assert(RECEIPT_ONE_BYTES_MAX >= 128 + CLIENT_ID_BYTES_MAX + MESSAGE_ID_BYTES_MAX + RECEIPT_REF_BYTES_MAX +
                                            RECEIPT_CODE_BYTES_MAX + RECEIPT_REASON_BYTES_MAX,
               "names, quotes and the longest parts");

static const char *const status_names[RECEIPT_STATUS_COUNT] = {
    [RECEIPT_ACCEPTED] = "accepted", [RECEIPT_QUEUED] = "queued", [RECEIPT_STORED] = "stored",
    [RECEIPT_REJECTED] = "rejected", [RECEIPT_DEAD] = "dead",
};

const char *receipt_status_name(enum receipt_status status)
{
    CHECK((unsigned)status < RECEIPT_STATUS_COUNT);
    return status_names[status];
}

bool receipt_status_from(struct span name, enum receipt_status *status)
{
    for (unsigned index = 0; index < RECEIPT_STATUS_COUNT; index++) {
        if (span_is(name, status_names[index])) {
            *status = (enum receipt_status)index;
            return true;
        }
    }
    return false;
}

/* Printable ASCII without quotes and backslashes. */
static inline bool is_plain(uint8_t byte)
{
    return byte >= ' ' && byte <= '~' && byte != '"' && byte != '\\';
}

static bool plain_valid(struct span text, size_t bytes_max)
{
    for (size_t index = 0; index < text.bytes; index++) {
        if (!is_plain(text.data[index])) {
            return false;
        }
    }
    return text.bytes <= bytes_max;
}

/* A word of a-z 0-9 _, or nothing. */
static bool code_valid(struct span code)
{
    for (size_t index = 0; index < code.bytes; index++) {
        uint8_t byte = code.data[index];
        if (!(byte >= 'a' && byte <= 'z') && !(byte >= '0' && byte <= '9') && byte != '_') {
            return false;
        }
    }
    return code.bytes <= RECEIPT_CODE_BYTES_MAX;
}

void receipt_batch_begin(struct receipt_batch *batch, void *buffer, size_t capacity_bytes)
{
    CHECK(capacity_bytes >= RECEIPT_ONE_BYTES_MAX);
    *batch = (struct receipt_batch){text_in(buffer, capacity_bytes - BATCH_END_BYTES), 0};
    text_string(&batch->text, batch_begin);
}

static void write_member(struct text *text, const char *before, struct span value)
{
    text_string(text, before);
    text_bytes(text, value);
    text_char(text, '"');
}

static void write_reason(struct text *text, struct span reason)
{
    size_t bytes = reason.bytes < RECEIPT_REASON_BYTES_MAX ? reason.bytes : RECEIPT_REASON_BYTES_MAX;
    text_string(text, ",\"reason\":\"");
    for (size_t index = 0; index < bytes; index++) {
        uint8_t byte = reason.data[index];
        if (is_plain(byte)) {
            text_char(text, (char)byte);
        } else {
            text_string(text, byte == '"' ? "'" : "?");
        }
    }
    text_char(text, '"');
}

bool receipt_batch_add(struct receipt_batch *batch, const struct receipt *receipt)
{
    CHECK(client_id_valid(receipt->client_id));
    CHECK(receipt->id.bytes == 0 || message_id_valid(receipt->id));
    CHECK(code_valid(receipt->code));
    struct text *text = &batch->text;
    size_t mark = text->used_bytes;
    write_member(text, batch->count == 0 ? "{\"client_id\":\"" : ",{\"client_id\":\"", receipt->client_id);
    if (receipt->id.bytes > 0) {
        write_member(text, ",\"id\":\"", receipt->id);
    }
    if (receipt->ref.bytes > 0 && plain_valid(receipt->ref, RECEIPT_REF_BYTES_MAX)) {
        write_member(text, ",\"ref\":\"", receipt->ref);
    }
    write_member(text, ",\"status\":\"", span_text(receipt_status_name(receipt->status)));
    if (receipt->code.bytes > 0) {
        write_member(text, ",\"code\":\"", receipt->code);
    }
    if (receipt->reason.bytes > 0) {
        write_reason(text, receipt->reason);
    }
    text_char(text, '}');
    if (text->truncated) {
        text->used_bytes = mark;
        text->truncated = false;
        return false;
    }
    batch->count++;
    return true;
}

struct span receipt_batch_end(struct receipt_batch *batch)
{
    batch->text.capacity_bytes += BATCH_END_BYTES;
    text_string(&batch->text, batch_end);
    CHECK(!batch->text.truncated);
    return text_span(&batch->text);
}

/* Reading. What stands before the next receipt: the batch's beginning, a comma, or nothing more. */
enum { READ_FIRST, READ_NEXT, READ_ENDED, READ_BAD };

enum receipt_member {
    MEMBER_CLIENT_ID,
    MEMBER_ID,
    MEMBER_REF,
    MEMBER_STATUS,
    MEMBER_CODE,
    MEMBER_REASON,
    MEMBER_OTHER
};
enum { MEMBER_COUNT = MEMBER_OTHER };

void receipt_reader_begin(struct receipt_reader *reader, struct span body)
{
    *reader = (struct receipt_reader){body, 0, READ_FIRST};
}

static void skip_blanks(struct receipt_reader *reader)
{
    while (reader->offset < reader->body.bytes) {
        uint8_t byte = reader->body.data[reader->offset];
        if (byte != ' ' && byte != '\t' && byte != '\r' && byte != '\n') {
            return;
        }
        reader->offset++;
    }
}

/* Takes one character with the blanks before it. */
static bool take(struct receipt_reader *reader, char character)
{
    skip_blanks(reader);
    if (reader->offset == reader->body.bytes || reader->body.data[reader->offset] != (uint8_t)character) {
        return false;
    }
    reader->offset++;
    return true;
}

/* Takes a string of plain characters with the blanks before it. */
static bool take_string(struct receipt_reader *reader, struct span *string)
{
    if (!take(reader, '"')) {
        return false;
    }
    const uint8_t *start = reader->body.data + reader->offset;
    size_t left = reader->body.bytes - reader->offset;
    size_t bytes = 0;
    while (bytes < left && is_plain(start[bytes])) {
        bytes++;
    }
    reader->offset += bytes;
    if (bytes == left || start[bytes] != '"') {
        return false;
    }
    reader->offset++;
    *string = span_of(start, bytes);
    return true;
}

static enum receipt_member member_from(struct span name)
{
    static const struct span names[MEMBER_COUNT] = {
        [MEMBER_CLIENT_ID] = SPAN("client_id"), [MEMBER_ID] = SPAN("id"),     [MEMBER_REF] = SPAN("ref"),
        [MEMBER_STATUS] = SPAN("status"),       [MEMBER_CODE] = SPAN("code"), [MEMBER_REASON] = SPAN("reason"),
    };
    unsigned member = 0;
    while (member < MEMBER_COUNT && !span_equal(name, names[member])) {
        member++;
    }
    return (enum receipt_member)member;
}

static bool put_member(struct receipt *out, enum receipt_member member, struct span value)
{
    switch (member) {
    case MEMBER_CLIENT_ID:
        out->client_id = value;
        return client_id_valid(value);
    case MEMBER_ID:
        out->id = value;
        return message_id_valid(value);
    case MEMBER_REF:
        out->ref = value;
        return value.bytes <= RECEIPT_REF_BYTES_MAX;
    case MEMBER_STATUS:
        return receipt_status_from(value, &out->status);
    case MEMBER_CODE:
        out->code = value;
        return code_valid(value);
    case MEMBER_REASON:
        out->reason = value;
        return value.bytes <= RECEIPT_REASON_BYTES_MAX;
    case MEMBER_OTHER:
        return true;
    }
    CHECK(false);
    return false;
}

/* Takes one receipt, from { to }. */
static bool take_receipt(struct receipt_reader *reader, struct receipt *out)
{
    unsigned seen = 0;
    *out = (struct receipt){.status = RECEIPT_DEAD};
    if (!take(reader, '{')) {
        return false;
    }
    do {
        struct span name;
        struct span value;
        if (!take_string(reader, &name)) {
            return false;
        }
        enum receipt_member member = member_from(name);
        unsigned mark = member == MEMBER_OTHER ? 0 : 1U << member;
        if ((seen & mark) != 0 || !take(reader, ':') || !take_string(reader, &value) ||
            !put_member(out, member, value)) {
            return false;
        }
        seen |= mark;
    } while (take(reader, ','));
    const unsigned needed = 1U << MEMBER_CLIENT_ID | 1U << MEMBER_STATUS;
    return (seen & needed) == needed && take(reader, '}');
}

static bool take_begin(struct receipt_reader *reader)
{
    struct span name;
    return take(reader, '{') && take_string(reader, &name) && span_is(name, "receipts") && take(reader, ':') &&
           take(reader, '[');
}

static bool take_end(struct receipt_reader *reader)
{
    if (!take(reader, ']') || !take(reader, '}')) {
        return false;
    }
    skip_blanks(reader);
    return reader->offset == reader->body.bytes;
}

static enum receipt_read finish(struct receipt_reader *reader, bool good)
{
    reader->state = good ? READ_ENDED : READ_BAD;
    return good ? RECEIPT_READ_END : RECEIPT_READ_BAD;
}

enum receipt_read receipt_read(struct receipt_reader *reader, struct receipt *out)
{
    if (reader->state == READ_ENDED || reader->state == READ_BAD) {
        return finish(reader, reader->state == READ_ENDED);
    }
    if (reader->state == READ_FIRST) {
        if (!take_begin(reader)) {
            return finish(reader, false);
        }
        skip_blanks(reader);
        if (reader->offset < reader->body.bytes && reader->body.data[reader->offset] == ']') {
            return finish(reader, take_end(reader));
        }
    } else if (!take(reader, ',')) {
        return finish(reader, take_end(reader));
    }
    if (!take_receipt(reader, out)) {
        return finish(reader, false);
    }
    reader->state = READ_NEXT;
    return RECEIPT_READ_ONE;
}
