/* SPDX-License-Identifier: MIT */
/* The outbox begins to publish when the downlink's queue stands, so that the first receipts of a new gateway find it.
 *
 * The origin that the outbox carries names a session by handle, so a receipt finds its connection without a lookup; a
 * processor's receipt carries the same origin inside its ref, which the outbox reads. */
#include "answers.h"

#include "clients.h"
#include "gateway.h"
#include "receipts.h"
#include "replies.h"

static void log_stage(struct gateway *gateway, const struct outbox_origin *origin, const struct receipt *receipt)
{
    static const char *const events[RECEIPT_STATUS_COUNT] = {
        [RECEIPT_ACCEPTED] = "message_accepted", [RECEIPT_QUEUED] = "message_queued",
        [RECEIPT_STORED] = "message_stored",     [RECEIPT_REJECTED] = "message_rejected",
        [RECEIPT_DEAD] = "message_dead",
    };
    uint32_t seq = origin == NULL ? 0 : origin->seq;
    if (receipt->reason.bytes > 0) {
        log_event(&gateway->log, LOG_INFO, events[receipt->status], LOG_SPAN("client", receipt->client_id),
                  LOG_SPAN("id", receipt->id), LOG_U64("seq", seq), LOG_SPAN("reason", receipt->reason));
    } else {
        log_event(&gateway->log, LOG_INFO, events[receipt->status], LOG_SPAN("client", receipt->client_id),
                  LOG_SPAN("id", receipt->id), LOG_U64("seq", seq));
    }
}

/* `origin` is NULL where it is not known. */
static void tell(struct gateway *gateway, const struct outbox_origin *origin, const struct receipt *receipt)
{
    if (log_messages(&gateway->log)) {
        log_stage(gateway, origin, receipt);
    }
    struct session *session = NULL;
    uint32_t seq = 0;
    if (origin != NULL) {
        struct session_handle handle = {origin->session_index, origin->session_generation};
        session = session_by_handle(&gateway->sessions, handle);
        // A ref is what a backend hands back: it is believed only where it names the same client.
        if (session != NULL && !span_equal(session_client_id(session), receipt->client_id)) {
            session = NULL;
        }
        seq = session == NULL ? 0 : origin->seq;
    }
    if (session == NULL) {
        session = receipt->id.bytes == 0 ? NULL : session_find(&gateway->sessions, receipt->client_id);
    }
    if (session == NULL || !receipts_want(session->receipts_mask, receipt->status)) {
        return;
    }
    char buffer[REPLY_BYTES_MAX];
    struct text text = text_in(buffer, sizeof buffer);
    reply_receipt(&text, seq, receipt->id, receipt->status, receipt->code, receipt->reason);
    (void)clients_tell(gateway, session, text_span(&text));
}

static void on_receipt(void *context, const struct outbox_receipt *receipt)
{
    const struct receipt told = {
        .client_id = receipt->client_id,
        .id = receipt->id,
        .status = receipt->status,
    };
    tell(context, &receipt->origin, &told);
}

static void on_room(void *context)
{
    struct gateway *gateway = context;
    gateway->room_came = true;
}

static void on_settled(void *context)
{
    struct gateway *gateway = context;
    outbox_start(gateway->outbox, gateway->now_ms);
}

static void on_receipts(void *context, struct span body)
{
    struct gateway *gateway = context;
    struct receipt_reader reader;
    receipt_reader_begin(&reader, body);
    for (;;) {
        struct receipt receipt;
        switch (receipt_read(&reader, &receipt)) {
        case RECEIPT_READ_ONE: {
            struct outbox_origin origin;
            bool ours = outbox_settle(gateway->outbox, receipt.ref, &origin) == OUTBOX_REF_OURS;
            tell(gateway, ours ? &origin : NULL, &receipt);
            break;
        }
        case RECEIPT_READ_END:
            return;
        case RECEIPT_READ_BAD:
            log_event(&gateway->log, LOG_WARN, "receipts_malformed", LOG_U64("bytes", body.bytes),
                      LOG_U64("offset", reader.offset));
            return;
        }
    }
}

static void on_message(void *context, struct session *session, struct span body)
{
    struct gateway *gateway = context;
    const char *fault = NULL;
    if (body.bytes > gateway->downlink_message_max) {
        fault = "it is longer than MAX_MESSAGE_BYTES or SEND_QUEUE_BYTES allow";
    } else {
        enum json_error error = json_parse(&gateway->json, body);
        if (error != JSON_OK) {
            fault = json_error_text(error);
        } else if (json_kind(&gateway->json, 0) != JSON_KIND_OBJECT) {
            fault = "it is not a JSON object";
        }
    }
    if (fault != NULL) {
        log_event(&gateway->log, LOG_WARN, "downlink_message_refused", LOG_SPAN("client", session_client_id(session)),
                  LOG_U64("bytes", body.bytes), LOG_TEXT("reason", fault));
        return;
    }
    if (log_messages(&gateway->log)) {
        log_event(&gateway->log, LOG_INFO, "message_down", LOG_SPAN("client", session_client_id(session)),
                  LOG_U64("bytes", body.bytes));
    }
    struct span client_id = session_client_id(session);
    if (!clients_tell(gateway, session, body)) {
        log_event(&gateway->log, LOG_INFO, "downlink_message_lost", LOG_SPAN("client", client_id),
                  LOG_U64("bytes", body.bytes), LOG_TEXT("reason", "its connection is closing"));
    }
}

const struct outbox_handler answers_outbox_handler = {.on_receipt = on_receipt, .on_room = on_room};
const struct downlink_handler answers_downlink_handler = {
    .on_settled = on_settled, .on_message = on_message, .on_receipts = on_receipts};
