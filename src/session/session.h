/* SPDX-License-Identifier: MIT */
/* Who is connected: one session per client id, in a table of fixed size.
 *
 * Invariants: at most one session per client id; the number of sessions is the table's own count and never more than
 * its capacity; a handle names one session for ever, because each use of a record has a generation of its own, so a
 * late end of an older session cannot touch the newer one. Client ids are hashed with a key of this start, so that
 * nobody can choose ids that fall together. Memory: fixed, from the arena. Thread: the loop's. */
#ifndef POSTERN_SESSION_SESSION_H
#define POSTERN_SESSION_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "heartbeat.h"
#include "limits.h"
#include "rate.h"
#include "settings.h"
#include "siphash.h"
#include "span.h"

enum { SESSION_NONE = UINT32_MAX };

struct session_handle {
    uint32_t index;
    uint32_t generation; /* 0 is never a live one */
};

/* How far the broker knows of this session's client (for the downlink's owner; see links below). */
enum session_binding {
    SESSION_BINDING_NONE,   /* nothing asked for */
    SESSION_BINDING_WANTED, /* stands in the list of wishes */
    SESSION_BINDING_SENT    /* asked of the broker on the present channel */
};

/* One connected client. The table owns it; the fields after the first block are its owner's to change. */
struct session {
    /* The table's. */
    uint8_t client_id[CLIENT_ID_BYTES_MAX];
    uint32_t hash;
    uint32_t generation;
    uint8_t client_id_bytes; /* 0: the record is free */

    uint8_t receipts_mask;  /* RECEIPTS_* bits, see receipts.h */
    uint8_t binding;        /* enum session_binding */
    uint32_t message_count; /* of this connection; the last one's seq */

    uint32_t connection_index;
    uint32_t connection_generation;
    uint32_t link_previous; /* the owner's list of sessions, by index; SESSION_NONE at its ends */
    uint32_t link_next;

    struct rate errors;
    struct heartbeat heartbeat;
};

_Static_assert(sizeof(struct session) <= 128, "an idle client's record is at most 256 bytes with net's part");

struct session_table {
    struct session *sessions;
    uint32_t *slots; /* open addressing: a session's index, or SESSION_NONE */
    uint32_t capacity;
    uint32_t slot_mask;
    uint32_t count;
    uint32_t peak_count;
    uint32_t *free_stack; /* indexes of free records; the last given back is used first, while it is warm */
    struct siphash_key key;
};

enum session_outcome {
    SESSION_ADMITTED,          /* a new session; `session` names it */
    SESSION_TAKES_OVER,        /* a new session; the older one of that id is ended, its copy is in `older` */
    SESSION_REFUSED_CONNECTED, /* the policy keeps the older one */
    SESSION_REFUSED_FULL       /* the table is full */
};

/* Carves a table for `capacity` sessions (at least 1). `key` is random, secret and of this start. */
void session_table_init(struct session_table *table, struct arena *arena, uint32_t capacity, struct siphash_key key);

/* Asks for a session. What becomes of a second connection with the same client id is the policy's: reject refuses the
 * newcomer, takeover ends the older one, takeover-stale does so if the older one has been silent for too long.
 * `older_silent` is asked only when the id is taken: whether the older one has been silent for so long that
 * takeover-stale may end it. A taken-over session's binding stays in the new one, because the broker's binding is the
 * client's, and `older` gets a copy of the ended record (only then). The new session's fields are zero but for its id,
 * binding and links; the caller fills in the connection. client_id has 1 to CLIENT_ID_BYTES_MAX. */
enum session_outcome session_admit(struct session_table *table, struct span client_id,
                                   enum settings_session_policy policy,
                                   bool (*older_silent)(void *context, const struct session *older), void *context,
                                   struct session **session, struct session *older);

/* Ends a session and frees its record. */
void session_end(struct session_table *table, struct session *session);

/* The present session of a client id; NULL when it has none. */
struct session *session_find(const struct session_table *table, struct span client_id);

/* The session a handle names; NULL when it has ended. */
struct session *session_by_handle(const struct session_table *table, struct session_handle handle);

/* The session with that index, which must be in use. */
struct session *session_at(const struct session_table *table, uint32_t index);

uint32_t session_index(const struct session_table *table, const struct session *session);
struct session_handle session_handle_of(const struct session_table *table, const struct session *session);

static inline struct span session_client_id(const struct session *session)
{
    return span_of(session->client_id, session->client_id_bytes);
}

static inline bool session_in_use(const struct session *session)
{
    return session->client_id_bytes != 0;
}

#endif
