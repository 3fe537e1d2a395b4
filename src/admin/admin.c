/* SPDX-License-Identifier: MIT */
/* A connection goes through reading, sending and lingering, each with a deadline. The request's head and then the
 * answer use the same buffer; a page that is made is written behind the place for the answer's head, whose length is
 * only known afterwards. An event is a hint that something may be possible: what it was is found out by trying. */
#include "admin.h"

#include <string.h>

#include "arena.h"
#include "check.h"
#include "log.h"
#include "number.h"

enum { BUFFER_BYTES = ADMIN_ANSWER_HEAD_BYTES + ADMIN_PAGE_BYTES_MAX };

_Static_assert((int)ADMIN_REQUEST_BYTES_MAX <= (int)BUFFER_BYTES, "a request fits the buffer");

static const bool allowed[ADMIN_STATE_COUNT][ADMIN_STATE_COUNT] = {
    [ADMIN_FREE] = {[ADMIN_READING] = true},
    [ADMIN_READING] = {[ADMIN_SENDING] = true, [ADMIN_FREE] = true},
    [ADMIN_SENDING] = {[ADMIN_LINGERING] = true, [ADMIN_FREE] = true},
    [ADMIN_LINGERING] = {[ADMIN_FREE] = true},
};

static void move(struct admin_connection *connection, enum admin_state state)
{
    CHECK(allowed[connection->state][state]);
    connection->state = state;
}

uint16_t admin_status_code(enum admin_status status)
{
    static const uint16_t codes[ADMIN_STATUS_COUNT] = {
        [ADMIN_OK] = 200,      [ADMIN_BAD_REQUEST] = 400,    [ADMIN_NOT_FOUND] = 404, [ADMIN_BAD_METHOD] = 405,
        [ADMIN_TIMEOUT] = 408, [ADMIN_HEAD_TOO_LARGE] = 431, [ADMIN_FAILED] = 500,    [ADMIN_UNAVAILABLE] = 503,
    };
    return codes[status];
}

void admin_init(struct admin *admin, struct arena *arena, const struct admin_options *options, bool is_on)
{
    *admin = (struct admin){.options = *options, .listener = PORT_NONE};
    uint8_t *buffers =
        is_on ? arena_take(arena, "admin pages: requests and answers", ADMIN_CONNECTIONS, BUFFER_BYTES) : NULL;
    for (size_t index = 0; index < ADMIN_CONNECTIONS && buffers != NULL; index++) {
        admin->connections[index].buffer = buffers + index * BUFFER_BYTES;
    }
}

/* ---- Listening ---- */

static uint64_t listener_token(const struct admin *admin)
{
    return admin->options.token + ADMIN_CONNECTIONS;
}

bool admin_listen(struct admin *admin, const struct port_address *address)
{
    const struct port *port = admin->options.port;
    CHECK(admin->listener == PORT_NONE && admin->connections[0].buffer != NULL);
    port_socket listener;
    if (port->listen(port->context, address, &listener) != PORT_OK) {
        return false;
    }
    if (port->watch_add(port->context, listener, PORT_READ, listener_token(admin)) != PORT_OK) {
        port->close_socket(port->context, listener);
        return false;
    }
    admin->listener = listener;
    return true;
}

bool admin_local_address(const struct admin *admin, struct port_address *address)
{
    const struct port *port = admin->options.port;
    return admin->listener != PORT_NONE && port->local_address(port->context, admin->listener, address) == PORT_OK;
}

static void end(struct admin *admin, struct admin_connection *connection)
{
    const struct port *port = admin->options.port;
    move(connection, ADMIN_FREE);
    port->watch_remove(port->context, connection->socket);
    port->close_socket(port->context, connection->socket);
}

/* A free place, or that of the connection that is there for longest. */
static struct admin_connection *take_place(struct admin *admin)
{
    struct admin_connection *oldest = &admin->connections[0];
    for (size_t index = 0; index < ADMIN_CONNECTIONS; index++) {
        struct admin_connection *connection = &admin->connections[index];
        if (connection->state == ADMIN_FREE) {
            return connection;
        }
        oldest = connection->since_ms < oldest->since_ms ? connection : oldest;
    }
    admin->evicted_count++;
    end(admin, oldest);
    return oldest;
}

static bool admit(struct admin *admin, port_socket socket)
{
    const struct port *port = admin->options.port;
    struct admin_connection *connection = take_place(admin);
    uint64_t token = admin->options.token + (uint64_t)(connection - admin->connections);
    if (port->watch_add(port->context, socket, PORT_READ, token) != PORT_OK) {
        port->close_socket(port->context, socket);
        return false;
    }
    move(connection, ADMIN_READING);
    connection->socket = socket;
    connection->since_ms = admin->now_ms;
    connection->due_ms = admin->now_ms + ADMIN_REQUEST_MS;
    connection->scan = (struct http_scan){0, 0};
    connection->received_bytes = 0;
    return true;
}

/* No handle or memory for one more: the newcomers stay in the listener's queue for a while. */
static void accept_later(struct admin *admin)
{
    const struct port *port = admin->options.port;
    port->watch_change(port->context, admin->listener, 0);
    admin->accept_due_ms = admin->now_ms + ADMIN_ACCEPT_PAUSE_MS;
}

static void accept_some(struct admin *admin)
{
    const struct port *port = admin->options.port;
    for (size_t count = 0; count < ADMIN_CONNECTIONS; count++) {
        port_socket socket;
        struct port_address peer;
        switch (port->accept(port->context, admin->listener, &socket, &peer)) {
        case PORT_OK:
            if (!admit(admin, socket)) {
                accept_later(admin);
                return;
            }
            break;
        case PORT_AGAIN:
            return;
        case PORT_CLOSED:
        case PORT_FAILED:
            accept_later(admin);
            return;
        }
    }
}

/* ---- Answering ---- */

/* Sends what is left; the connection lingers when that is all. */
static void push(struct admin *admin, struct admin_connection *connection)
{
    const struct port *port = admin->options.port;
    for (size_t index = 0; index < 2; index++) {
        struct span *part = &connection->parts[index];
        while (part->bytes > 0) {
            size_t sent_bytes = 0;
            switch (port->send(port->context, connection->socket, part->data, part->bytes, &sent_bytes)) {
            case PORT_OK:
                *part = span_of(part->data + sent_bytes, part->bytes - sent_bytes);
                break;
            case PORT_AGAIN:
                port->watch_change(port->context, connection->socket, PORT_WRITE);
                return;
            case PORT_CLOSED:
            case PORT_FAILED:
                end(admin, connection);
                return;
            }
        }
    }
    move(connection, ADMIN_LINGERING);
    connection->due_ms = admin->now_ms + ADMIN_LINGER_MS;
    port->shutdown_send(port->context, connection->socket);
    port->watch_change(port->context, connection->socket, PORT_READ);
}

static void write_head(struct text *head, uint16_t code, const char *content_type, const char *policy, size_t bytes)
{
    text_string(head, "HTTP/1.1 ");
    text_u64(head, code);
    text_char(head, ' ');
    text_string(head, http_status_phrase(code));
    text_string(head, "\r\nContent-Type: ");
    text_string(head, content_type);
    text_string(head, "\r\nContent-Length: ");
    text_u64(head, bytes);
    text_string(head, "\r\nContent-Security-Policy: ");
    text_string(head, policy != NULL ? policy : "default-src 'none'; frame-ancestors 'none'");
    if (code == 405) {
        text_string(head, "\r\nAllow: GET, HEAD");
    }
    text_string(head, "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
                      "Referrer-Policy: no-referrer\r\nConnection: close\r\n\r\n");
}

static void answer(struct admin *admin, struct admin_connection *connection, enum admin_status status,
                   const struct admin_page *like, struct span body, bool is_head)
{
    struct text head = text_in(connection->buffer, ADMIN_ANSWER_HEAD_BYTES);
    write_head(&head, admin_status_code(status), like->content_type, like->policy, body.bytes);
    CHECK(!head.truncated);
    admin->answers[status]++;
    connection->parts[0] = text_span(&head);
    connection->parts[1] = is_head ? span_of(NULL, 0) : body;
    connection->due_ms = admin->now_ms + ADMIN_ANSWER_MS;
    move(connection, ADMIN_SENDING);
    push(admin, connection);
}

static void refuse(struct admin *admin, struct admin_connection *connection, enum admin_status status,
                   const char *sentence, bool is_head)
{
    static const struct admin_page plain = {.content_type = "text/plain; charset=utf-8"};
    struct text page = text_in(connection->buffer + ADMIN_ANSWER_HEAD_BYTES, ADMIN_PAGE_BYTES_MAX);
    text_string(&page, sentence);
    text_char(&page, '\n');
    log_event(admin->options.log, LOG_DEBUG, "admin_refused", LOG_U64("status", admin_status_code(status)),
              LOG_TEXT("reason", sentence));
    answer(admin, connection, status, &plain, text_span(&page), is_head);
}

static enum admin_status status_of(uint16_t code)
{
    enum admin_status status = ADMIN_OK;
    while (admin_status_code(status) != code) {
        status++;
        CHECK(status < ADMIN_STATUS_COUNT);
    }
    return status;
}

static void answer_page(struct admin *admin, struct admin_connection *connection, const struct admin_page *page,
                        bool is_head)
{
    if (page->write == NULL) {
        answer(admin, connection, ADMIN_OK, page, page->constant, is_head);
        return;
    }
    struct text made = text_in(connection->buffer + ADMIN_ANSWER_HEAD_BYTES, ADMIN_PAGE_BYTES_MAX);
    enum admin_status status = status_of(page->write(admin->options.context, &made));
    if (made.truncated) {
        refuse(admin, connection, ADMIN_FAILED, "This page is longer than its buffer.", is_head);
        return;
    }
    answer(admin, connection, status, page, text_span(&made), is_head);
}

/* ---- Reading ---- */

/* NULL: a request that can be answered. */
static const char *read_request(struct span head, struct http_request_line *line, struct span *path)
{
    struct span query;
    struct http_field field;
    unsigned host_count = 0;
    bool has_valid_host = true;
    const char *error = http_read_request_line(&head, line);
    while (error == NULL && http_next_field(&head, &field, &error)) {
        if (http_is_word(field.name, "host")) {
            host_count++;
            has_valid_host = has_valid_host && http_host_valid(field.value);
        }
    }
    if (error != NULL) {
        return error;
    }
    if (host_count > 1 || (host_count == 0 && line->minor_version > 0) || !has_valid_host) {
        return "There must be exactly one valid Host header.";
    }
    return http_read_target(line->target, path, &query);
}

static void handle_request(struct admin *admin, struct admin_connection *connection)
{
    struct http_request_line line;
    struct span path;
    const char *error = read_request(span_of(connection->buffer, connection->scan.scanned_bytes), &line, &path);
    bool is_head = span_is(line.method, "HEAD");
    if (error != NULL) {
        refuse(admin, connection, ADMIN_BAD_REQUEST, error, is_head);
        return;
    }
    if (!is_head && !span_is(line.method, "GET")) {
        refuse(admin, connection, ADMIN_BAD_METHOD, "Only GET and HEAD are answered here.", false);
        return;
    }
    for (size_t index = 0; index < admin->options.page_count; index++) {
        const struct admin_page *page = &admin->options.pages[index];
        if (span_is(path, page->path)) {
            answer_page(admin, connection, page, is_head);
            return;
        }
    }
    refuse(admin, connection, ADMIN_NOT_FOUND, "There is no such page.", is_head);
}

static void read_some(struct admin *admin, struct admin_connection *connection)
{
    const struct port *port = admin->options.port;
    size_t received_bytes = 0;
    switch (port->receive(port->context, connection->socket, connection->buffer + connection->received_bytes,
                          ADMIN_REQUEST_BYTES_MAX - connection->received_bytes, &received_bytes)) {
    case PORT_OK:
        break;
    case PORT_AGAIN:
        return;
    case PORT_CLOSED:
    case PORT_FAILED:
        end(admin, connection);
        return;
    }
    connection->received_bytes += received_bytes;
    switch (http_scan(&connection->scan, span_of(connection->buffer, connection->received_bytes),
                      ADMIN_REQUEST_BYTES_MAX)) {
    case HTTP_MORE:
        break;
    case HTTP_WHOLE:
        handle_request(admin, connection);
        break;
    case HTTP_TOO_LONG:
        refuse(admin, connection, ADMIN_HEAD_TOO_LARGE, "The request's head is too long.", false);
        break;
    case HTTP_GARBAGE:
        refuse(admin, connection, ADMIN_BAD_REQUEST, "This is not HTTP.", false);
        break;
    }
}

/* What the peer still sends is of no interest; its end is. */
static void linger(struct admin *admin, struct admin_connection *connection)
{
    const struct port *port = admin->options.port;
    size_t received_bytes;
    switch (port->receive(port->context, connection->socket, connection->buffer, BUFFER_BYTES, &received_bytes)) {
    case PORT_OK:
    case PORT_AGAIN:
        break;
    case PORT_CLOSED:
    case PORT_FAILED:
        end(admin, connection);
        break;
    }
}

/* ---- Events and time ---- */

void admin_on_event(struct admin *admin, uint64_t token, uint64_t now_ms)
{
    CHECK(admin_owns(admin, token));
    admin->now_ms = now_ms;
    if (token == listener_token(admin)) {
        if (admin->listener != PORT_NONE && admin->accept_due_ms == 0) {
            accept_some(admin);
        }
        return;
    }
    struct admin_connection *connection = &admin->connections[token - admin->options.token];
    switch (connection->state) {
    case ADMIN_READING:
        read_some(admin, connection);
        break;
    case ADMIN_SENDING:
        push(admin, connection);
        break;
    case ADMIN_LINGERING:
        linger(admin, connection);
        break;
    case ADMIN_FREE: /* it ended earlier in this turn */
        break;
    case ADMIN_STATE_COUNT:
        CHECK(false);
    }
}

static void on_due(struct admin *admin, struct admin_connection *connection)
{
    if (connection->state == ADMIN_READING && connection->received_bytes > 0) {
        refuse(admin, connection, ADMIN_TIMEOUT, "The request took too long.", false);
    } else {
        end(admin, connection);
    }
}

uint64_t admin_turn(struct admin *admin, uint64_t now_ms)
{
    uint64_t due_ms = UINT64_MAX;
    admin->now_ms = now_ms;
    for (size_t index = 0; index < ADMIN_CONNECTIONS; index++) {
        struct admin_connection *connection = &admin->connections[index];
        if (connection->state != ADMIN_FREE && now_ms >= connection->due_ms) {
            on_due(admin, connection);
        }
        if (connection->state != ADMIN_FREE) {
            due_ms = number_smaller(due_ms, connection->due_ms);
        }
    }
    if (admin->accept_due_ms != 0 && now_ms >= admin->accept_due_ms) {
        admin->accept_due_ms = 0;
        admin->options.port->watch_change(admin->options.port->context, admin->listener, PORT_READ);
    }
    return admin->accept_due_ms != 0 ? number_smaller(due_ms, admin->accept_due_ms) : due_ms;
}

void admin_close(struct admin *admin)
{
    const struct port *port = admin->options.port;
    for (size_t index = 0; index < ADMIN_CONNECTIONS; index++) {
        if (admin->connections[index].state != ADMIN_FREE) {
            end(admin, &admin->connections[index]);
        }
    }
    if (admin->listener != PORT_NONE) {
        port->watch_remove(port->context, admin->listener);
        port->close_socket(port->context, admin->listener);
        admin->listener = PORT_NONE;
        admin->accept_due_ms = 0;
    }
}
