/* SPDX-License-Identifier: MIT */
/* A batch of receipts as it comes from the broker. What is taken is JSON as strict_json.c reads it (but for a member
 * that is not known and given twice), its parts obey their rules, and written again they are read the same; a reason of
 * any bytes is written so that it can be read.
 *
 * Input: the bytes of a reason; then the reason, and the body. */
#include <string.h>

#include "envelope.h"
#include "fuzz.h"
#include "receipt.h"
#include "strict_json.h"

static uint8_t batch_memory[RECEIPT_BATCH_BYTES];

static bool is_plain(struct span text, size_t bytes_max)
{
    for (size_t i = 0; i < text.bytes; i++) {
        if (text.data[i] < 0x20 || text.data[i] > 0x7E || text.data[i] == '"' || text.data[i] == '\\') {
            return false;
        }
    }
    return text.bytes <= bytes_max;
}

static void check_receipt(const struct receipt *receipt)
{
    CHECK(client_id_valid(receipt->client_id) && (receipt->id.bytes == 0 || message_id_valid(receipt->id)));
    CHECK(is_plain(receipt->ref, 255) && is_plain(receipt->code, 32) && is_plain(receipt->reason, 200));
    CHECK(receipt->status <= RECEIPT_DEAD);
    enum receipt_status status;
    CHECK(receipt_status_from(span_text(receipt_status_name(receipt->status)), &status));
    CHECK(status == receipt->status);
}

static void note_receipt(struct fuzz_trace *trace, const struct receipt *receipt)
{
    fuzz_note(trace, 0, receipt->status, receipt->client_id);
    fuzz_note(trace, 1, 0, receipt->id);
    fuzz_note(trace, 2, 0, receipt->ref);
    fuzz_note(trace, 3, 0, receipt->code);
    fuzz_note(trace, 4, 0, receipt->reason);
}

/* How often the name stands before a colon. */
static size_t count_name(struct span body, const char *name)
{
    size_t count = 0;
    size_t name_bytes = strlen(name);
    for (size_t at = 0; at + name_bytes < body.bytes; at++) {
        size_t behind = at + name_bytes;
        if (memcmp(body.data + at, name, name_bytes) != 0) {
            continue;
        }
        while (behind < body.bytes && strchr(" \t\r\n", body.data[behind]) != NULL && body.data[behind] != 0) {
            behind++;
        }
        count += behind < body.bytes && body.data[behind] == ':';
    }
    return count;
}

/* Reads all there is; true when the batch ended as it should. What was read goes into `batch`, if there is one. */
static bool read_batch(struct span body, struct fuzz_trace *trace, struct receipt_batch *batch)
{
    struct receipt_reader reader;
    struct receipt receipt;
    fuzz_trace_begin(trace);
    receipt_reader_begin(&reader, body);
    enum receipt_read read;
    while ((read = receipt_read(&reader, &receipt)) == RECEIPT_READ_ONE) {
        check_receipt(&receipt);
        note_receipt(trace, &receipt);
        CHECK(batch == NULL || receipt_batch_add(batch, &receipt));
    }
    CHECK(reader.offset <= body.bytes && receipt_read(&reader, &receipt) == read);
    return read == RECEIPT_READ_END;
}

static void check_body(struct span body)
{
    static struct fuzz_trace first;
    static struct fuzz_trace second;
    struct receipt_batch batch;
    bool has_nul;
    receipt_batch_begin(&batch, batch_memory, sizeof batch_memory);
    if (!read_batch(body, &first, &batch)) {
        return;
    }
    CHECK(strict_json(body, NULL, &has_nul) != STRICT_JSON_WRONG);
    CHECK(count_name(body, "\"client_id\"") == batch.count && count_name(body, "\"status\"") == batch.count);
    CHECK(read_batch(receipt_batch_end(&batch), &second, NULL));
    fuzz_expect_same(&first, &second);
}

static void check_reason(struct span reason)
{
    struct receipt receipt = {.client_id = SPAN("dev-7"),
                              .id = SPAN("m1"),
                              .ref = reason,
                              .status = RECEIPT_REJECTED,
                              .code = SPAN("outside_hours"),
                              .reason = reason};
    struct receipt again;
    struct receipt_batch batch;
    struct receipt_reader reader;
    bool has_nul;
    receipt_batch_begin(&batch, batch_memory, RECEIPT_ONE_BYTES_MAX);
    CHECK(receipt_batch_add(&batch, &receipt));
    while (receipt_batch_add(&batch, &receipt)) {
    }
    struct span body = receipt_batch_end(&batch);
    CHECK(body.bytes <= RECEIPT_ONE_BYTES_MAX && strict_json(body, NULL, &has_nul) == STRICT_JSON_RIGHT);
    receipt_reader_begin(&reader, body);
    for (size_t i = 0; i < batch.count; i++) {
        CHECK(receipt_read(&reader, &again) == RECEIPT_READ_ONE);
        CHECK(again.ref.bytes == (is_plain(reason, RECEIPT_REF_BYTES_MAX) ? reason.bytes : 0));
        size_t kept_bytes = reason.bytes < RECEIPT_REASON_BYTES_MAX ? reason.bytes : RECEIPT_REASON_BYTES_MAX;
        CHECK(again.reason.bytes == kept_bytes);
        CHECK(!is_plain(reason, RECEIPT_REASON_BYTES_MAX) || span_equal(again.reason, reason));
    }
    CHECK(receipt_read(&reader, &again) == RECEIPT_READ_END);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct span body = fuzz_input(data, bytes);
    size_t reason_bytes = fuzz_byte(&body);
    check_reason(fuzz_take(&body, reason_bytes));
    check_body(span_of(fuzz_guarded(body), body.bytes));
    return 0;
}
