/* SPDX-License-Identifier: MIT */
/* The page /metrics: a family after the other, in the order of doc/metrics.md. */
#include "gateway.h"
#include "metrics.h"
#include "metrics_program.h"
#include "readiness.h"
#include "spool.h"

static void add(struct metrics *metrics, uint64_t value, const char *label, const char *label_value)
{
    metrics_add(metrics, value, METRICS_LABEL(label, span_text(label_value)));
}

/* ---- Clients ---- */

static void write_connections(struct metrics *metrics, const struct gateway *gateway)
{
    const struct server_counters *server = &gateway->server.counters;
    metrics_gauge(metrics, "postern_connections", "Clients that are connected.", gateway->sessions.count);
    metrics_gauge(metrics, "postern_connections_max", "How many clients may be connected: MAX_CONNECTIONS.",
                  gateway->sessions.capacity);
    metrics_gauge(metrics, "postern_connections_peak", "The most clients that were ever connected at once.",
                  gateway->sessions.peak_count);
    metrics_gauge(metrics, "postern_connections_unsettled", "Connections in the handshake, being refused, or closing.",
                  gateway->server.connection_count - gateway->sessions.count);
    metrics_count(metrics, "postern_connections_accepted_total", "TCP connections that came.", server->accepted);
    metrics_count(metrics, "postern_connections_opened_total", "Handshakes that succeeded.", server->opened);
    metrics_begin(metrics, "postern_connections_closed_total", METRICS_COUNTER,
                  "Open connections that ended, by who or what ended them.");
    add(metrics, server->closed[CONNECTION_BY_PEER], "cause", "client");
    add(metrics, server->closed[CONNECTION_BY_OWNER], "cause", "gateway");
    add(metrics, server->closed[CONNECTION_BROKEN], "cause", "protocol");
    add(metrics, server->closed[CONNECTION_LOST], "cause", "lost");
    add(metrics, server->closed[CONNECTION_EVICTED], "cause", "evicted");
    add(metrics, server->closed[CONNECTION_SLOW] + server->closed[CONNECTION_HOARDING], "cause", "slow");
    metrics_count(metrics, "postern_accept_failures_total",
                  "Times that the machine had no handle or memory for one more connection.", server->accept_failed);
}

static void write_refusals(struct metrics *metrics, const struct gateway *gateway)
{
    const uint64_t *handshake = gateway->server.counters.refused;
    const uint64_t *refused = gateway->counts.refused;
    metrics_begin(metrics, "postern_refusals_total", METRICS_COUNTER, "Connections refused, by reason.");
    add(metrics, handshake[SERVER_REFUSED_BAD_REQUEST], "reason", "bad_request");
    add(metrics, handshake[SERVER_REFUSED_NOT_WEBSOCKET], "reason", "not_websocket");
    add(metrics, handshake[SERVER_REFUSED_HEADER_TOO_LARGE], "reason", "header_too_large");
    add(metrics, handshake[SERVER_REFUSED_TIMEOUT], "reason", "timeout");
    add(metrics, handshake[SERVER_REFUSED_LOST], "reason", "lost");
    add(metrics, refused[COUNTS_BAD_CLIENT_ID], "reason", "bad_client_id");
    add(metrics, refused[COUNTS_BAD_RECEIPTS], "reason", "bad_receipts");
    add(metrics, refused[COUNTS_RESTARTING], "reason", "restarting");
    add(metrics, refused[COUNTS_ALREADY_CONNECTED], "reason", "already_connected");
    add(metrics, refused[COUNTS_MAX_CONNECTIONS], "reason", "max_connections");
}

/* ---- Messages ---- */

static void write_stages(struct metrics *metrics, const uint64_t stages[COUNTS_STAGE_COUNT], struct span route)
{
    static const char *const names[COUNTS_STAGE_COUNT] = {[COUNTS_TAKEN] = "taken",
                                                          [COUNTS_ACCEPTED] = "accepted",
                                                          [COUNTS_QUEUED] = "queued",
                                                          [COUNTS_DROPPED] = "dropped"};
    for (size_t stage = 0; stage < COUNTS_STAGE_COUNT; stage++) {
        metrics_add(metrics, stages[stage], METRICS_LABEL("route", route),
                    METRICS_LABEL("stage", span_text(names[stage])));
    }
}

static void write_messages(struct metrics *metrics, const struct gateway *gateway)
{
    const struct server_counters *server = &gateway->server.counters;
    const struct counts *counts = &gateway->counts;
    metrics_count(metrics, "postern_messages_received_total", "Messages of clients, whatever became of them.",
                  server->messages_received);
    metrics_count(metrics, "postern_message_bytes_received_total", "Bytes of clients' messages.",
                  server->message_bytes_received);
    metrics_begin(metrics, "postern_messages_total", METRICS_COUNTER,
                  "Messages by queue and by the stages they came to; queues that ROUTES no longer names are `other`.");
    for (size_t index = 0; index < gateway->routes.queue_count; index++) {
        write_stages(metrics, counts->messages[index], routes_queue(&gateway->routes, index));
    }
    write_stages(metrics, counts->messages[COUNTS_ROUTE_OTHER], span_text("other"));
    metrics_begin(metrics, "postern_bad_messages_total", METRICS_COUNTER,
                  "Messages answered with an error, by its code.");
    for (enum envelope_error error = ENVELOPE_BAD_JSON; error <= ENVELOPE_BAD_ID; error++) {
        add(metrics, counts->bad_messages[error], "code", envelope_error_code(error));
    }
    add(metrics, counts->unknown_types, "code", "unknown_type");
    metrics_count(metrics, "postern_messages_sent_total", "Messages to clients: receipts, answers, backends' messages.",
                  server->messages_sent);
    metrics_count(metrics, "postern_received_bytes_total", "Bytes from clients.", server->bytes_received);
    metrics_count(metrics, "postern_sent_bytes_total", "Bytes to clients.", server->bytes_sent);
    metrics_count(metrics, "postern_receipts_unheard_total", "Receipts whose client was not connected.",
                  counts->receipts_unheard);
    metrics_begin(metrics, "postern_downlink_messages_total", METRICS_COUNTER,
                  "Backends' messages to clients, by what became of them.");
    add(metrics, counts->down_delivered, "outcome", "delivered");
    add(metrics, gateway->downlink.absent_count, "outcome", "absent");
    add(metrics, counts->down_refused, "outcome", "refused");
    add(metrics, counts->down_lost, "outcome", "lost");
}

/* ---- Between "taken" and "queued" ---- */

static void write_outbox(struct metrics *metrics, struct gateway *gateway)
{
    const struct outbox_counters *outbox = outbox_counters(gateway->outbox);
    metrics_gauge(metrics, "postern_outbox_messages",
                  "Messages that RabbitMQ has not confirmed, in memory and on the disk.", outbox->depth_count);
    metrics_gauge(metrics, "postern_outbox_messages_peak", "The most unconfirmed messages there ever were.",
                  outbox->depth_peak_count);
    metrics_gauge(metrics, "postern_outbox_memory_bytes", "Bytes of the unconfirmed messages in memory.",
                  outbox->depth_bytes);
    metrics_gauge(metrics, "postern_outbox_memory_max_bytes",
                  "How many bytes unconfirmed messages may have in memory: OUTBOX_BYTES.",
                  gateway->settings->outbox_bytes);
    metrics_gauge_ms(metrics, "postern_outbox_oldest_seconds",
                     "Age of the oldest unconfirmed message; 0 when there is none.",
                     outbox_oldest_ms(gateway->outbox, gateway->now_ms));
    metrics_gauge(metrics, "postern_outbox_in_flight", "Messages that are published and not yet confirmed.",
                  outbox->in_flight_count);
    metrics_gauge(metrics, "postern_outbox_window", "How many messages may be in flight just now.",
                  outbox->window_count);
    metrics_count(metrics, "postern_publishes_total", "Messages published, repeats included.", outbox->published_count);
    metrics_count(metrics, "postern_publish_repeats_total",
                  "Messages published again, after a lost connection or a nack.", outbox->replayed_count);
    metrics_count(metrics, "postern_publish_nacks_total", "Messages that RabbitMQ refused for the moment.",
                  outbox->nacked_count);
    metrics_count(metrics, "postern_publish_returns_total", "Messages that came back, because their queue was gone.",
                  outbox->returned_count);
    bool is_busy = gateway->pressure_since_ms != 0;
    metrics_gauge(metrics, "postern_busy", "1 while clients are not read, because there is no room for messages.",
                  is_busy ? 1 : 0);
    metrics_count_ms(metrics, "postern_busy_seconds_total", "Time in which clients were not read.",
                     gateway->counts.busy_ms + (is_busy ? gateway->now_ms - gateway->pressure_since_ms : 0));
    metrics_count(metrics, "postern_busy_clients_total", "Clients that had to wait for room.",
                  gateway->server.counters.pressures);
}

static void write_spool(struct metrics *metrics, struct gateway *gateway)
{
    static const struct spool_counters none;
    const struct spool_counters *has = outbox_spool_counters(gateway->outbox);
    const struct spool_counters *spool = has == NULL ? &none : has;
    metrics_gauge(metrics, "postern_spool_messages", "Messages on the disk that RabbitMQ has not confirmed.",
                  spool->message_count);
    metrics_gauge(metrics, "postern_spool_unsynced_messages", "Messages that are on their way to the disk.",
                  spool->unsynced_count);
    metrics_gauge(metrics, "postern_spool_draining", "1 while RabbitMQ takes the messages that are on the disk.",
                  outbox_counters(gateway->outbox)->spool_state == OUTBOX_SPOOL_DRAINING ? 1 : 0);
    metrics_gauge(metrics, "postern_spool_used_bytes", "Bytes of the spool that hold messages not confirmed.",
                  spool->used_bytes);
    metrics_gauge(metrics, "postern_spool_max_bytes",
                  "How many bytes the spool may take: SPOOL_MAX_BYTES; 0 without a spool.", gateway->spool.bytes_max);
    metrics_count(metrics, "postern_spool_appended_messages_total", "Messages that were given to the spool.",
                  spool->appended_count);
    metrics_count(metrics, "postern_spool_lost_messages_total",
                  "Messages on the disk that could not be read any more; the log names their numbers.",
                  spool->lost_count);
    metrics_count(metrics, "postern_spool_writes_total", "Writes to the disk.", spool->write_count);
    metrics_count(metrics, "postern_spool_written_bytes_total", "Bytes written to the disk.", spool->written_bytes);
    metrics_count(metrics, "postern_spool_write_failures_total",
                  "Writes or syncs that failed; what they were to write is written again.", spool->write_failure_count);
    metrics_gauge(metrics, "postern_spool_failing", "1 after a write to the disk that failed, until the next one.",
                  spool->is_failing ? 1 : 0);
}

/* ---- Memory ---- */

static void write_pools(struct metrics *metrics, const struct gateway *gateway)
{
    const struct pool *buffers = &gateway->server.buffers;
    const struct pool *chunks = &gateway->server.chunks;
    metrics_begin(metrics, "postern_pool_blocks", METRICS_GAUGE, "Blocks of a pool.");
    add(metrics, buffers->block_count, "pool", "buffers");
    add(metrics, chunks->block_count, "pool", "chunks");
    metrics_begin(metrics, "postern_pool_used", METRICS_GAUGE, "Blocks of a pool that are lent just now.");
    add(metrics, buffers->used_count, "pool", "buffers");
    add(metrics, chunks->used_count, "pool", "chunks");
    metrics_begin(metrics, "postern_pool_peak", METRICS_GAUGE,
                  "The most blocks of a pool that were ever lent at once.");
    add(metrics, buffers->peak_count, "pool", "buffers");
    add(metrics, chunks->peak_count, "pool", "chunks");
    metrics_begin(metrics, "postern_pool_refused_total", METRICS_COUNTER, "Times that a pool had no block left.");
    add(metrics, buffers->refused_count, "pool", "buffers");
    add(metrics, chunks->refused_count, "pool", "chunks");
}

static void write_malloc(struct metrics *metrics, const struct gateway *gateway)
{
    struct port_heap heap;
    gateway->port->heap(gateway->port->context, &heap);
    metrics_gauge(metrics, "postern_malloc_max_bytes", "The fixed block that libraries allocate from.",
                  heap.capacity_bytes);
    metrics_gauge(metrics, "postern_malloc_used_bytes", "Bytes of that block that are used just now.", heap.used_bytes);
    metrics_gauge(metrics, "postern_malloc_peak_bytes", "The most bytes of that block that were ever used.",
                  heap.peak_bytes);
    metrics_count(metrics, "postern_malloc_refused_total", "Times that that block had not enough left.",
                  heap.refused_count);
}

uint16_t reports_metrics(void *context, struct text *page)
{
    struct gateway *gateway = context;
    struct metrics metrics = {.out = page};
    struct readiness readiness;
    reports_find(gateway, &readiness);
    const struct metrics_program program = {
        .name = "postern-gateway",
        .start_wall_ms = gateway->start_wall_ms,
        .arena_bytes = gateway->arena_bytes,
        .is_ready = readiness_is_ready(&readiness),
        .log = &gateway->log,
        .admin = &gateway->admin,
        .turn_ns = &gateway->counts.turn_ns,
        .receipts = gateway->counts.receipts,
        .publish = outbox_link(gateway->outbox),
        .consume = gateway->downlink.link,
    };
    metrics_program(&metrics, &program, gateway->now_ms);
    write_connections(&metrics, gateway);
    write_refusals(&metrics, gateway);
    write_messages(&metrics, gateway);
    write_outbox(&metrics, gateway);
    write_spool(&metrics, gateway);
    write_pools(&metrics, gateway);
    write_malloc(&metrics, gateway);
    return 200;
}
