/* SPDX-License-Identifier: MIT */
/* A small HTTP/1.1 server for a program's own pages: health, metrics, and what a person wants to look at.
 *
 * It answers GET and HEAD of a fixed list of pages, one request a connection, and closes. Nobody can make it wait or
 * grow: a few connections with a buffer each; a request has ADMIN_REQUEST_MS to arrive, an answer ADMIN_ANSWER_MS to be
 * taken; and when all places are taken, a newcomer gets that of the connection that is there for longest.
 *
 * Invariants: no call blocks; a page is made in one piece, within one turn of the loop, so it shows one moment. What
 * goes wrong here is answered, or the connection is closed, and nothing else in the program hears of it. Memory: from
 * the arena, none when it is off. Thread: the loop's. */
#ifndef POSTERN_ADMIN_ADMIN_H
#define POSTERN_ADMIN_ADMIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "http.h"
#include "port.h"
#include "span.h"
#include "text.h"

struct arena;
struct log;

enum {
    ADMIN_CONNECTIONS = 8, /* a browser opens up to six */
    ADMIN_WATCHES = ADMIN_CONNECTIONS + 1,
    ADMIN_REQUEST_BYTES_MAX = 8192,  /* of its head; browsers send each host's cookies to all of its ports */
    ADMIN_ANSWER_HEAD_BYTES = 1024,  /* room for an answer's head */
    ADMIN_PAGE_BYTES_MAX = 40 << 10, /* of a page that is made; beyond, 500 is answered */
    ADMIN_REQUEST_MS = 5000,
    ADMIN_ANSWER_MS = 10000,
    ADMIN_LINGER_MS = 1000, /* until the peer has ended its side, so that our last bytes are not lost to a reset */
    ADMIN_ACCEPT_PAUSE_MS = 100
};

struct admin_page {
    const char *path;         /* "/metrics" */
    const char *content_type; /* with its charset */
    const char *policy;       /* its Content-Security-Policy; NULL: it may load and do nothing */
    struct span constant;     /* what it is; empty where it is made: */
    /* Writes the page and returns its HTTP status. */
    uint16_t (*write)(void *context, struct text *page);
};

struct admin_options {
    struct port *port;
    struct log *log;
    const struct admin_page *pages; /* stay alive */
    size_t page_count;
    void *context;  /* of their `write` */
    uint64_t token; /* the poller's: this one and the ADMIN_WATCHES - 1 after it */
};

/* The statuses that are answered with, for the counters. */
enum admin_status {
    ADMIN_OK,
    ADMIN_BAD_REQUEST,
    ADMIN_NOT_FOUND,
    ADMIN_BAD_METHOD,
    ADMIN_TIMEOUT,
    ADMIN_HEAD_TOO_LARGE,
    ADMIN_FAILED,
    ADMIN_UNAVAILABLE,
    ADMIN_STATUS_COUNT
};

enum admin_state {
    ADMIN_FREE,
    ADMIN_READING,   /* the request is not whole */
    ADMIN_SENDING,   /* the answer is not all taken */
    ADMIN_LINGERING, /* only the end of the peer's stream is awaited */
    ADMIN_STATE_COUNT
};

struct admin_connection {
    enum admin_state state;
    port_socket socket;
    uint64_t since_ms;
    uint64_t due_ms; /* of the state */
    struct http_scan scan;
    size_t received_bytes;
    struct span parts[2]; /* of the answer: head and page; what is still to be sent */
    uint8_t *buffer;      /* the request, then the answer */
};

struct admin {
    struct admin_options options;
    struct admin_connection connections[ADMIN_CONNECTIONS];
    uint64_t answers[ADMIN_STATUS_COUNT]; /* since start */
    uint64_t evicted_count;
    uint64_t now_ms;
    uint64_t accept_due_ms; /* accepting pauses until then; 0: it does not */
    port_socket listener;   /* PORT_NONE: off */
};

/* Takes the buffers from `arena` if is_on; without, admin_listen must not be called and all else does nothing. */
void admin_init(struct admin *admin, struct arena *arena, const struct admin_options *options, bool is_on);

/* Listens; false when the port could not (port's error_text says why). */
bool admin_listen(struct admin *admin, const struct port_address *address);

/* The address listened on, with the port that was chosen for port 0. */
bool admin_local_address(const struct admin *admin, struct port_address *address);

/* Whether an event of the poller is this server's; then admin_on_event is to be told. */
static inline bool admin_owns(const struct admin *admin, uint64_t token)
{
    return token - admin->options.token < ADMIN_WATCHES;
}
void admin_on_event(struct admin *admin, uint64_t token, uint64_t now_ms);

/* Ends what has taken too long. Returns when it is due again, UINT64_MAX if nothing is. */
uint64_t admin_turn(struct admin *admin, uint64_t now_ms);

/* Closes everything at once. Harmless when it is off. */
void admin_close(struct admin *admin);

/* "200": of a counter. */
uint16_t admin_status_code(enum admin_status status);

#endif
