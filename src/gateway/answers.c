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

/* Where a receipt's message came from, as far as it is known. */
struct source {
    bool known;
    struct outbox_origin origin;
    struct span name; /* the id it goes by in the logs; empty: not known */
};

static void log_stage(struct gateway *gateway, const struct source *source, const struct receipt *receipt)
{
    static const char *const events[RECEIPT_STATUS_COUNT] = {
        [RECEIPT_ACCEPTED] = "message_accepted", [RECEIPT_QUEUED] = "message_queued",
        [RECEIPT_STORED] = "message_stored",     [RECEIPT_REJECTED] = "message_rejected",
        [RECEIPT_DEAD] = "message_dead",
    };
    struct span id = receipt->id.bytes > 0 ? receipt->id : source->name;
    uint32_t seq = source->known ? source->origin.seq : 0;
    if (receipt->reason.bytes > 0) {
        log_event(&gateway->log, LOG_INFO, events[receipt->status], LOG_SPAN("client", receipt->client_id),
                  LOG_SPAN("id", id), LOG_U64("seq", seq), LOG_SPAN("reason", receipt->reason));
    } else {
        log_event(&gateway->log, LOG_INFO, events[receipt->status], LOG_SPAN("client", receipt->client_id),
                  LOG_SPAN("id", id), LOG_U64("seq", seq));
    }
}

static void tell(struct gateway *gateway, const struct source *source, const struct receipt *receipt)
{
    gateway->counts.receipts[receipt->status]++;
    if (log_messages(&gateway->log)) {
        log_stage(gateway, source, receipt);
    }
    struct session *session = NULL;
    uint32_t seq = 0;
    if (source->known) {
        struct session_handle handle = {source->origin.session_index, source->origin.session_generation};
        session = session_by_handle(&gateway->sessions, handle);
        // A ref is what a backend hands back: it is believed only where it names the same client.
        if (session != NULL && !span_equal(session_client_id(session), receipt->client_id)) {
            session = NULL;
        }
        seq = session == NULL ? 0 : source->origin.seq;
    }
    if (session == NULL) {
        session = receipt->id.bytes == 0 ? NULL : session_find(&gateway->sessions, receipt->client_id);
    }
    if (session == NULL) {
        gateway->counts.receipts_unheard++;
        return;
    }
    if (!receipts_want(session->receipts_mask, receipt->status)) {
        return;
    }
    char buffer[REPLY_BYTES_MAX];
    struct text text = text_in(buffer, sizeof buffer);
    reply_receipt(&text, seq, receipt->id, receipt->status, receipt->code, receipt->reason);
    (void)clients_tell(gateway, session, text_span(&text));
}

static void count_stage(struct gateway *gateway, struct span queue, enum receipt_status status)
{
    static const enum counts_stage stages[RECEIPT_STATUS_COUNT] = {
        [RECEIPT_ACCEPTED] = COUNTS_ACCEPTED, [RECEIPT_QUEUED] = COUNTS_QUEUED, [RECEIPT_REJECTED] = COUNTS_DROPPED};
    size_t index = routes_queue_index(&gateway->routes, queue);
    gateway->counts.messages[index < gateway->routes.queue_count ? index : COUNTS_ROUTE_OTHER][stages[status]]++;
}

static void on_receipt(void *context, const struct outbox_receipt *receipt)
{
    count_stage(context, receipt->queue, receipt->status);
    const struct receipt told = {
        .client_id = receipt->client_id,
        .id = receipt->id,
        .status = receipt->status,
        .code = receipt->code,
        .reason = receipt->reason,
    };
    const struct source source = {.known = true, .origin = receipt->origin, .name = receipt->name};
    tell(context, &source, &told);
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

/* What becomes of a message behind the queue is the processor's word; `accepted` and `queued` are the gateway's own,
 * and from elsewhere they could come after `stored`. */
static bool is_processors_word(enum receipt_status status)
{
    switch (status) {
    case RECEIPT_STORED:
    case RECEIPT_REJECTED:
    case RECEIPT_DEAD:
        return true;
    case RECEIPT_ACCEPTED:
    case RECEIPT_QUEUED:
        break;
    }
    return false;
}

static void settle_and_tell(struct gateway *gateway, const struct receipt *receipt)
{
    struct source source = {.known = false};
    char buffer[OUTBOX_ID_BYTES_MAX];
    struct text made = text_in(buffer, sizeof buffer);
    uint64_t number = 0;
    source.known =
        outbox_settle(gateway->outbox, receipt->client_id, receipt->ref, &source.origin, &number) == OUTBOX_REF_OURS;
    if (source.known && number > 0) {
        outbox_write_id(gateway->outbox, &made, number);
        source.name = text_span(&made);
    }
    if (!source.known) {
        outbox_settle_earlier(gateway->outbox, receipt->client_id, receipt->id);
    }
    tell(gateway, &source, receipt);
}

static void on_receipts(void *context, struct span body)
{
    struct gateway *gateway = context;
    struct receipt_reader reader;
    uint64_t refused_count = 0;
    bool has_more = true;
    receipt_reader_begin(&reader, body);
    while (has_more) {
        struct receipt receipt;
        switch (receipt_read(&reader, &receipt)) {
        case RECEIPT_READ_ONE:
            if (is_processors_word(receipt.status)) {
                settle_and_tell(gateway, &receipt);
            } else {
                refused_count++;
            }
            break;
        case RECEIPT_READ_END:
            has_more = false;
            break;
        case RECEIPT_READ_BAD:
            log_event(&gateway->log, LOG_WARN, "receipts_malformed", LOG_U64("bytes", body.bytes),
                      LOG_U64("offset", reader.offset));
            has_more = false;
            break;
        }
    }
    if (refused_count > 0) {
        log_event(&gateway->log, LOG_WARN, "receipts_refused", LOG_U64("receipts", refused_count),
                  LOG_TEXT("reason", "a processor says stored, rejected or dead, and nothing else"));
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
        gateway->counts.down_refused++;
        log_event(&gateway->log, LOG_WARN, "downlink_message_refused", LOG_SPAN("client", session_client_id(session)),
                  LOG_U64("bytes", body.bytes), LOG_TEXT("reason", fault));
        return;
    }
    if (log_messages(&gateway->log)) {
        log_event(&gateway->log, LOG_INFO, "message_down", LOG_SPAN("client", session_client_id(session)),
                  LOG_U64("bytes", body.bytes));
    }
    struct span client_id = session_client_id(session);
    if (clients_tell(gateway, session, body)) {
        gateway->counts.down_delivered++;
    } else {
        gateway->counts.down_lost++;
        log_event(&gateway->log, LOG_INFO, "downlink_message_lost", LOG_SPAN("client", client_id),
                  LOG_U64("bytes", body.bytes), LOG_TEXT("reason", "its connection is closing"));
    }
}

const struct outbox_handler answers_outbox_handler = {.on_receipt = on_receipt, .on_room = on_room};
const struct downlink_handler answers_downlink_handler = {
    .on_settled = on_settled, .on_message = on_message, .on_receipts = on_receipts};
