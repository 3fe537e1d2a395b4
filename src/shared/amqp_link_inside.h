/* SPDX-License-Identifier: MIT */
/* The inside of amqp_link, shared by its two files only: amqp_link_life.c holds the conversation, amqp_link.c turns it
 * into bytes and back by librabbitmq, whose types stay there.
 *
 * Memory: the link's. Thread: the loop's. */
#ifndef POSTERN_SHARED_AMQP_LINK_INSIDE_H
#define POSTERN_SHARED_AMQP_LINK_INSIDE_H

#include "amqp_link.h"
#include "amqp_wire.h"

enum { AMQP_CHANNEL = 1, AMQP_CONTENT_CLASS = 60, AMQP_SHORT_STRING_BYTES_MAX = 255 };

/* Where the conversation stands, while the wire is open. */
enum amqp_phase {
    AMQP_PHASE_NONE,
    AMQP_PHASE_STARTING,
    AMQP_PHASE_TUNING,
    AMQP_PHASE_OPENING,
    AMQP_PHASE_CHANNEL,
    AMQP_PHASE_CONFIRM,
    AMQP_PHASE_READY,
    AMQP_PHASE_CLOSING,
    AMQP_PHASE_COUNT
};

/* The methods a broker may send us, and all others. */
enum amqp_method_kind {
    AMQP_METHOD_CONNECTION_START,
    AMQP_METHOD_CONNECTION_TUNE,
    AMQP_METHOD_CONNECTION_OPEN_OK,
    AMQP_METHOD_CONNECTION_CLOSE,
    AMQP_METHOD_CONNECTION_CLOSE_OK,
    AMQP_METHOD_CONNECTION_BLOCKED,
    AMQP_METHOD_CONNECTION_UNBLOCKED,
    AMQP_METHOD_CHANNEL_OPEN_OK,
    AMQP_METHOD_CHANNEL_CLOSE,
    AMQP_METHOD_CONFIRM_OK,
    AMQP_METHOD_QUEUE_DECLARE_OK,
    AMQP_METHOD_EXCHANGE_DECLARE_OK,
    AMQP_METHOD_BIND_OK,
    AMQP_METHOD_UNBIND_OK,
    AMQP_METHOD_QOS_OK,
    AMQP_METHOD_CONSUME_OK,
    AMQP_METHOD_CANCEL,
    AMQP_METHOD_ACK,
    AMQP_METHOD_NACK,
    AMQP_METHOD_DELIVER,
    AMQP_METHOD_RETURN,
    AMQP_METHOD_OTHER
};

/* A method that came. Only the fields of its kind are set; spans point into the frame. */
struct amqp_method {
    enum amqp_method_kind kind;
    uint32_t id;              /* class and method, as on the wire */
    uint64_t tag;             /* ACK, NACK, DELIVER */
    bool multiple;            /* ACK, NACK */
    bool redelivered;         /* DELIVER */
    bool nowait;              /* CANCEL */
    uint16_t code;            /* CLOSE, RETURN */
    uint16_t heartbeat_s;     /* TUNE */
    uint32_t frame_bytes_max; /* TUNE */
    uint32_t message_count;   /* QUEUE_DECLARE_OK */
    uint32_t consumer_count;  /* likewise */
    struct span text;         /* CLOSE, RETURN, BLOCKED; START: the mechanisms */
    struct span name;         /* the queue or consumer tag; START: the broker's version */
    struct span exchange;     /* DELIVER, RETURN */
    struct span routing_key;  /* likewise */
};

/* What frame of a content is awaited. */
enum amqp_content_part { AMQP_CONTENT_NONE, AMQP_CONTENT_HEADER, AMQP_CONTENT_BODY };

struct amqp_codec; /* librabbitmq's memory */

struct amqp_link {
    struct amqp_wire wire;
    struct amqp_codec *codec;
    struct log *log;
    struct amqp_link_options options;
    const struct amqp_link_handler *handler;
    void *context;
    struct amqp_link_counters counters;
    enum amqp_phase phase;
    bool is_channel_open; /* on_channel was called, and neither of its two ends */
    bool is_blocked;
    uint64_t blocked_since_ms;
    uint64_t close_due_ms;
    uint64_t published_tag;
    uint32_t channel_closes; /* since the last proof of health */

    enum amqp_content_part content_part;
    bool content_is_return;
    uint16_t return_code;
    struct span return_text;
    struct amqp_message message;
    size_t content_bytes; /* used of content_buffer */
    uint8_t *content_buffer;
    uint64_t body_left_bytes;
    size_t body_bytes; /* used of body_buffer */
    uint8_t *body_buffer;
    char version[32]; /* the broker's, terminated */
};

/* Methods may be written: READY, and no failure noted. */
bool amqp_link_can_write(const struct amqp_link *link);

/* ---- amqp_link.c ---- */

/* Takes the codec's record from `arena`; NULL while it measures. */
struct amqp_codec *amqp_codec_init(struct arena *arena);
void amqp_codec_release(struct amqp_codec *codec);
/* Nothing decoded before is needed any more. */
void amqp_codec_recycle(struct amqp_codec *codec);

/* A method frame's payload (4 bytes at least). False: it is malformed, or no method of AMQP 0-9-1. */
bool amqp_codec_method(struct amqp_codec *codec, struct span payload, struct amqp_method *method);
/* A header frame's properties without the headers, into those of `message`. False: malformed. */
bool amqp_codec_properties(struct amqp_codec *codec, struct span properties, struct amqp_message *message);

/* What the conversation itself needs to write. False: no room in the out buffer. */
bool amqp_link_write_start_ok(struct amqp_link *link, struct span login, struct span connection_name);
bool amqp_link_write_tune_ok(struct amqp_link *link, uint32_t frame_bytes_max, uint16_t heartbeat_s);
bool amqp_link_write_open(struct amqp_link *link, const char *vhost);
bool amqp_link_write_close(struct amqp_link *link);
bool amqp_link_write_close_ok(struct amqp_link *link);
bool amqp_link_write_channel_open(struct amqp_link *link);
bool amqp_link_write_channel_close_ok(struct amqp_link *link);
bool amqp_link_write_confirm_select(struct amqp_link *link);
bool amqp_link_write_cancel_ok(struct amqp_link *link, struct span consumer_tag);

#endif
