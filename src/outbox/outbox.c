/* SPDX-License-Identifier: MIT */
/* Method: a message is written once, as the queue's body, into the window's bytes; the uplink publishes it from there,
 * and its confirm becomes the receipt. This file is the front: taking, room, refs and counters. */
#include "outbox.h"

#include "arena.h"
#include "check.h"
#include "envelope.h"
#include "log.h"
#include "repeats.h"
#include "text.h"
#include "uplink.h"
#include "window.h"

struct outbox {
    struct port *port;
    struct log *log;
    struct outbox_options options;
    const struct outbox_handler *handler;
    void *context;
    struct outbox_counters counters;
    struct window window;
    struct uplink uplink;
    struct repeats told;
    bool is_room_wanted; /* someone was refused */
};

_Static_assert(ENVELOPE_BODY_OVERHEAD_BYTES_MAX + CLIENT_ID_BYTES_MAX + MESSAGE_ID_BYTES_MAX + MESSAGE_TYPE_BYTES_MAX <=
                   OUTBOX_OVERHEAD_BYTES_MAX,
               "what has_room reckons with is enough");

static void on_confirmed(void *context, struct window *window, const struct window_entry *entry)
{
    struct outbox *outbox = context;
    outbox->counters.confirmed_count++;
    const struct outbox_receipt receipt = {.client_id = window_client(window, entry),
                                           .id = window_id(window, entry),
                                           .origin = entry->origin,
                                           .sequence = window_sequence(window, entry),
                                           .status = RECEIPT_QUEUED};
    outbox->handler->on_receipt(outbox->context, &receipt);
}

struct outbox *outbox_init(struct arena *arena, struct port *port, struct log *log,
                           const struct outbox_options *options, const struct outbox_handler *handler, void *context)
{
    struct outbox *outbox = arena_take(arena, "outbox", 1, sizeof *outbox);
    struct window unused_window;
    struct uplink unused_uplink;
    struct window *window = outbox == NULL ? &unused_window : &outbox->window;
    struct uplink *uplink = outbox == NULL ? &unused_uplink : &outbox->uplink;
    window_init(window, arena, options->message_count_max, options->bytes_max,
                options->content_bytes_max + OUTBOX_OVERHEAD_BYTES_MAX, options->window_count_max);
    uplink_init(uplink, arena, port, log, options, window, outbox == NULL ? NULL : &outbox->counters, on_confirmed,
                outbox);
    if (arena_measuring(arena)) {
        return NULL;
    }
    outbox->port = port;
    outbox->log = log;
    outbox->options = *options;
    outbox->handler = handler;
    outbox->context = context;
    return outbox;
}

void outbox_release(struct outbox *outbox)
{
    amqp_link_release(outbox->uplink.link);
}

void outbox_start(struct outbox *outbox, uint64_t now_ms)
{
    uplink_start(&outbox->uplink, outbox->port, now_ms);
}

void outbox_on_event(struct outbox *outbox, uint32_t ready, uint64_t now_ms)
{
    outbox->uplink.now_ms = now_ms;
    amqp_link_on_event(outbox->uplink.link, ready, now_ms);
}

bool outbox_on_job(struct outbox *outbox, const struct port_job *job, uint64_t now_ms)
{
    return amqp_link_on_job(outbox->uplink.link, job, now_ms);
}

static bool is_quarter_free(const struct outbox *outbox)
{
    const struct window *window = &outbox->window;
    return window_depth(window) <= window->entry_count_max - window->entry_count_max / 4 &&
           window_bytes(window) <= window->bytes_max - window->bytes_max / 4;
}

uint64_t outbox_turn(struct outbox *outbox, uint64_t now_ms)
{
    if (outbox->is_room_wanted && is_quarter_free(outbox)) {
        outbox->is_room_wanted = false;
        if (outbox->handler->on_room != NULL) {
            outbox->handler->on_room(outbox->context);
        }
    }
    return uplink_turn(&outbox->uplink, now_ms);
}

bool outbox_has_room(struct outbox *outbox, size_t message_count, size_t content_bytes)
{
    bool has_room =
        window_has_room(&outbox->window, message_count, content_bytes + message_count * OUTBOX_OVERHEAD_BYTES_MAX);
    outbox->is_room_wanted = outbox->is_room_wanted || !has_room;
    return has_room;
}

static uint8_t *append(uint8_t *at, struct span span)
{
    if (span.bytes > 0) {
        memcpy(at, span.data, span.bytes);
    }
    return at + span.bytes;
}

void outbox_write_id(const struct outbox *outbox, struct text *text, uint64_t sequence)
{
    uplink_write_id(&outbox->uplink, text, sequence);
}

static void log_taken(struct outbox *outbox, const struct outbox_message *message)
{
    char buffer[OUTBOX_ID_BYTES_MAX];
    struct text made = text_in(buffer, sizeof buffer);
    if (message->id.bytes == 0) {
        outbox_write_id(outbox, &made, outbox->window.take_sequence);
    }
    log_event(outbox->log, LOG_INFO, "message_taken", LOG_SPAN("client", message->client_id),
              LOG_SPAN("id", message->id.bytes > 0 ? message->id : text_span(&made)),
              LOG_U64("seq", message->origin.seq), LOG_SPAN("type", message->type));
}

enum outbox_taken outbox_take(struct outbox *outbox, const struct outbox_message *message, uint64_t now_ms)
{
    CHECK(message->queue_index < outbox->options.queue_count);
    CHECK(message->content.bytes <= outbox->options.content_bytes_max);
    size_t bytes_max = message->content.bytes + OUTBOX_OVERHEAD_BYTES_MAX;
    uint8_t *start = window_reserve(&outbox->window, bytes_max);
    if (start == NULL) {
        outbox->counters.refused_count++;
        outbox->is_room_wanted = true;
        return OUTBOX_FULL;
    }
    uint8_t *body_start = append(append(append(start, message->client_id), message->id), message->type);
    const struct envelope_body body = {.client_id = message->client_id,
                                       .type = message->type,
                                       .content = message->content,
                                       .id = message->id,
                                       .gateway = span_text(outbox->options.gateway_id),
                                       .received_unix_ms = message->received_wall_ms,
                                       .has_received_at = true};
    struct text text = text_in(body_start, bytes_max - (size_t)(body_start - start));
    envelope_write_body(&text, &body);
    CHECK(!text.truncated);
    const struct window_entry entry = {.body_bytes = (uint32_t)text.used_bytes,
                                       .client_bytes = (uint8_t)message->client_id.bytes,
                                       .id_bytes = (uint8_t)message->id.bytes,
                                       .type_bytes = (uint8_t)message->type.bytes,
                                       .queue_index = message->queue_index,
                                       .origin = message->origin,
                                       .received_wall_ms = message->received_wall_ms,
                                       .taken_ms = now_ms};
    if (log_messages(outbox->log)) {
        log_taken(outbox, message);
    }
    window_push(&outbox->window, &entry, (size_t)(body_start - start) + text.used_bytes);
    outbox->counters.taken_count++;
    uint32_t depth_count = (uint32_t)window_depth(&outbox->window);
    if (depth_count > outbox->counters.depth_peak_count) {
        outbox->counters.depth_peak_count = depth_count;
    }
    return OUTBOX_TAKEN;
}

enum outbox_ref outbox_settle(struct outbox *outbox, struct span client_id, struct span ref,
                              struct outbox_origin *origin, uint64_t *sequence)
{
    if (!uplink_read_ref(&outbox->uplink, ref, sequence, origin)) {
        return OUTBOX_REF_FOREIGN;
    }
    const struct window_entry *entry = window_find(&outbox->window, *sequence);
    if (entry != NULL && !span_equal(window_client(&outbox->window, entry), client_id)) {
        uint32_t times = repeats_due(&outbox->told, "ref", 0, span_of(NULL, 0));
        if (times > 0) {
            log_event(outbox->log, LOG_WARN, "receipt_ref_mismatch", LOG_SPAN("client", client_id),
                      LOG_SPAN("ref", ref), LOG_SPAN("ref_client", window_client(&outbox->window, entry)),
                      LOG_U64("times", times));
        }
        return OUTBOX_REF_FOREIGN;
    }
    window_settle(&outbox->window, *sequence, on_confirmed, outbox);
    return OUTBOX_REF_OURS;
}

bool outbox_empty(const struct outbox *outbox)
{
    return window_depth(&outbox->window) == 0;
}

uint64_t outbox_oldest_ms(const struct outbox *outbox, uint64_t now_ms)
{
    const struct window_entry *front = window_front(&outbox->window);
    return front == NULL ? 0 : now_ms - front->taken_ms;
}

bool outbox_ready(const struct outbox *outbox)
{
    return outbox->uplink.is_ready && !amqp_link_blocked(outbox->uplink.link);
}

void outbox_close(struct outbox *outbox, uint64_t now_ms)
{
    amqp_link_close(outbox->uplink.link, now_ms);
}

bool outbox_closed(const struct outbox *outbox)
{
    return amqp_link_state(outbox->uplink.link) == AMQP_LINK_DOWN;
}

const struct outbox_counters *outbox_counters(struct outbox *outbox)
{
    outbox->counters.depth_count = (uint32_t)window_depth(&outbox->window);
    outbox->counters.depth_bytes = window_bytes(&outbox->window);
    outbox->counters.in_flight_count = (uint32_t)window_in_flight(&outbox->window);
    outbox->counters.window_count = outbox->uplink.window_count;
    return &outbox->counters;
}

struct amqp_link *outbox_link(struct outbox *outbox)
{
    return outbox->uplink.link;
}
