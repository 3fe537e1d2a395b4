/* SPDX-License-Identifier: MIT */
/* A row of states, each left when what it waits for has come or its time is over; drain_turn walks on as far as it
 * can. Client k of n is closed when k/n of the telling time has passed, so a few leave at once and many evenly. */
#include "drain.h"

#include "check.h"
#include "frame.h"
#include "gateway.h"

static const bool allowed[DRAIN_STATE_COUNT][DRAIN_STATE_COUNT] = {
    [DRAIN_IDLE] = {[DRAIN_CONFIRMING] = true},  [DRAIN_CONFIRMING] = {[DRAIN_TELLING] = true},
    [DRAIN_TELLING] = {[DRAIN_FLUSHING] = true}, [DRAIN_FLUSHING] = {[DRAIN_CLOSING] = true},
    [DRAIN_CLOSING] = {[DRAIN_DONE] = true},
};

static void move(struct gateway *gateway, enum drain_state state)
{
    struct drain *drain = &gateway->drain;
    CHECK(allowed[drain->state][state]);
    drain->state = state;
    drain->state_ms = gateway->now_ms;
}

void drain_begin(struct gateway *gateway)
{
    move(gateway, DRAIN_CONFIRMING);
    gateway->drain.begin_ms = gateway->now_ms;
    server_stop_accepting(&gateway->server);
    log_event(&gateway->log, LOG_INFO, "drain_begin", LOG_U64("clients", gateway->sessions.count),
              LOG_U64("outbox_messages", outbox_counters(gateway->outbox)->depth_count));
}

static void begin_telling(struct gateway *gateway)
{
    struct drain *drain = &gateway->drain;
    move(gateway, DRAIN_TELLING);
    uint64_t used_ms = gateway->now_ms - drain->begin_ms;
    uint64_t whole_ms = gateway->settings->drain_ms;
    drain->tell_ms = whole_ms > used_ms ? whole_ms - used_ms : 0;
    drain->tell_count = gateway->server.open_count;
}

/* Closes the clients that are due. True when none is left. */
static bool tell_clients(struct gateway *gateway)
{
    struct drain *drain = &gateway->drain;
    uint64_t elapsed_ms = gateway->now_ms - drain->state_ms;
    uint64_t due_count = drain->tell_count;
    if (elapsed_ms < drain->tell_ms) {
        due_count = drain->tell_count * elapsed_ms / drain->tell_ms + 1;
    }
    while (drain->told_count < due_count) {
        struct connection_handle connection = server_next(&gateway->server, drain->last);
        if (connection.generation == 0) {
            return true;
        }
        connection_close(&gateway->server, connection, FRAME_CLOSE_SERVICE_RESTART,
                         span_text("the gateway is restarting"));
        drain->last = connection;
        drain->told_count++;
    }
    return server_next(&gateway->server, drain->last).generation == 0;
}

static void begin_closing(struct gateway *gateway)
{
    move(gateway, DRAIN_CLOSING);
    uint64_t left_count = outbox_counters(gateway->outbox)->depth_count;
    if (left_count > 0 && outbox_is_secure(gateway->outbox)) {
        log_event(&gateway->log, LOG_INFO, "drain_kept", LOG_U64("messages", left_count),
                  LOG_TEXT("where", "in the spool; the next start sends them"));
    } else if (left_count > 0) {
        // Their clients were told neither `accepted` nor `queued`, and will send them again.
        log_event(&gateway->log, LOG_WARN, "drain_unconfirmed", LOG_U64("messages", left_count));
    }
    outbox_close(gateway->outbox, gateway->now_ms);
    downlink_close(&gateway->downlink, gateway->now_ms);
}

/* Every message has come as far as it can for now: to the broker, or while that is away to the disk. */
static bool is_settled(const struct gateway *gateway)
{
    return outbox_empty(gateway->outbox) || (!outbox_ready(gateway->outbox) && outbox_is_secure(gateway->outbox));
}

uint64_t drain_turn(struct gateway *gateway)
{
    struct drain *drain = &gateway->drain;
    uint64_t elapsed_ms = gateway->now_ms - drain->state_ms;
    uint64_t confirm_ms = gateway->settings->drain_ms / DRAIN_CONFIRM_PART;
    switch (drain->state) {
    case DRAIN_IDLE:
        return UINT64_MAX;
    case DRAIN_CONFIRMING:
        if (is_settled(gateway) || elapsed_ms >= confirm_ms) {
            begin_telling(gateway);
            return gateway->now_ms;
        }
        if (!drain->secured && !outbox_ready(gateway->outbox)) {
            drain->secured = true;
            outbox_secure(gateway->outbox); // in the next turn, so that the clients hear `accepted`
            return gateway->now_ms;
        }
        return drain->state_ms + confirm_ms;
    case DRAIN_TELLING:
        if (!tell_clients(gateway)) {
            // The next client is due after the next whole step; the clock's millisecond is fine enough.
            uint64_t due_ms = drain->state_ms + drain->told_count * drain->tell_ms / drain->tell_count;
            return due_ms > gateway->now_ms ? due_ms : gateway->now_ms + 1;
        }
        move(gateway, DRAIN_FLUSHING);
        outbox_secure(gateway->outbox);
        return gateway->now_ms;
    case DRAIN_FLUSHING:
        if (!outbox_is_secure(gateway->outbox) && elapsed_ms < DRAIN_FLUSH_MS) {
            return drain->state_ms + DRAIN_FLUSH_MS;
        }
        begin_closing(gateway);
        return gateway->now_ms;
    case DRAIN_CLOSING: {
        bool closed = outbox_closed(gateway->outbox) && downlink_closed(&gateway->downlink) &&
                      gateway->server.connection_count == 0;
        if (!closed && elapsed_ms < DRAIN_CLOSE_MS) {
            return drain->state_ms + DRAIN_CLOSE_MS;
        }
        if (!closed) {
            // Asked a second time, the links wait for no answer.
            outbox_close(gateway->outbox, gateway->now_ms);
            downlink_close(&gateway->downlink, gateway->now_ms);
        }
        move(gateway, DRAIN_DONE);
        log_event(&gateway->log, LOG_INFO, "drain_end", LOG_U64("duration_ms", gateway->now_ms - drain->begin_ms));
        return gateway->now_ms;
    }
    case DRAIN_DONE:
    case DRAIN_STATE_COUNT:
        break;
    }
    return gateway->now_ms;
}
