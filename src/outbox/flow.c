/* SPDX-License-Identifier: MIT */
/* Each turn does, in this order: what the window has done with is released in the spool; what waits for too long in the
 * window is spilled; the oldest are dropped where the disk is nearly full and the rule says so; the window is filled
 * from the spool; and the spool writes. */
#include "flow.h"

#include "arena.h"
#include "check.h"
#include "log.h"
#include "number.h"
#include "parcel.h"
#include "port.h"
#include "spool_format.h"

enum { RECORD_ROUND_BYTES = SPOOL_RECORD_HEADER_BYTES + SPOOL_RECORD_ALIGN_BYTES };

static void on_found(void *context, struct span payload)
{
    struct flow *flow = context;
    flow->handler->on_found(flow->context, payload);
}

/* Of a message that is in the window, the broker may have confirmed it meanwhile: then more is known than that it is on
 * the disk, and was told. Both the window's entries and what is told go by rising sequences, so one place is kept. */
static bool is_confirmed(struct flow *flow, uint64_t sequence)
{
    const struct window *window = flow->window;
    if (sequence >= spool_read_sequence(flow->spool)) {
        return false; /* it has not come to the window */
    }
    if (flow->accepted_sequence < window->front_sequence) {
        flow->accepted_sequence = window->front_sequence;
    }
    for (; flow->accepted_sequence < flow->spilled_sequence; flow->accepted_sequence++) {
        const struct window_entry *entry = window_find(window, flow->accepted_sequence);
        if (entry != NULL && entry->spool_sequence >= sequence) {
            return entry->spool_sequence != sequence || entry->is_confirmed;
        }
    }
    return true;
}

static void on_synced(void *context, uint64_t sequence, struct span payload)
{
    struct flow *flow = context;
    if (!is_confirmed(flow, sequence)) {
        flow->accepted_count++;
        flow->handler->on_accepted(flow->context, payload);
    }
}

static const struct spool_handler SPOOL_HANDLER = {.on_found = on_found, .on_synced = on_synced};

void flow_init(struct flow *flow, struct arena *arena, struct port *port, struct log *log,
               const struct outbox_spool *spool, size_t parcel_bytes_max, struct window *window,
               const struct flow_handler *handler, void *context)
{
    struct spool *taken = NULL;
    if (spool != NULL) {
        const struct spool_options options = {.directory = spool->directory,
                                              .bytes_max = spool->bytes_max,
                                              .segment_bytes = spool->segment_bytes,
                                              .payload_bytes_max = parcel_bytes_max,
                                              .stage_bytes = spool->stage_bytes};
        taken = spool_init(arena, port, log, &options, &SPOOL_HANDLER, flow);
    }
    if (arena_measuring(arena)) {
        return;
    }
    *flow = (struct flow){.port = port,
                          .log = log,
                          .window = window,
                          .spool = taken,
                          .handler = handler,
                          .context = context,
                          .drops_oldest = spool != NULL && spool->drops_oldest,
                          .stage_bytes = spool != NULL ? spool->stage_bytes : 0,
                          .next_number = 1,
                          .spilled_sequence = 1,
                          .accepted_sequence = 1};
}

bool flow_open(struct flow *flow, struct text *error)
{
    if (flow->spool == NULL) {
        return true;
    }
    if (!spool_open(flow->spool, error)) {
        return false;
    }
    /* What an earlier start left comes first: its numbers are the lowest. */
    flow->number_offset = 1 - spool_read_sequence(flow->spool);
    flow->next_number = spool_own_sequence(flow->spool) + flow->number_offset;
    if (spool_read_sequence(flow->spool) < spool_own_sequence(flow->spool)) {
        flow->route = FLOW_OVER_DISK;
    }
    return true;
}

/* ---- between window and spool ---- */

/* Copies what the window holds and the spool does not, as far as there is room. True: all of it. */
static bool spill(struct flow *flow)
{
    struct window *window = flow->window;
    if (flow->spilled_sequence < window->front_sequence) {
        flow->spilled_sequence = window->front_sequence;
    }
    for (; flow->spilled_sequence < window->take_sequence; flow->spilled_sequence++) {
        struct window_entry *entry = window_find(window, flow->spilled_sequence);
        if (entry->is_confirmed) {
            continue;
        }
        struct span parcel = window_record(window, entry);
        if (!spool_has_room(flow->spool, SPOOL_RECORD_BYTES(parcel.bytes))) {
            return false;
        }
        uint8_t *payload = spool_reserve(flow->spool, parcel.bytes);
        CHECK(payload != NULL);
        memcpy(payload, parcel.data, parcel.bytes);
        entry->spool_sequence = spool_append(flow->spool, parcel.bytes);
        spool_pass_all(flow->spool);
    }
    return true;
}

static void go_over_disk(struct flow *flow)
{
    flow->route = FLOW_OVER_DISK;
    flow->number_offset = flow->next_number - spool_read_sequence(flow->spool);
}

static bool is_half_free(const struct window *window)
{
    return window_depth(window) <= window->entry_count_max / 2 && window_bytes(window) <= window->bytes_max / 2;
}

static void note_progress(struct flow *flow, uint64_t now_ms)
{
    if (window_depth(flow->window) == 0) {
        flow->progress_ms = now_ms;
    }
}

/* When a message was taken, in the monotonic time of this start, by the clock on the wall. That may have jumped, as on
 * a box that learns the time in an outage; but what this start put there is not older than its spooling. */
static uint64_t taken_ms(const struct flow *flow, const struct parcel *parcel, bool is_own, uint64_t now_ms)
{
    int64_t wall_age_ms = flow->port->wall_ms(flow->port->context) - parcel->received_wall_ms;
    uint64_t age_ms = wall_age_ms > 0 ? (uint64_t)wall_age_ms : 0;
    return now_ms - (is_own ? number_smaller(age_ms, now_ms - flow->begun.ms) : age_ms);
}

/* Moves one message from the spool to the window; false when there is none, or no room. */
static bool move_one(struct flow *flow, uint64_t now_ms)
{
    struct window *window = flow->window;
    struct span payload;
    struct parcel parcel;
    uint64_t sequence;
    switch (spool_peek(flow->spool, &sequence, &payload)) {
    case SPOOL_NEXT_LATER:
        return false;
    case SPOOL_NEXT_NONE:
        if (is_half_free(window)) {
            flow->route = FLOW_THROUGH_MEMORY;
        }
        return false;
    case SPOOL_NEXT_MESSAGE:
        break;
    }
    if (!parcel_open(payload, &parcel)) {
        spool_pass_lost(flow->spool, "it is whole and no message: a fault of the program, please report it");
        return true;
    }
    uint8_t *into = window_reserve(window, payload.bytes);
    if (into == NULL) {
        return false;
    }
    memcpy(into, payload.data, payload.bytes);
    bool is_own = sequence >= spool_own_sequence(flow->spool);
    if (!is_own) {
        parcel_forget_origin(into);
    }
    note_progress(flow, now_ms);
    const struct window_entry entry = {.record_bytes = payload.bytes,
                                       .number = sequence + flow->number_offset,
                                       .spool_sequence = sequence,
                                       .taken_ms = taken_ms(flow, &parcel, is_own, now_ms)};
    window_push(window, &entry);
    spool_pass(flow->spool);
    flow->spilled_sequence = window->take_sequence;
    return true;
}

static void refill(struct flow *flow, uint64_t now_ms)
{
    while (flow->route == FLOW_OVER_DISK && move_one(flow, now_ms)) {
    }
}

/* What left the window's front is done with. */
static void release(struct flow *flow)
{
    const struct window_entry *front = window_front(flow->window);
    bool is_spooled = front != NULL && front->spool_sequence != 0;
    spool_release(flow->spool, (is_spooled ? front->spool_sequence : spool_read_sequence(flow->spool)) - 1);
}

/* Makes room by the rule drop-oldest. True: there is more to be dropped. */
static bool drop(struct flow *flow)
{
    for (size_t count = 0; spool_is_filling(flow->spool); count++) {
        const struct window_entry *front = window_front(flow->window);
        if (front == NULL || !spool_is_on_disk(flow->spool, front->spool_sequence)) {
            return false; /* it is on its way from the disk, or to it: then nothing older takes room there */
        }
        if (count == FLOW_DROPS_MAX) {
            return true;
        }
        bool is_earlier = front->spool_sequence < spool_own_sequence(flow->spool);
        flow->dropped_count++;
        flow->handler->on_dropped(flow->context, window_record(flow->window, front), front->is_published || is_earlier);
        window_drop(flow->window);
        release(flow);
    }
    return false;
}

/* ---- the front ---- */

bool flow_has_room(struct flow *flow, size_t count, size_t bytes)
{
    if (flow->route == FLOW_THROUGH_MEMORY) {
        if (window_has_room(flow->window, count, bytes)) {
            return true;
        }
        flow->is_short = flow->spool != NULL && !spill(flow);
        if (flow->spool != NULL && !flow->is_short) {
            go_over_disk(flow);
        }
    }
    if (flow->route == FLOW_OVER_DISK && spool_has_room(flow->spool, bytes)) {
        return true;
    }
    flow->refused_bytes = bytes;
    return false;
}

bool flow_is_roomy(const struct flow *flow)
{
    const struct window *window = flow->window;
    if (flow->route == FLOW_THROUGH_MEMORY && window_depth(window) <= window->entry_count_max * 3 / 4 &&
        window_bytes(window) <= window->bytes_max - window->bytes_max / 4) {
        return true;
    }
    bool is_possible =
        flow->route == FLOW_OVER_DISK || (flow->spool != NULL && flow->spilled_sequence == window->take_sequence);
    return is_possible &&
           spool_has_room(flow->spool, (size_t)number_larger(flow->refused_bytes, flow->stage_bytes / 2));
}

uint8_t *flow_reserve(struct flow *flow, size_t parcel_bytes)
{
    size_t bytes = parcel_bytes + RECORD_ROUND_BYTES;
    if (flow->route == FLOW_THROUGH_MEMORY) {
        uint8_t *at = window_reserve(flow->window, parcel_bytes);
        if (at != NULL || !flow_has_room(flow, 1, bytes)) {
            return at;
        }
    }
    /* Not spool_has_room: of what was promised, the end of the stage's ring may be unused by now. */
    uint8_t *at = spool_disk_has_room(flow->spool, bytes) ? spool_reserve(flow->spool, parcel_bytes) : NULL;
    if (at == NULL) {
        flow->refused_bytes = bytes;
    }
    return at;
}

void flow_push(struct flow *flow, size_t parcel_bytes, uint64_t now_ms)
{
    uint64_t number = flow->next_number++;
    if (flow->route == FLOW_OVER_DISK) {
        uint64_t sequence = spool_append(flow->spool, parcel_bytes);
        CHECK(sequence + flow->number_offset == number);
        return;
    }
    note_progress(flow, now_ms);
    const struct window_entry entry = {.record_bytes = parcel_bytes, .number = number, .taken_ms = now_ms};
    window_push(flow->window, &entry);
}

/* ---- the turn ---- */

/* Returns when the answer may be another. */
static uint64_t decide_spilling(struct flow *flow, uint64_t now_ms, bool is_well)
{
    uint64_t patience_ms = is_well ? FLOW_STALLED_MS : FLOW_DOWN_MS;
    if (window_depth(flow->window) == 0) {
        flow->is_spilling = false;
        return UINT64_MAX;
    }
    uint64_t stalled_ms = now_ms - flow->progress_ms;
    flow->is_spilling = stalled_ms >= patience_ms || (flow->is_spilling && stalled_ms >= FLOW_DOWN_MS);
    return flow->is_spilling ? UINT64_MAX : flow->progress_ms + patience_ms;
}

static void tell_begin(struct flow *flow, uint64_t now_ms, bool is_well)
{
    const char *cause =
        is_well ? "the broker takes messages more slowly than they come" : "the broker takes no messages";
    if (spool_read_sequence(flow->spool) < spool_own_sequence(flow->spool)) {
        cause = "an earlier start left them";
    }
    flow->begun.ms = now_ms;
    flow->begun.sequence = spool_unreleased_sequence(flow->spool);
    flow->begun.accepted_count = flow->accepted_count;
    flow->begun.dropped_count = flow->dropped_count;
    log_event(flow->log, LOG_WARN, "spool_begin", LOG_U64("messages", spool_message_count(flow->spool)),
              LOG_TEXT("cause", cause));
}

static void tell_end(struct flow *flow, uint64_t now_ms)
{
    log_event(flow->log, LOG_INFO, "spool_drained",
              LOG_U64("accepted", flow->accepted_count - flow->begun.accepted_count),
              LOG_U64("dropped", flow->dropped_count - flow->begun.dropped_count),
              LOG_U64("duration_ms", now_ms - flow->begun.ms));
}

static void tell_left(struct flow *flow, uint64_t now_ms)
{
    const struct spool_counters *counters = spool_counters(flow->spool);
    flow->tell_ms = now_ms + FLOW_TELL_MS;
    log_event(flow->log, LOG_INFO, "spool_draining", LOG_U64("messages", counters->message_count),
              LOG_U64("bytes", counters->used_bytes), LOG_U64("oldest_ms", flow_oldest_ms(flow, now_ms)));
}

static void tell_of_spool(struct flow *flow, uint64_t now_ms, bool is_well)
{
    bool has_messages = spool_message_count(flow->spool) > 0;
    if (has_messages && !flow->is_begun) {
        tell_begin(flow, now_ms, is_well);
    } else if (!has_messages && flow->is_begun) {
        tell_end(flow, now_ms);
    }
    flow->is_begun = has_messages;
    flow->is_draining =
        has_messages && is_well && !flow->is_spilling && spool_unreleased_sequence(flow->spool) > flow->begun.sequence;
    if (!flow->is_draining) {
        flow->tell_ms = now_ms;
    } else if (now_ms >= flow->tell_ms) {
        tell_left(flow, now_ms);
    }
}

uint64_t flow_turn(struct flow *flow, uint64_t now_ms, bool is_well)
{
    if (flow->spool == NULL) {
        return UINT64_MAX;
    }
    release(flow);
    uint64_t due_ms = decide_spilling(flow, now_ms, is_well);
    flow->is_short = flow->is_short && flow->route == FLOW_THROUGH_MEMORY && !is_half_free(flow->window);
    if (flow->route == FLOW_THROUGH_MEMORY && (flow->is_spilling || flow->is_securing || flow->is_short)) {
        (void)spill(flow);
    }
    if (flow->drops_oldest && drop(flow)) {
        due_ms = now_ms;
    }
    refill(flow, now_ms);
    tell_of_spool(flow, now_ms, is_well);
    return number_smaller(due_ms, spool_turn(flow->spool, now_ms));
}

bool flow_on_job(struct flow *flow, const struct port_job *job, uint64_t now_ms)
{
    return flow->spool != NULL && spool_on_job(flow->spool, job, now_ms);
}

/* ---- the end ---- */

bool flow_is_empty(const struct flow *flow)
{
    return window_depth(flow->window) == 0 &&
           (flow->route == FLOW_THROUGH_MEMORY || spool_unread_count(flow->spool) == 0);
}

uint64_t flow_oldest_ms(const struct flow *flow, uint64_t now_ms)
{
    const struct window_entry *front = window_front(flow->window);
    if (front != NULL) {
        return now_ms - front->taken_ms;
    }
    bool is_on_disk = flow->is_begun && spool_unread_count(flow->spool) > 0;
    return is_on_disk ? now_ms - flow->begun.ms : 0;
}

void flow_secure(struct flow *flow)
{
    flow->is_securing = true;
}

bool flow_is_secure(const struct flow *flow)
{
    if (flow->spool == NULL || flow_is_empty(flow)) {
        return flow_is_empty(flow);
    }
    bool is_spilled =
        flow->route == FLOW_OVER_DISK ||
        number_larger(flow->spilled_sequence, flow->window->front_sequence) == flow->window->take_sequence;
    return is_spilled && spool_counters(flow->spool)->unsynced_count == 0;
}

void flow_close(struct flow *flow)
{
    if (flow->spool != NULL) {
        release(flow);
        spool_close(flow->spool);
    }
}

bool flow_is_closed(const struct flow *flow)
{
    return flow->spool == NULL || spool_is_closed(flow->spool);
}

void flow_release(struct flow *flow)
{
    if (flow->spool != NULL) {
        spool_release_files(flow->spool);
    }
}
