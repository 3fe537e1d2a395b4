/* SPDX-License-Identifier: MIT */
/* An AMQP 0-9-1 peer on loopback that does as the test says, for what a real broker cannot be made to do: nacks at
 * will, acks out of order, silence, garbage, resets at any byte. It speaks through librabbitmq's codec.
 *
 * It runs in the test's thread: fake_broker_step accepts, reads, answers and writes what it can without waiting. One
 * connection at a time; a new one is accepted when the last is gone. */
#ifndef POSTERN_TESTS_FAKE_BROKER_H
#define POSTERN_TESTS_FAKE_BROKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fake_publish {
    uint64_t tag;
    char exchange[256];
    char routing_key[256];
    char message_id[256];
    char correlation_id[256];
    char reply_to[256];
    char type[256];
    char app_id[256];
    char content_type[256];
    uint64_t timestamp_s;
    bool is_mandatory;
    bool is_persistent;
    uint64_t body_bytes; /* announced */
    size_t got_bytes;
    size_t frame_count; /* of the body */
    char *body;
};

enum { FAKE_PUBLISHES_MAX = 8000 };

struct fake_broker {
    /* What the test asks for, at any time. */
    bool is_silent;            /* accepts and says nothing */
    bool acks;                 /* acks every publish at once, singly */
    bool queue_exists;         /* else a passive declare closes the channel with 404 */
    bool is_deaf;              /* accepts no connection */
    uint16_t create_code;      /* not 0: a creation closes the channel with this code, and then the queue exists */
    uint16_t consume_code;     /* not 0: a consume closes the channel with this code */
    uint16_t login_code;       /* not 0: the login is refused with this code */
    uint16_t vhost_code;       /* not 0: connection.open is refused with this code */
    const char *delivery_type; /* of the deliveries' messages; "receipts" at first */
    uint32_t frame_max;
    uint16_t heartbeat;
    size_t chunk_bytes;    /* writes at most so much a step; 0: all */
    size_t reset_at_bytes; /* not 0: resets the connection once it has written so many bytes */
    const char *greeting;  /* not NULL: says this instead of AMQP */
    size_t greeting_bytes;

    /* What came. */
    struct fake_publish *publishes; /* of the present connection and those before */
    size_t publish_count;
    size_t connection_count;
    size_t channel_count;
    size_t passive_count;
    size_t create_count;
    size_t heartbeat_count;
    size_t close_count; /* connection.close */
    size_t bind_count;
    size_t unbind_count;
    size_t consume_count;
    uint64_t acked_tag; /* the last basic.ack of a consumer */
    bool acked_multiple;
    uint16_t prefetch;     /* the last basic.qos asked for */
    char created_type[32]; /* x-queue-type of the last creation */
    char connection_name[256];
    uint16_t agreed_heartbeat;
    uint32_t agreed_frame_max;
    size_t frame_bytes_peak; /* the largest frame that came, with its header and end */

    /* Its own. */
    int listener;
    int socket;
    uint16_t port;
    void *codec;
    size_t header_bytes; /* of the client's protocol header, seen */
    uint64_t next_tag;
    bool in_content;
    uint8_t *out;
    size_t out_bytes;
    size_t out_max;
    size_t written_bytes; /* on this connection */
};

/* Listens on a port of the kernel's choice; handshakes well, has the queue, and acks nothing by itself. */
void fake_broker_open(struct fake_broker *broker);
void fake_broker_end(struct fake_broker *broker);

/* True: something happened. */
bool fake_broker_step(struct fake_broker *broker);

bool fake_broker_connected(const struct fake_broker *broker);

void fake_broker_ack(struct fake_broker *broker, uint64_t tag, bool multiple);
void fake_broker_nack(struct fake_broker *broker, uint64_t tag, bool multiple);
void fake_broker_return(struct fake_broker *broker, const struct fake_publish *publish);
void fake_broker_blocked(struct fake_broker *broker, bool is_blocked);
void fake_broker_close_channel(struct fake_broker *broker, uint16_t code, const char *text);
void fake_broker_close_connection(struct fake_broker *broker, uint16_t code, const char *text);
void fake_broker_cancel(struct fake_broker *broker, const char *consumer_tag);
/* A delivery whose body comes in frames of at most frame_bytes. It has all properties the link reads and the headers
 * reason (text), count (integer), first-failure (timestamp) and odd (a table). */
void fake_broker_deliver(struct fake_broker *broker, uint64_t tag, const char *routing_key, const void *body,
                         size_t body_bytes, size_t frame_bytes);
void fake_broker_raw(struct fake_broker *broker, const void *bytes, size_t count);

/* Ends the connection with an RST, and in good order. */
void fake_broker_reset(struct fake_broker *broker);
void fake_broker_drop(struct fake_broker *broker);

#endif
