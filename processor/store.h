/* SPDX-License-Identifier: MIT */
/* Where messages are stored: one batch at a time, whole or not at all.
 *
 * The store finds its database, connects, prepares, and keeps that alive: a lost connection is made again after a
 * backoff with jitter. A batch that was submitted stays with the store until it is decided, across lost connections
 * and deadlocks: storing a row twice is storing it once, so an undecided batch is simply sent again.
 *
 * Invariants: on_up and on_down take turns. After store_submit exactly one on_result follows, unless store_forget
 * comes first. Memory: from the arena; the database's library allocates its own. Thread: the loop's; nothing here
 * blocks. The handler may call everything of this header but store_start, _on_event, _on_job, _tick and _close. */
#ifndef POSTERN_PROCESSOR_STORE_H
#define POSTERN_PROCESSOR_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "span.h"

struct arena;
struct log;
struct port;
struct port_job;
struct store;

/* A message to store. (client_id, message_id) is its identity. All text is UTF-8 without NUL, content is JSON. */
struct store_row {
    struct span client_id;
    struct span message_id;
    struct span type;
    struct span content;
    struct span gateway; /* empty: none */
    int64_t received_unix_ms;
    bool has_received_at;
};

enum store_outcome {
    STORE_STORED,   /* committed: each row is there, now or from before */
    STORE_BAD_DATA, /* nothing is stored: the database cannot hold a value of at least one of the rows */
    STORE_BAD_ROW,  /* nothing is stored: a rule of the database refuses at least one of the rows */
    STORE_TIMEOUT   /* undecided: the database did not get through with so many rows in time; logged */
};

struct store_result {
    enum store_outcome outcome;
    const uint32_t
        *rejected; /* STORE_STORED: the rows whose status is `rejected`, by their place in the batch, rising */
    size_t rejected_count;
    size_t inserted_count;          /* STORE_STORED: the rows that were not there before the first attempt */
    size_t inserted_rejected_count; /* of these, `rejected` */
    const char *message;            /* STORE_BAD_*: what the database says and its SQLSTATE, one line */
};

/* All are needed. */
struct store_handler {
    void (*on_up)(void *context);   /* prepared: batches are taken, one that is undecided is being sent again */
    void (*on_down)(void *context); /* the connection is gone; logged */
    void (*on_result)(void *context, const struct store_result *result);
};

struct store_options {
    const char *url;          /* stays alive */
    uint64_t token;           /* the poller's, for store_on_event */
    size_t row_count_max;     /* of a batch */
    size_t content_bytes_max; /* of a batch; one row of that much fits */
};

/* Takes the store from `arena`. Returns NULL while the arena measures, never otherwise. What the options name stays
 * alive, as do port, log and handler. */
struct store *store_init(struct arena *arena, struct port *port, struct log *log, const struct store_options *options,
                         const struct store_handler *handler, void *context);

enum { STORE_URL_ERROR_BYTES = 256 };

/* Whether the URL can be understood; if not, `error` (terminated) says why, without the password. */
bool store_url_valid(const char *url, char *error, size_t error_bytes);

/* Begins to connect. */
void store_start(struct store *store, uint64_t now_ms);
/* The poller reported our token. */
void store_on_event(struct store *store, uint64_t now_ms);
/* A job came back from the worker: true if it was the store's. */
bool store_on_job(struct store *store, const struct port_job *job, uint64_t now_ms);
/* Does what is due; returns when the next thing is, UINT64_MAX if nothing. */
uint64_t store_tick(struct store *store, uint64_t now_ms);
/* Ends the connection for good; an undecided batch stays undecided. */
void store_close(struct store *store);

/* Connected and prepared. */
bool store_up(const struct store *store);
/* No batch is with the store. */
bool store_idle(const struct store *store);

/* A batch: begin, add rows, submit. Only while idle; the spans need only live for the call. store_add returns false
 * when the row does not fit (a batch's first row always does) and leaves it out. */
void store_begin(struct store *store);
bool store_add(struct store *store, const struct store_row *row);
/* At least one row was added. Sent at once if the store is up, else once it is. */
void store_submit(struct store *store, uint64_t now_ms);
/* Takes an undecided batch back; only while the store is down. It may have been stored nevertheless. */
void store_forget(struct store *store);

#endif
