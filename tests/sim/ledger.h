/* SPDX-License-Identifier: MIT */
/* What was sent, what reached a queue, what was told; and what therefore must be true. It knows the protocol as the
 * documents state it (doc/protocol.md) and nothing of how the gateway works.
 *
 *  - told `accepted`: it reaches its queue, whatever happens (unless it is dropped);
 *  - dropped it is only by that rule, never after it was told `queued`, never without a line in the log, and not while
 *    all that the gateway can still have fits the spool (asked until the gateway ends for the first time, where no
 * write fails: later the disk may hold again what was done with, and torn writes leave parts of it unused);
 *  - told `queued`: it is in its queue for good; told `stored`, `rejected`, `dead`: the processor has said so;
 *  - what is in a queue was sent, is not altered in any byte, and carries the properties that are promised;
 *  - in a run without faults of broker, gateway and loop it is there as often as it was sent, at most;
 *  - a client's messages come to a queue for the first time in the order in which they were sent. */
#ifndef POSTERN_TESTS_SIM_LEDGER_H
#define POSTERN_TESTS_SIM_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "plan.h"
#include "span.h"

struct world;

enum {
    LEDGER_MESSAGES_MAX = 8000,
    LEDGER_NUMBERS_MAX = 4096, /* of one client */
    LEDGER_ID_BYTES = 160,
    LEDGER_REF_BYTES = 96,
    LEDGER_TEXT_BYTES = 4096,
    LEDGER_NONE = 0xFFFF
};

/* In the order in which a message goes through them; the last three end it. */
enum ledger_status { LEDGER_ACCEPTED, LEDGER_QUEUED, LEDGER_STORED, LEDGER_REJECTED, LEDGER_DEAD, LEDGER_STATUS_COUNT };

struct ledger_message {
    uint8_t client;
    uint8_t queue;
    bool has_id;
    bool was_told[LEDGER_STATUS_COUNT];
    bool is_dropped;
    bool is_processed;
    bool is_refused;            /* by the broker, when it came last */
    enum ledger_status verdict; /* the processor's */
    uint16_t submission_count;
    uint16_t enqueued_count;
    uint16_t gone_count;       /* confirms that the gateway has read, and drops */
    uint32_t publish_order;    /* among the first publishes that came to the broker; 0: none has */
    uint32_t queued_life;      /* of the gateway, in which `queued` was told; 0: it was not, or that is not certain */
    uint32_t confirm_link;     /* the connection on which a confirm was said that was not seen to be read; 0: none */
    uint64_t confirm_position; /* behind it */
    uint32_t number;           /* of its client's */
    uint32_t excused_number;   /* those up to it may come before it */
    uint32_t pad_bytes;
    uint32_t refused_link;     /* the connection it was refused on, */
    uint64_t refused_position; /* and where that was said, in the bytes to the gateway; UINT64_MAX: not yet */
    char made_id[LEDGER_ID_BYTES];
};

struct ledger {
    struct ledger_message messages[LEDGER_MESSAGES_MAX];
    uint32_t message_count;
    uint32_t numbers[PLAN_CLIENTS_MAX];
    uint32_t highest[PLAN_CLIENTS_MAX][PLAN_QUEUES];        /* number that came to a queue */
    uint16_t indexes[PLAN_CLIENTS_MAX][LEDGER_NUMBERS_MAX]; /* of messages, by number */
    bool is_undisturbed;                                    /* by plan: nothing has to be sent twice */
    bool is_disk_good;                                      /* by plan: no write fails, and each file is made */
    uint32_t promised_count;                                /* accepted and not in a queue */
    uint32_t refused_count;                                 /* by the broker, and in no queue */
    uint32_t published_count;                               /* at least once */
};

/* What came with a publish. */
struct ledger_publish {
    uint32_t link;
    uint64_t known_bytes; /* of the broker's words, that the gateway had read when it made this */
    struct span queue;
    struct span body;
    struct span message_id;
    struct span type;
    struct span content_type;
    struct span app_id;
    struct span reply_to;
    struct span correlation_id;
    uint64_t timestamp_s;
    bool is_persistent;
    bool is_mandatory;
};

void ledger_begin(struct world *world);

/* A new message of a client; its index. */
uint32_t ledger_create(struct world *world, uint32_t client);
/* What the client writes for it; the bytes. */
size_t ledger_write(const struct world *world, uint32_t index, char text[LEDGER_TEXT_BYTES]);
void ledger_submit(struct world *world, uint32_t index);
/* The message of a client with an id "m{number}"; LEDGER_NONE: there is none. */
uint32_t ledger_find(const struct world *world, uint32_t client, struct span id);

/* A publish came whole to the broker: which message it is. Fails the run if it is none. */
uint32_t ledger_recognize(struct world *world, const struct ledger_publish *publish);
/* The broker refused it; said at a position of its bytes (UINT64_MAX: will say). */
void ledger_refused(struct world *world, uint32_t index, uint32_t link, uint64_t position);
/* It did not refuse it, and it is on its way. */
void ledger_taken(struct world *world, uint32_t index);
/* It is in its queue for good. */
void ledger_enqueued(struct world *world, uint32_t index);
/* That was said, up to a position of the link's bytes. */
void ledger_confirmed(struct world *world, uint32_t index, uint32_t link, uint64_t position);
/* So many of a link's bytes were read. */
void ledger_read(struct world *world, uint32_t link, uint64_t bytes);
/* The power was cut, or a write had failed: of what was being written, later messages may be there and earlier ones
 * not, none of them accepted. When their client sends these again, they come behind those. */
void ledger_writes_were_torn(struct world *world);
void ledger_processed(struct world *world, uint32_t index, enum ledger_status verdict);
/* `life`: the gateway's, in which the connection was asked for. */
void ledger_told(struct world *world, uint32_t index, enum ledger_status status, struct span code, uint32_t life);
/* The log says so. */
void ledger_dropped(struct world *world, uint32_t index);

/* Every promise has come true. */
bool ledger_is_even(const struct world *world);
/* Says what is missing, as a failure. */
void ledger_check_end(struct world *world);

const char *ledger_status_name(enum ledger_status status);
const char *ledger_queue_name(uint32_t queue);

#endif
