/* SPDX-License-Identifier: MIT */
/* One connection to PostgreSQL, non-blocking: what the store needs of libpq, and no more.
 *
 * libpq opens, changes and closes its socket within its calls. Therefore the socket is watched only between them: each
 * function here takes the watch off, and puts it back for what the socket is then.
 *
 * Invariant: after anything returned false or STORE_POSTGRES_LOST, `cause` says why and only store_postgres_close may
 * follow. One statement is out at a time. Memory: the caller's struct; libpq allocates its own. Thread: the loop's. */
#ifndef POSTERN_PROCESSOR_STORE_POSTGRES_H
#define POSTERN_PROCESSOR_STORE_POSTGRES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "port.h"
#include "sqlstate.h"

struct column;
struct store_target;
struct pg_conn; /* libpq's PGconn */

enum { STORE_CAUSE_BYTES = 256 };

enum store_postgres_event {
    STORE_POSTGRES_NOTHING,
    STORE_POSTGRES_CONNECTED,
    STORE_POSTGRES_ANSWERED, /* the statement is answered whole: see `failed` */
    STORE_POSTGRES_LOST      /* the connect failed, or the connection is gone */
};

struct store_postgres {
    struct port *port;
    uint64_t token;
    struct pg_conn *connection;
    port_socket watched; /* PORT_NONE: nothing */
    uint32_t interest;
    bool is_connecting;
    bool is_asked; /* a statement is out */

    bool failed; /* of the last statement; then `kind` and `cause` say how */
    enum sqlstate_kind kind;
    char cause[STORE_CAUSE_BYTES]; /* one line */

    uint64_t *numbers; /* of the last statement: what its rows hold, row by row */
    size_t number_count;
    size_t number_max;
};

/* `numbers` has room for number_max; a statement that answers with more of them is a mistake. */
void store_postgres_init(struct store_postgres *postgres, struct port *port, uint64_t token, uint64_t *numbers,
                         size_t number_max);

/* Reads which hosts the URL names (or PGHOST, where it names none). False: `error` (terminated) says why, without the
 * password. */
bool store_postgres_read_url(const char *url, struct store_target *target, char *error, size_t error_bytes);

/* Begins to connect to the target's present address. */
bool store_postgres_connect(struct store_postgres *postgres, const char *url, const struct store_target *target);

/* The poller reported our token. */
enum store_postgres_event store_postgres_on_event(struct store_postgres *postgres);

/* Statements; ANSWERED follows, or LOST. Parameters and results are binary, results are whole numbers of 64 bits. */
bool store_postgres_run(struct store_postgres *postgres, const char *sql);
bool store_postgres_prepare(struct store_postgres *postgres, const char *name, const char *sql, const uint32_t *types,
                            size_t type_count);
bool store_postgres_execute(struct store_postgres *postgres, const char *name, const struct column *columns,
                            size_t column_count);

/* Ends the connection, if there is one. */
void store_postgres_close(struct store_postgres *postgres);

/* Where we are connected to; static text while connected. */
const char *store_postgres_host(const struct store_postgres *postgres);
const char *store_postgres_port(const struct store_postgres *postgres);
const char *store_postgres_database(const struct store_postgres *postgres);

#endif
