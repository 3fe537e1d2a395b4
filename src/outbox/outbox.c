/* SPDX-License-Identifier: MIT */
/* Method: a message is packed once, with the queue's body in it, where the flow says; the uplink publishes it from the
 * window, and its confirm becomes the receipt. This file is the front: taking, room, receipts, refs and counters. */
#include "outbox.h"

#include "arena.h"
#include "check.h"
#include "envelope.h"
#include "flow.h"
#include "log.h"
#include "number.h"
#include "parcel.h"
#include "port.h"
#include "repeats.h"
#include "siphash.h"
#include "spool_format.h"
#include "text.h"
#include "uplink.h"
#include "window.h"

/* Of which messages the processor spoke that an earlier start sent and that are, perhaps, still to be sent once more:
 * `queued` of the second copy would be out of date. When it spoke of more than are remembered, none of them has one. */
struct settled {
    struct siphash_key key;
    uint64_t *hashes; /* of client and id; the first hash_max */
    size_t hash_max;
    uint64_t count; /* ever */
};

struct outbox {
    struct port *port;
    struct log *log;
    struct outbox_options options;
    const struct outbox_handler *handler;
    void *context;
    struct outbox_counters counters;
    struct window window;
    struct flow flow;
    struct uplink uplink;
    struct repeats told;
    struct settled settled;
    uint64_t first_number; /* of this start's messages; below it are those of earlier ones */
    bool is_room_wanted;   /* someone was refused */
};

enum { PARCEL_OVERHEAD_BYTES_MAX = OUTBOX_OVERHEAD_BYTES_MAX - SPOOL_RECORD_HEADER_BYTES - SPOOL_RECORD_ALIGN_BYTES };

/* As many as a start usually leaves sent and not marked: a publish window at the broker, and some that were confirmed.
 * More it was where no mark could be written, or with a larger window. */
static size_t sent_unmarked_max(const struct outbox_options *options)
{
    return options->window_count_max + SPOOL_MARK_MESSAGES;
}

static void tell(struct outbox *outbox, struct span bytes, enum receipt_status status, const char *code,
                 const char *reason)
{
    struct parcel parcel;
    CHECK(parcel_open(bytes, &parcel));
    const struct outbox_receipt receipt = {.client_id = parcel.client_id,
                                           .id = parcel_given_id(&parcel),
                                           .name = parcel.id,
                                           .queue = parcel.queue,
                                           .origin = parcel.origin,
                                           .status = status,
                                           .code = span_text(code),
                                           .reason = span_text(reason)};
    outbox->handler->on_receipt(outbox->context, &receipt);
}

/* A message that was on the disk when this start began. */
static bool is_of_earlier_start(const struct outbox *outbox, const struct window_entry *entry)
{
    return entry->spool_sequence != 0 && entry->spool_sequence < spool_own_sequence(outbox->flow.spool);
}

static uint64_t settled_hash(const struct outbox *outbox, struct span client_id, struct span id)
{
    struct siphash_key key = outbox->settled.key;
    key.words[0] ^= siphash(&key, client_id);
    return siphash(&key, id);
}

static bool is_settled(const struct outbox *outbox, struct span bytes)
{
    const struct settled *settled = &outbox->settled;
    struct parcel parcel;
    CHECK(parcel_open(bytes, &parcel));
    struct span id = parcel_given_id(&parcel);
    if (settled->count == 0 || id.bytes == 0) {
        return false;
    }
    uint64_t hash = settled_hash(outbox, parcel.client_id, id);
    bool is_found = settled->count > settled->hash_max;
    for (size_t i = 0; i < settled->count && !is_found; i++) {
        is_found = settled->hashes[i] == hash;
    }
    return is_found;
}

static void on_confirmed(void *context, struct window *window, const struct window_entry *entry)
{
    struct outbox *outbox = context;
    outbox->counters.confirmed_count++;
    flow_confirmed(&outbox->flow, outbox->uplink.now_ms);
    if (!is_of_earlier_start(outbox, entry) || !is_settled(outbox, window_record(window, entry))) {
        tell(outbox, window_record(window, entry), RECEIPT_QUEUED, "", "");
    }
}

static void on_found(void *context, struct span bytes)
{
    struct outbox *outbox = context;
    struct parcel parcel;
    if (parcel_open(bytes, &parcel)) {
        uplink_add_queue(&outbox->uplink, parcel.queue);
    }
}

static void on_accepted(void *context, struct span bytes)
{
    tell(context, bytes, RECEIPT_ACCEPTED, "", "");
}

static void on_dropped(void *context, struct span bytes, bool may_be_sent)
{
    struct outbox *outbox = context;
    struct parcel parcel;
    CHECK(parcel_open(bytes, &parcel));
    log_event(outbox->log, LOG_ERROR, "message_dropped", LOG_SPAN("client", parcel.client_id),
              LOG_SPAN("id", parcel.id), LOG_TEXT("sent", may_be_sent ? "perhaps" : "no"),
              LOG_TEXT("cause", "the spool is full, and SPOOL_FULL is drop-oldest"));
    tell(outbox, bytes, RECEIPT_REJECTED, "dropped",
         may_be_sent ? "the gateway's disk is full and this was the oldest message; it may have been sent before"
                     : "the gateway's disk is full and this was the oldest message");
}

static const struct flow_handler FLOW_HANDLER = {
    .on_found = on_found, .on_accepted = on_accepted, .on_dropped = on_dropped};

struct outbox *outbox_init(struct arena *arena, struct port *port, struct log *log,
                           const struct outbox_options *options, const struct outbox_handler *handler, void *context)
{
    struct outbox *outbox = arena_take(arena, "outbox", 1, sizeof *outbox);
    struct window unused_window;
    struct flow unused_flow;
    struct uplink unused_uplink;
    struct window *window = outbox == NULL ? &unused_window : &outbox->window;
    struct flow *flow = outbox == NULL ? &unused_flow : &outbox->flow;
    struct uplink *uplink = outbox == NULL ? &unused_uplink : &outbox->uplink;
    size_t parcel_bytes_max = options->content_bytes_max + PARCEL_OVERHEAD_BYTES_MAX;
    size_t settled_max = options->spool == NULL ? 0 : sent_unmarked_max(options);
    uint64_t *hashes = arena_take(arena, "outbox: settled before", settled_max, sizeof *hashes);
    window_init(window, arena, options->message_count_max, options->bytes_max, parcel_bytes_max,
                options->window_count_max);
    flow_init(flow, arena, port, log, options->spool, parcel_bytes_max, window, &FLOW_HANDLER, outbox);
    uplink_init(uplink, arena, port, log, options, window, outbox == NULL ? NULL : &outbox->counters, on_confirmed,
                outbox);
    if (outbox == NULL) {
        return NULL; /* the arena measures */
    }
    outbox->port = port;
    outbox->log = log;
    outbox->options = *options;
    outbox->handler = handler;
    outbox->context = context;
    outbox->first_number = 1;
    outbox->settled.hashes = hashes;
    outbox->settled.hash_max = settled_max;
    port->random(port->context, &outbox->settled.key, sizeof outbox->settled.key);
    return outbox;
}

uint64_t outbox_spool_room_bytes(const struct outbox_spool *spool, size_t content_bytes_max)
{
    size_t lost_bytes = SPOOL_RECORD_BYTES(content_bytes_max + PARCEL_OVERHEAD_BYTES_MAX) + SPOOL_RECORD_HEADER_BYTES +
                        SPOOL_SEGMENT_HEADER_BYTES;
    return spool->segment_bytes > lost_bytes
               ? spool->bytes_max / spool->segment_bytes * (spool->segment_bytes - lost_bytes)
               : 0;
}

uint64_t outbox_spool_messages(const struct outbox_spool *spool, const struct outbox_message *like, struct span queue,
                               struct span gateway_id)
{
    size_t names_bytes = like->client_id.bytes + like->type.bytes + like->id.bytes;
    size_t body_bytes = ENVELOPE_BODY_OVERHEAD_BYTES_MAX - CLIENT_ID_BYTES_MAX - MESSAGE_TYPE_BYTES_MAX -
                        MESSAGE_ID_BYTES_MAX - GATEWAY_ID_BYTES_MAX + names_bytes + gateway_id.bytes +
                        like->content.bytes;
    size_t record_bytes = SPOOL_RECORD_BYTES(PARCEL_HEAD_BYTES + queue.bytes + names_bytes + body_bytes);
    return spool->bytes_max / spool->segment_bytes *
           ((spool->segment_bytes - SPOOL_SEGMENT_HEADER_BYTES) / record_bytes);
}

bool outbox_open(struct outbox *outbox, struct text *error)
{
    bool is_open = flow_open(&outbox->flow, error);
    outbox->first_number = outbox->flow.next_number;
    return is_open;
}

void outbox_release(struct outbox *outbox)
{
    flow_release(&outbox->flow);
    amqp_link_release(outbox->uplink.link);
}

void outbox_start(struct outbox *outbox, uint64_t now_ms)
{
    uplink_start(&outbox->uplink, now_ms);
}

void outbox_on_event(struct outbox *outbox, uint32_t ready, uint64_t now_ms)
{
    outbox->uplink.now_ms = now_ms;
    amqp_link_on_event(outbox->uplink.link, ready, now_ms);
}

bool outbox_on_job(struct outbox *outbox, const struct port_job *job, uint64_t now_ms)
{
    return amqp_link_on_job(outbox->uplink.link, job, now_ms) || flow_on_job(&outbox->flow, job, now_ms);
}

uint64_t outbox_turn(struct outbox *outbox, uint64_t now_ms)
{
    uint64_t due_ms = flow_turn(&outbox->flow, now_ms, outbox_ready(outbox));
    if (outbox->is_room_wanted && flow_is_roomy(&outbox->flow)) {
        outbox->is_room_wanted = false;
        if (outbox->handler->on_room != NULL) {
            outbox->handler->on_room(outbox->context);
        }
    }
    return number_smaller(due_ms, uplink_turn(&outbox->uplink, now_ms));
}

bool outbox_has_room(struct outbox *outbox, size_t message_count, size_t content_bytes)
{
    bool has_room =
        flow_has_room(&outbox->flow, message_count, content_bytes + message_count * OUTBOX_OVERHEAD_BYTES_MAX);
    outbox->is_room_wanted = outbox->is_room_wanted || !has_room;
    return has_room;
}

void outbox_write_id(const struct outbox *outbox, struct text *text, uint64_t number)
{
    uplink_write_id(&outbox->uplink, text, number);
}

static uint64_t depth_count(const struct outbox *outbox)
{
    const struct spool *spool = outbox->flow.spool;
    return window_depth(&outbox->window) + (spool == NULL ? 0 : spool_unread_count(spool));
}

static size_t pack(const struct outbox *outbox, const struct outbox_message *message, struct span name, uint8_t *bytes,
                   size_t bytes_max)
{
    const struct parcel parcel = {.received_wall_ms = message->received_wall_ms,
                                  .origin = message->origin,
                                  .queue = outbox->options.queues[message->queue_index],
                                  .client_id = message->client_id,
                                  .type = message->type,
                                  .id = name,
                                  .is_id_made = message->id.bytes == 0};
    const struct envelope_body body = {.client_id = message->client_id,
                                       .type = message->type,
                                       .content = message->content,
                                       .id = message->id,
                                       .gateway = span_text(outbox->options.gateway_id),
                                       .received_unix_ms = message->received_wall_ms,
                                       .has_received_at = true};
    return parcel_pack(bytes, bytes_max, &parcel, &body);
}

enum outbox_taken outbox_take(struct outbox *outbox, const struct outbox_message *message, uint64_t now_ms)
{
    CHECK(message->queue_index < outbox->options.queue_count);
    CHECK(message->content.bytes <= outbox->options.content_bytes_max);
    size_t bytes_max = message->content.bytes + PARCEL_OVERHEAD_BYTES_MAX;
    uint8_t *bytes = flow_reserve(&outbox->flow, bytes_max);
    if (bytes == NULL) {
        outbox->counters.refused_count++;
        outbox->is_room_wanted = true;
        return OUTBOX_FULL;
    }
    char buffer[OUTBOX_ID_BYTES_MAX];
    struct text made = text_in(buffer, sizeof buffer);
    if (message->id.bytes == 0) {
        outbox_write_id(outbox, &made, outbox->flow.next_number);
    }
    struct span name = message->id.bytes > 0 ? message->id : text_span(&made);
    if (log_messages(outbox->log)) {
        log_event(outbox->log, LOG_INFO, "message_taken", LOG_SPAN("client", message->client_id), LOG_SPAN("id", name),
                  LOG_U64("seq", message->origin.seq), LOG_SPAN("type", message->type));
    }
    size_t parcel_bytes = pack(outbox, message, name, bytes, bytes_max);
    flow_push(&outbox->flow, parcel_bytes, now_ms);
    outbox->counters.taken_count++;
    outbox->counters.taken_bytes += SPOOL_RECORD_BYTES(parcel_bytes);
    outbox->counters.depth_peak_count = number_larger(outbox->counters.depth_peak_count, depth_count(outbox));
    return OUTBOX_TAKEN;
}

enum outbox_ref outbox_settle(struct outbox *outbox, struct span client_id, struct span ref,
                              struct outbox_origin *origin, uint64_t *number)
{
    if (!uplink_read_ref(&outbox->uplink, ref, number, origin)) {
        return OUTBOX_REF_FOREIGN;
    }
    const struct window_entry *entry = window_find_number(&outbox->window, *number);
    struct parcel parcel;
    CHECK(entry == NULL || parcel_open(window_record(&outbox->window, entry), &parcel));
    if (entry != NULL && !span_equal(parcel.client_id, client_id)) {
        uint32_t times = repeats_due(&outbox->told, "ref", 0, span_of(NULL, 0));
        if (times > 0) {
            log_event(outbox->log, LOG_WARN, "receipt_ref_mismatch", LOG_SPAN("client", client_id),
                      LOG_SPAN("ref", ref), LOG_SPAN("ref_client", parcel.client_id), LOG_U64("times", times));
        }
        return OUTBOX_REF_FOREIGN;
    }
    if (entry != NULL) {
        window_settle(&outbox->window, window_sequence(&outbox->window, entry), on_confirmed, outbox);
    }
    *number = *number < outbox->first_number ? 0 : *number;
    return OUTBOX_REF_OURS;
}

void outbox_settle_earlier(struct outbox *outbox, struct span client_id, struct span id)
{
    struct window *window = &outbox->window;
    struct settled *settled = &outbox->settled;
    if (outbox->flow.spool == NULL || id.bytes == 0) {
        return;
    }
    /* Those that were sent are the oldest; what lies far behind is not looked through at every word. */
    uint64_t sequence = window->front_sequence;
    uint64_t end = sequence + sent_unmarked_max(&outbox->options);
    struct window_entry *entry = window_find(window, sequence);
    for (; sequence < end && entry != NULL && is_of_earlier_start(outbox, entry);
         entry = window_find(window, ++sequence)) {
        struct parcel parcel;
        CHECK(parcel_open(window_record(window, entry), &parcel));
        if (!entry->is_confirmed && span_equal(parcel.client_id, client_id) &&
            span_equal(parcel_given_id(&parcel), id)) {
            entry->is_published = true; /* then, if not by this start */
            window_settle(window, sequence, on_confirmed, outbox);
            return;
        }
    }
    bool is_more_to_come = spool_read_sequence(outbox->flow.spool) < spool_own_sequence(outbox->flow.spool);
    if (is_more_to_come || (entry != NULL && is_of_earlier_start(outbox, entry))) {
        if (settled->count < settled->hash_max) {
            settled->hashes[settled->count] = settled_hash(outbox, client_id, id);
        }
        settled->count++;
    }
}

bool outbox_empty(const struct outbox *outbox)
{
    return flow_is_empty(&outbox->flow);
}

void outbox_secure(struct outbox *outbox)
{
    flow_secure(&outbox->flow);
}

bool outbox_is_secure(const struct outbox *outbox)
{
    return flow_is_secure(&outbox->flow);
}

uint64_t outbox_oldest_ms(const struct outbox *outbox, uint64_t now_ms)
{
    return flow_oldest_ms(&outbox->flow, now_ms);
}

bool outbox_ready(const struct outbox *outbox)
{
    return outbox->uplink.is_ready && !amqp_link_blocked(outbox->uplink.link);
}

void outbox_close(struct outbox *outbox, uint64_t now_ms)
{
    flow_close(&outbox->flow);
    amqp_link_close(outbox->uplink.link, now_ms);
}

bool outbox_closed(const struct outbox *outbox)
{
    return amqp_link_state(outbox->uplink.link) == AMQP_LINK_DOWN && flow_is_closed(&outbox->flow);
}

static enum outbox_spool_state spool_state(const struct outbox *outbox)
{
    if (!outbox->flow.is_begun) {
        return OUTBOX_SPOOL_EMPTY;
    }
    return outbox->flow.is_draining ? OUTBOX_SPOOL_DRAINING : OUTBOX_SPOOL_WAITING;
}

const struct outbox_counters *outbox_counters(struct outbox *outbox)
{
    outbox->counters.accepted_count = outbox->flow.accepted_count;
    outbox->counters.dropped_count = outbox->flow.dropped_count;
    outbox->counters.depth_count = depth_count(outbox);
    outbox->counters.depth_bytes = window_bytes(&outbox->window);
    outbox->counters.in_flight_count = (uint32_t)window_in_flight(&outbox->window);
    outbox->counters.window_count = outbox->uplink.window_count;
    outbox->counters.spool_state = spool_state(outbox);
    return &outbox->counters;
}

const struct spool_counters *outbox_spool_counters(struct outbox *outbox)
{
    return outbox->flow.spool == NULL ? NULL : spool_counters(outbox->flow.spool);
}

struct amqp_link *outbox_link(struct outbox *outbox)
{
    return outbox->uplink.link;
}
