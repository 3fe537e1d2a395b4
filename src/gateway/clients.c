/* SPDX-License-Identifier: MIT */
/* The server's callbacks. A session is found by the connection's user index, so that a message costs no lookup; the
 * session in turn names its connection by handle.
 *
 * What one read can bring, for `readable`: the end of one message that began earlier, of up to message_bytes_max, and
 * whole messages in the rest. The shortest message that reaches the outbox is {"type":"a","content":0}, which takes
 * a masked frame's header of 6 bytes besides; their contents together are shorter than the bytes read. */
#include "clients.h"

#include <string.h>

#include "check.h"
#include "envelope.h"
#include "frame.h"
#include "gateway.h"
#include "receipts.h"
#include "replies.h"

enum {
    SHORTEST_FRAME_BYTES = 2 + FRAME_MASK_BYTES + sizeof("{\"type\":\"a\",\"content\":0}") - 1,
};

size_t clients_read_message_count(uint32_t read_bytes)
{
    return read_bytes / SHORTEST_FRAME_BYTES + 1;
}

size_t clients_read_content_bytes(uint32_t read_bytes, uint32_t message_bytes_max)
{
    return (size_t)read_bytes + message_bytes_max;
}

static struct connection_handle connection_of(const struct session *session)
{
    return (struct connection_handle){session->connection_index, session->connection_generation};
}

/* NULL for a connection that was refused, or whose session was taken over. */
static struct session *session_of(struct gateway *gateway, struct connection_handle connection)
{
    uint32_t index = connection_user_index(&gateway->server, connection);
    if (index == (uint32_t)SERVER_USER_NONE) {
        return NULL;
    }
    struct session *session = session_at(&gateway->sessions, index);
    CHECK(connection_handle_equal(connection_of(session), connection));
    return session;
}

static void end_session(struct gateway *gateway, struct session *session)
{
    connection_set_user_index(&gateway->server, connection_of(session), (uint32_t)SERVER_USER_NONE);
    downlink_client_left(&gateway->downlink, session);
    session_end(&gateway->sessions, session);
}

static void close_connection(struct gateway *gateway, struct connection_handle connection, uint16_t code,
                             const char *reason)
{
    connection_close(&gateway->server, connection, code, span_text(reason));
}

static void log_slow(struct gateway *gateway, struct connection_handle connection, const struct session *session,
                     const char *cause, const char *remedy)
{
    log_event(&gateway->log, LOG_WARN, "client_slow", LOG_SPAN("client", session_client_id(session)),
              LOG_U64("queued_bytes", connection_queued_bytes(&gateway->server, connection)), LOG_TEXT("cause", cause),
              LOG_TEXT("remedy", remedy));
}

/* A send was refused. */
static void close_slow(struct gateway *gateway, struct connection_handle connection, const struct session *session)
{
    log_slow(gateway, connection, session, "it does not read, and as much waits for it as may wait",
             "see why it does not read; SEND_QUEUE_BYTES is how much may wait");
    close_connection(gateway, connection, FRAME_CLOSE_POLICY, "you do not read what is sent to you");
}

static enum connection_result send_span(struct gateway *gateway, struct connection_handle connection, struct span text)
{
    return connection_send_text(&gateway->server, connection, &text, 1);
}

bool clients_tell(struct gateway *gateway, const struct session *session, struct span text)
{
    struct connection_handle connection = connection_of(session);
    switch (send_span(gateway, connection, text)) {
    case CONNECTION_OK:
        return true;
    case CONNECTION_GONE:
        break;
    case CONNECTION_FULL:
        close_slow(gateway, connection, session);
        break;
    }
    return false;
}

static void answer(struct gateway *gateway, const struct session *session, const struct text *text)
{
    CHECK(!text->truncated);
    (void)clients_tell(gateway, session, text_span(text));
}

/* Before the upgrade. */

static uint16_t on_request(void *context, struct connection_handle connection, const struct handshake_request *request,
                           struct span *reason)
{
    struct gateway *gateway = context;
    (void)connection;
    uint8_t mask;
    if (!client_id_valid(span_of(request->path.data + 1, request->path.bytes - 1))) {
        gateway->counts.refused[COUNTS_BAD_CLIENT_ID]++;
        *reason = span_text("the path must be /{client_id}, with 1 to 64 of A-Z a-z 0-9 . _ ~ -");
        return HANDSHAKE_STATUS_BAD_REQUEST;
    }
    if (!receipts_parse(request->query, &mask)) {
        gateway->counts.refused[COUNTS_BAD_RECEIPTS]++;
        *reason = span_text("receipts must be none, or some of accepted,queued,stored");
        return HANDSHAKE_STATUS_BAD_REQUEST;
    }
    if (drain_running(&gateway->drain)) {
        gateway->counts.refused[COUNTS_RESTARTING]++;
        *reason = span_text("the gateway is restarting");
        return 503;
    }
    return HANDSHAKE_STATUS_SWITCHING;
}

static void on_refused(void *context, const struct port_address *peer, enum server_refusal refusal, uint16_t status,
                       struct span reason)
{
    struct gateway *gateway = context;
    (void)refusal;
    char address[PORT_ADDRESS_TEXT_BYTES];
    gateway->port->format_address(gateway->port->context, peer, address);
    // Who only knocks, as health checks do, is no news.
    enum log_level level = status == 0 ? LOG_DEBUG : LOG_INFO;
    log_event(&gateway->log, level, "handshake_refused", LOG_TEXT("peer", address), LOG_U64("status", status),
              LOG_SPAN("reason", reason));
}

/* The upgrade. */

static bool older_silent(void *context, const struct session *older)
{
    // One that is not read under pressure cannot be heard. It counts as silent after the same time: that it is there is
    // not known, and the newcomer is.
    struct gateway *gateway = context;
    uint64_t receive_ms = connection_last_receive_ms(&gateway->server, connection_of(older));
    return gateway->now_ms - receive_ms >= gateway->heartbeat.interval_ms;
}

static void refuse(struct gateway *gateway, struct connection_handle connection, struct span client_id,
                   const char *code, const char *sentence, uint16_t close_code)
{
    char buffer[REPLY_BYTES_MAX];
    struct text text = text_in(buffer, sizeof buffer);
    reply_error(&text, 0, span_of(NULL, 0), span_text(code), span_text(sentence));
    (void)send_span(gateway, connection, text_span(&text));
    close_connection(gateway, connection, close_code, sentence);
    log_event(&gateway->log, LOG_INFO, "client_refused", LOG_SPAN("client", client_id), LOG_TEXT("code", code),
              LOG_U64("clients", gateway->sessions.count));
}

static void take_over(struct gateway *gateway, const struct session *older)
{
    struct connection_handle connection = connection_of(older);
    connection_set_user_index(&gateway->server, connection, (uint32_t)SERVER_USER_NONE);
    close_connection(gateway, connection, CLIENTS_CLOSE_TAKEN_OVER, "another connection with your client id took over");
    log_event(&gateway->log, LOG_INFO, "client_taken_over", LOG_SPAN("client", session_client_id(older)),
              LOG_U64("messages", older->message_count));
}

/* The session is new; its connection is told and watched over from here. */
static void greet(struct gateway *gateway, struct connection_handle connection, struct session *session,
                  struct span query)
{
    CHECK(receipts_parse(query, &session->receipts_mask));
    session->connection_index = connection.index;
    session->connection_generation = connection.generation;
    connection_set_user_index(&gateway->server, connection, session_index(&gateway->sessions, session));
    heartbeat_reset(&session->heartbeat, gateway->now_ms);
    connection_set_timer(&gateway->server, connection, gateway->now_ms + gateway->heartbeat.interval_ms);

    char address[PORT_ADDRESS_TEXT_BYTES];
    struct port_address peer = connection_peer(&gateway->server, connection);
    gateway->port->format_address(gateway->port->context, &peer, address);
    log_event(&gateway->log, LOG_INFO, "client_connected", LOG_SPAN("client", session_client_id(session)),
              LOG_TEXT("peer", address), LOG_U64("clients", gateway->sessions.count));

    char buffer[REPLY_BYTES_MAX];
    struct text text = text_in(buffer, sizeof buffer);
    reply_connected(&text, session_client_id(session), gateway->settings->heartbeat_interval_s,
                    gateway->settings->max_message_bytes);
    answer(gateway, session, &text);
}

static void on_open(void *context, struct connection_handle connection, const struct handshake_request *request)
{
    struct gateway *gateway = context;
    struct span client_id = span_of(request->path.data + 1, request->path.bytes - 1);
    struct session *session = session_find(&gateway->sessions, client_id);
    if (session != NULL && !connection_is_open(&gateway->server, connection_of(session))) {
        // It is closing and its end is told at the end of this turn: its client is free to come back now.
        log_event(&gateway->log, LOG_INFO, "client_closed", LOG_SPAN("client", client_id),
                  LOG_TEXT("cause", "reconnected"), LOG_U64("messages", session->message_count));
        end_session(gateway, session);
    }
    struct session older;
    switch (session_admit(&gateway->sessions, client_id, gateway->settings->session_policy, older_silent, gateway,
                          &session, &older)) {
    case SESSION_ADMITTED:
        downlink_client_came(&gateway->downlink, session);
        greet(gateway, connection, session, request->query);
        break;
    case SESSION_TAKES_OVER:
        take_over(gateway, &older);
        greet(gateway, connection, session, request->query);
        break;
    case SESSION_REFUSED_CONNECTED:
        gateway->counts.refused[COUNTS_ALREADY_CONNECTED]++;
        refuse(gateway, connection, client_id, "already_connected", "Already connected",
               CLIENTS_CLOSE_ALREADY_CONNECTED);
        break;
    case SESSION_REFUSED_FULL:
        gateway->counts.refused[COUNTS_MAX_CONNECTIONS]++;
        refuse(gateway, connection, client_id, "max_connections", "Max connections reached",
               FRAME_CLOSE_TRY_AGAIN_LATER);
        break;
    }
}

/* Messages. */

static void say_error(struct gateway *gateway, struct session *session, struct span id, const char *code,
                      struct span sentence)
{
    char buffer[REPLY_BYTES_MAX];
    struct text text = text_in(buffer, sizeof buffer);
    reply_error(&text, session->message_count, id, span_text(code), sentence);
    log_event(&gateway->log, LOG_INFO, "message_refused", LOG_SPAN("client", session_client_id(session)),
              LOG_SPAN("id", id), LOG_U64("seq", session->message_count), LOG_TEXT("code", code),
              LOG_SPAN("reason", sentence));
    answer(gateway, session, &text);
    if (rate_error(&session->errors, gateway->now_ms)) {
        close_connection(gateway, connection_of(session), FRAME_CLOSE_POLICY, "too many errors within a minute");
    }
}

static void say_envelope_error(struct gateway *gateway, struct session *session, struct span id,
                               enum envelope_error error)
{
    char description[ENVELOPE_DESCRIPTION_BYTES_MAX];
    struct text text = text_in(description, sizeof description);
    gateway->counts.bad_messages[error]++;
    envelope_describe(&text, error, &gateway->json);
    say_error(gateway, session, id, envelope_error_code(error), text_span(&text));
}

static void take(struct gateway *gateway, struct session *session, const struct envelope *envelope,
                 uint16_t queue_index)
{
    if (!envelope->has_content) {
        say_envelope_error(gateway, session, envelope->id, ENVELOPE_BAD_CONTENT);
        return;
    }
    struct session_handle handle = session_handle_of(&gateway->sessions, session);
    const struct outbox_message message = {
        .client_id = session_client_id(session),
        .id = envelope->id,
        .type = envelope->type,
        .content = envelope->content,
        .received_wall_ms = gateway->wall_ms,
        .queue_index = (uint8_t)queue_index,
        .origin = {.session_index = handle.index,
                   .session_generation = handle.generation,
                   .seq = session->message_count},
    };
    // `readable` was asked before these bytes were read, with a bound for all they could bring.
    CHECK(outbox_take(gateway->outbox, &message, gateway->now_ms) == OUTBOX_TAKEN);
    gateway->counts.messages[queue_index][COUNTS_TAKEN]++;
}

static void on_message(void *context, struct connection_handle connection, uint8_t *data, size_t bytes, bool is_binary)
{
    struct gateway *gateway = context;
    struct session *session = session_of(gateway, connection);
    CHECK(session != NULL);
    session->message_count++;
    if (is_binary) {
        close_connection(gateway, connection, FRAME_CLOSE_UNSUPPORTED, "binary messages are not taken");
        return;
    }
    struct envelope envelope;
    enum envelope_error error = envelope_parse(&gateway->json, span_of(data, bytes), &envelope);
    if (error != ENVELOPE_OK) {
        bool has_id = error != ENVELOPE_BAD_JSON && error != ENVELOPE_BAD_MESSAGE;
        say_envelope_error(gateway, session, has_id ? envelope.id : span_of(NULL, 0), error);
        return;
    }
    struct route route = routes_find(&gateway->routes, envelope.type);
    switch (route.target) {
    case ROUTE_QUEUE:
        take(gateway, session, &envelope, route.queue_index);
        break;
    case ROUTE_PING: {
        char buffer[REPLY_BYTES_MAX];
        struct text text = text_in(buffer, sizeof buffer);
        reply_pong(&text);
        answer(gateway, session, &text);
        break;
    }
    case ROUTE_PONG: // its bytes counted as life when they came
        break;
    case ROUTE_UNKNOWN:
        gateway->counts.unknown_types++;
        say_error(gateway, session, envelope.id, "unknown_type", span_text("no route for this type"));
        break;
    }
}

/* Pressure. */

static bool readable(void *context, struct connection_handle connection)
{
    struct gateway *gateway = context;
    (void)connection;
    // While draining nothing more is taken, so that all that was taken can be confirmed and told.
    return !drain_running(&gateway->drain) &&
           outbox_has_room(gateway->outbox, gateway->read_message_count, gateway->read_content_bytes);
}

static void on_pressure(void *context, struct connection_handle connection)
{
    struct gateway *gateway = context;
    struct session *session = session_of(gateway, connection);
    if (session == NULL || drain_running(&gateway->drain)) {
        return;
    }
    if (gateway->pressure_since_ms == 0) {
        gateway->pressure_since_ms = gateway->now_ms;
        log_event(&gateway->log, LOG_WARN, "busy_begin",
                  LOG_U64("outbox_messages", outbox_counters(gateway->outbox)->depth_count),
                  LOG_U64("outbox_bytes", outbox_counters(gateway->outbox)->depth_bytes));
    }
    gateway->pressure_told_count++;
    char buffer[REPLY_BYTES_MAX];
    struct text text = text_in(buffer, sizeof buffer);
    reply_busy(&text, CLIENTS_RETRY_AFTER_MS);
    answer(gateway, session, &text);
}

void clients_resume(struct gateway *gateway)
{
    server_resume(&gateway->server, gateway->now_ms);
    if (gateway->pressure_since_ms != 0 &&
        outbox_has_room(gateway->outbox, gateway->read_message_count, gateway->read_content_bytes)) {
        // Room is left although everybody was asked: this episode is over.
        log_event(&gateway->log, LOG_INFO, "busy_end", LOG_U64("told", gateway->pressure_told_count),
                  LOG_U64("duration_ms", gateway->now_ms - gateway->pressure_since_ms));
        gateway->counts.busy_ms += gateway->now_ms - gateway->pressure_since_ms;
        gateway->pressure_since_ms = 0;
        gateway->pressure_told_count = 0;
    }
}

/* Heartbeats and the end. */

static void send_ping(struct gateway *gateway, const struct session *session)
{
    struct connection_handle connection = connection_of(session);
    enum connection_result result = CONNECTION_OK;
    switch (gateway->settings->heartbeat_mode) {
    case SETTINGS_HEARTBEAT_PING:
        result = connection_ping(&gateway->server, connection);
        break;
    case SETTINGS_HEARTBEAT_MESSAGE: {
        char buffer[REPLY_BYTES_MAX];
        struct text text = text_in(buffer, sizeof buffer);
        reply_ping(&text);
        result = send_span(gateway, connection, text_span(&text));
        break;
    }
    }
    if (result == CONNECTION_FULL) {
        close_slow(gateway, connection, session);
    }
}

static void on_timer(void *context, struct connection_handle connection)
{
    struct gateway *gateway = context;
    struct session *session = session_of(gateway, connection);
    if (session == NULL) {
        return;
    }
    if (connection_is_paused(&gateway->server, connection)) {
        // An answer could not be read, but a machine that is gone, or knows nothing of this connection any more, is
        // found by sending to it. What waits to be sent does that already.
        if (connection_queued_bytes(&gateway->server, connection) == 0) {
            send_ping(gateway, session);
        }
        heartbeat_reset(&session->heartbeat, gateway->now_ms);
    }
    uint64_t receive_ms = connection_last_receive_ms(&gateway->server, connection);
    struct heartbeat_decision decision =
        heartbeat_decide(&session->heartbeat, &gateway->heartbeat, receive_ms, gateway->now_ms);
    switch (decision.action) {
    case HEARTBEAT_TIMED_OUT:
        close_connection(gateway, connection, FRAME_CLOSE_GOING_AWAY, "you were silent for too long");
        return;
    case HEARTBEAT_PING:
        send_ping(gateway, session);
        break;
    case HEARTBEAT_WAIT:
        break;
    }
    connection_set_timer(&gateway->server, connection, decision.due_ms);
}

static const char *cause_name(enum connection_cause cause)
{
    switch (cause) {
    case CONNECTION_BY_PEER:
        return "client";
    case CONNECTION_BY_OWNER:
        return "gateway";
    case CONNECTION_BROKEN:
        return "protocol";
    case CONNECTION_LOST:
        return "lost";
    case CONNECTION_EVICTED:
        return "evicted";
    case CONNECTION_SLOW:
    case CONNECTION_HOARDING:
        return "slow";
    case CONNECTION_CAUSE_COUNT:
        break;
    }
    CHECK(false);
    return "";
}

/* Why the server ended it by itself, where that can be helped. */
static void log_remedy(struct gateway *gateway, struct connection_handle connection, const struct session *session,
                       enum connection_cause cause)
{
    switch (cause) {
    case CONNECTION_SLOW:
        log_slow(gateway, connection, session, "it took nothing of what waits for it during HEARTBEAT_TIMEOUT",
                 "see why it does not read; a longer HEARTBEAT_TIMEOUT gives it more time");
        break;
    case CONNECTION_HOARDING:
        log_event(&gateway->log, LOG_WARN, "send_memory_full", LOG_SPAN("client", session_client_id(session)),
                  LOG_U64("chunks", gateway->server.chunks.block_count),
                  LOG_TEXT("cause",
                           "the memory for what waits to be read was lent to clients that do not read, the most "
                           "of it to this one"),
                  LOG_TEXT("remedy", "see why they do not read; a smaller SEND_QUEUE_BYTES lends less to each"));
        break;
    case CONNECTION_BY_PEER:
    case CONNECTION_BY_OWNER:
    case CONNECTION_BROKEN:
    case CONNECTION_LOST:
    case CONNECTION_EVICTED:
    case CONNECTION_CAUSE_COUNT:
        break;
    }
}

static void on_closed(void *context, struct connection_handle connection, enum connection_cause cause, uint16_t code)
{
    struct gateway *gateway = context;
    struct session *session = session_of(gateway, connection);
    if (session == NULL) {
        return; // it was refused or taken over, and logged then
    }
    log_remedy(gateway, connection, session, cause);
    log_event(&gateway->log, LOG_INFO, "client_closed", LOG_SPAN("client", session_client_id(session)),
              LOG_TEXT("cause", cause_name(cause)), LOG_U64("code", code), LOG_U64("messages", session->message_count),
              LOG_U64("clients", gateway->sessions.count - 1));
    end_session(gateway, session);
}

const struct server_handler clients_handler = {
    .on_request = on_request,
    .on_open = on_open,
    .readable = readable,
    .on_pressure = on_pressure,
    .on_message = on_message,
    .on_timer = on_timer,
    .on_closed = on_closed,
    .on_refused = on_refused,
};
