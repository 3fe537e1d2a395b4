/* SPDX-License-Identifier: MIT */
/* The page /status.json, which the live page asks for every second: the numbers it shows, and the latest warnings.
 * Rates are for the reader to make, out of two looks. */
#include "gateway.h"
#include "readiness.h"
#include "spool.h"

static void name(struct text *page, const char *name_of)
{
    char last = page->data[page->used_bytes - 1];
    text_string(page, last == '{' ? "\"" : ",\"");
    text_string(page, name_of);
    text_string(page, "\":");
}

static void number(struct text *page, const char *name_of, uint64_t value)
{
    name(page, name_of);
    text_u64(page, value);
}

static void string(struct text *page, const char *name_of, const char *value)
{
    name(page, name_of);
    text_json_string(page, span_text(value));
}

static void boolean(struct text *page, const char *name_of, bool value)
{
    name(page, name_of);
    text_string(page, value ? "true" : "false");
}

static void open(struct text *page, const char *name_of)
{
    name(page, name_of);
    text_char(page, '{');
}

static void write_clients(struct text *page, const struct gateway *gateway)
{
    open(page, "clients");
    number(page, "connected", gateway->sessions.count);
    number(page, "max", gateway->sessions.capacity);
    number(page, "opened", gateway->server.counters.opened);
    text_char(page, '}');
}

static void write_messages(struct text *page, struct gateway *gateway)
{
    const struct outbox_counters *outbox = outbox_counters(gateway->outbox);
    uint64_t bad_count = gateway->counts.unknown_types;
    for (size_t error = 0; error < COUNTS_ERRORS; error++) {
        bad_count += gateway->counts.bad_messages[error];
    }
    open(page, "messages");
    number(page, "received", gateway->server.counters.messages_received);
    number(page, "sent", gateway->server.counters.messages_sent);
    number(page, "bad", bad_count);
    number(page, "taken", outbox->taken_count);
    number(page, "taken_bytes", outbox->taken_bytes);
    text_char(page, '}');
    open(page, "receipts");
    for (enum receipt_status status = RECEIPT_ACCEPTED; status <= RECEIPT_DEAD; status++) {
        number(page, receipt_status_name(status), gateway->counts.receipts[status]);
    }
    text_char(page, '}');
}

static const char *state_name(enum outbox_spool_state state)
{
    switch (state) {
    case OUTBOX_SPOOL_EMPTY:
        return "empty";
    case OUTBOX_SPOOL_WAITING:
        return "waiting";
    case OUTBOX_SPOOL_DRAINING:
        break;
    }
    return "draining";
}

static void write_outbox(struct text *page, struct gateway *gateway)
{
    const struct outbox_counters *outbox = outbox_counters(gateway->outbox);
    open(page, "outbox");
    number(page, "messages", outbox->depth_count);
    number(page, "memory_bytes", outbox->depth_bytes);
    number(page, "memory_max_bytes", gateway->settings->outbox_bytes);
    number(page, "in_flight", outbox->in_flight_count);
    number(page, "oldest_ms", outbox_oldest_ms(gateway->outbox, gateway->now_ms));
    boolean(page, "busy", gateway->pressure_since_ms != 0);
    text_char(page, '}');
    const struct spool_counters *spool = outbox_spool_counters(gateway->outbox);
    if (spool != NULL) {
        open(page, "spool");
        string(page, "state", state_name(outbox->spool_state));
        number(page, "messages", spool->message_count);
        number(page, "used_bytes", spool->used_bytes);
        number(page, "max_bytes", gateway->spool.bytes_max);
        boolean(page, "drops_oldest", gateway->spool.drops_oldest);
        text_char(page, '}');
    }
}

static void write_link(struct text *page, const char *name_of, struct amqp_link *link)
{
    const struct amqp_link_counters *counters = amqp_link_counters(link);
    open(page, name_of);
    string(page, "state", amqp_link_state_name(amqp_link_state(link)));
    boolean(page, "blocked", amqp_link_blocked(link));
    number(page, "connects", counters->connect_count);
    number(page, "losses", counters->down_count);
    text_char(page, '}');
}

/* The latest first; each with its number, so that a reader knows those it has. */
static void write_log(struct text *page, const struct log *log)
{
    uint64_t kept_count = log->recent_count < LOG_RECENT_LINES ? log->recent_count : LOG_RECENT_LINES;
    number(page, "warning_lines", log->line_counts[LOG_WARN]);
    number(page, "error_lines", log->line_counts[LOG_ERROR]);
    name(page, "log");
    text_char(page, '[');
    for (uint64_t index = 1; index <= kept_count; index++) {
        uint64_t at = log->recent_count - index;
        text_string(page, index == 1 ? "{" : ",{");
        number(page, "number", at);
        name(page, "line");
        text_json_string(page, log_recent_line(log, at));
        text_char(page, '}');
    }
    text_char(page, ']');
}

uint16_t reports_status(void *context, struct text *page)
{
    struct gateway *gateway = context;
    struct readiness readiness;
    text_char(page, '{');
    string(page, "gateway", gateway->settings->gateway_id);
    string(page, "version", POSTERN_VERSION);
    number(page, "port", gateway->settings->port);
    number(page, "max_message_bytes", gateway->settings->max_message_bytes);
    number(page, "uptime_ms", gateway->now_ms - gateway->start_ms);
    reports_find(gateway, &readiness);
    text_char(page, ',');
    readiness_write(&readiness, page);
    write_clients(page, gateway);
    write_messages(page, gateway);
    write_outbox(page, gateway);
    write_link(page, "publish", outbox_link(gateway->outbox));
    write_link(page, "consume", gateway->downlink.link);
    write_log(page, &gateway->log);
    text_string(page, "}\n");
    return 200;
}
