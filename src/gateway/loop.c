/* SPDX-License-Identifier: MIT */
/* One turn: wait, handle what came, and only then write, each side once: what clients sent goes to the broker in this
 * turn, and what the broker confirmed goes to the clients in this turn, each with one send a socket. The drain comes
 * last, because it waits for what the others do; what it writes leaves in the next turn, which is due at once. */
#include "loop.h"

#include "check.h"
#include "clients.h"
#include "gateway.h"
#include "number.h"
#include "usage.h"

enum {
    EVENTS_FULL = GATEWAY_EVENTS_MAX - 1, /* with so many told more may be ready (port.h) */
    WAIT_LATE_MS = 10                     /* beyond what was asked; less is common */
};

/* The clock is read twice a turn, before and after the wait: between the two readings around a turn lies its work. */
static size_t wait_for_events(struct gateway *gateway)
{
    uint64_t now_ns = gateway->port->now_ns(gateway->port->context);
    if (gateway->turn_ns != 0) {
        metrics_observe(&gateway->counts.turn_ns, now_ns - gateway->turn_ns);
    }
    uint64_t now_ms = now_ns / 1000000;
    uint64_t wait_ms = gateway->due_ms <= now_ms ? 0 : gateway->due_ms - now_ms;
    if (wait_ms > GATEWAY_WAIT_MS_MAX) {
        wait_ms = GATEWAY_WAIT_MS_MAX;
    }
    size_t event_count =
        gateway->port->wait(gateway->port->context, gateway->events, GATEWAY_EVENTS_MAX, (int64_t)wait_ms);
    gateway->turn_ns = gateway->port->now_ns(gateway->port->context);
    gateway->now_ms = gateway->turn_ns / 1000000;
    gateway->wall_ms = gateway->port->wall_ms(gateway->port->context);
    // A process that was stopped comes back late, and with what was ready before.
    gateway->heard_all = event_count < EVENTS_FULL && gateway->now_ms - now_ms <= wait_ms + WAIT_LATE_MS;
    return event_count;
}

static void handle_event(struct gateway *gateway, const struct port_event *event)
{
    switch (event->token >> 56) {
    case LOOP_TAG_SERVER:
        server_on_event(&gateway->server, event, gateway->now_ms);
        break;
    case LOOP_TAG_OUTBOX:
        outbox_on_event(gateway->outbox, event->ready, gateway->now_ms);
        break;
    case LOOP_TAG_DOWNLINK:
        downlink_on_event(&gateway->downlink, event->ready, gateway->now_ms);
        break;
    case LOOP_TAG_ADMIN:
        admin_on_event(&gateway->admin, event->token, gateway->now_ms);
        break;
    default:
        CHECK(false);
    }
}

/* Fires the clients' timers, once all that was ready has been handled: when the loop was late, a client's answer may
 * still wait in the kernel, and the client must not be given up before it is read. After as many turns as tell of
 * everybody once they fire all the same, or those who are never quiet would hold them up for ever. */
static void fire_timers(struct gateway *gateway)
{
    if (!gateway->heard_all && gateway->timers_held <= gateway->server.options.connection_max / EVENTS_FULL) {
        gateway->timers_held++;
        return;
    }
    gateway->timers_held = 0;
    server_tick(&gateway->server, gateway->now_ms);
}

static void handle_jobs(struct gateway *gateway)
{
    struct port_job *job;
    while ((job = gateway->port->finished_job(gateway->port->context)) != NULL) {
        CHECK(outbox_on_job(gateway->outbox, job, gateway->now_ms) ||
              downlink_on_job(&gateway->downlink, job, gateway->now_ms));
    }
}

/* False when a second stop came. */
static bool handle_signals(struct gateway *gateway)
{
    uint32_t signals = gateway->port->signals(gateway->port->context);
    if (signals & PORT_SIGNAL_REOPEN) {
        log_reopen(&gateway->log);
        log_event(&gateway->log, LOG_INFO, "log_reopened");
        usage_log(gateway);
    }
    if (signals & PORT_SIGNAL_STOP) {
        if (drain_running(&gateway->drain)) {
            log_event(&gateway->log, LOG_WARN, "stopped_at_once",
                      LOG_U64("outbox_messages", outbox_counters(gateway->outbox)->depth_count));
            return false;
        }
        drain_begin(gateway);
    }
    return true;
}

/* Writes to the broker all that is to be written; room that shows up is used in the same turn. Where it is too little
 * for a read, more can only come with a confirm, which is an event, so nothing has to be done before that. */
static uint64_t turn_outbox(struct gateway *gateway)
{
    uint64_t due_ms = outbox_turn(gateway->outbox, gateway->now_ms);
    if (gateway->room_came) {
        gateway->room_came = false;
        clients_resume(gateway);
        due_ms = outbox_turn(gateway->outbox, gateway->now_ms);
    }
    return due_ms;
}

enum gateway_turned gateway_turn(struct gateway *gateway)
{
    size_t event_count = wait_for_events(gateway);
    for (size_t index = 0; index < event_count; index++) {
        handle_event(gateway, &gateway->events[index]);
    }
    handle_jobs(gateway);
    bool go_on = handle_signals(gateway);
    fire_timers(gateway);
    uint64_t due_ms = turn_outbox(gateway);
    // Who has gone is told here, and the downlink unbinds in the same turn; what it acknowledges has been sent.
    server_flush(&gateway->server, gateway->now_ms);
    due_ms = number_smaller(due_ms, downlink_turn(&gateway->downlink, gateway->now_ms));
    due_ms = number_smaller(due_ms, admin_turn(&gateway->admin, gateway->now_ms));
    due_ms = number_smaller(due_ms, drain_turn(gateway));
    log_flush(&gateway->log);
    gateway->due_ms = number_smaller(due_ms, server_next_ms(&gateway->server));
    if (!go_on) {
        return GATEWAY_CUT_SHORT;
    }
    return gateway->drain.state == DRAIN_DONE ? GATEWAY_DRAINED : GATEWAY_TURN_ON;
}

enum program_exit gateway_run(struct gateway *gateway)
{
    enum gateway_turned turned;
    do {
        turned = gateway_turn(gateway);
    } while (turned == GATEWAY_TURN_ON);
    usage_log(gateway);
    log_event(&gateway->log, LOG_INFO, "gateway_stopped");
    log_flush(&gateway->log); // who was cut short closes nothing
    return turned == GATEWAY_DRAINED ? PROGRAM_EXIT_OK : PROGRAM_EXIT_FAILED;
}
