/* SPDX-License-Identifier: MIT */
/* Reads messages out of a client's byte stream (RFC 6455 sections 5 to 7): frames, fragments, control frames between
 * fragments, UTF-8 as it arrives. Sans I/O: bytes go in, events come out.
 *
 * The bytes of one read are a mutable range which `message_next` eats from the front, an event a call, until it
 * wants more. A message whose only frame lies whole in the range is unmasked in place and pointed at there. Anything
 * cut by the range's end is carried in a buffer, which the caller attaches when asked (MESSAGE_BUFFER) and may take
 * away whenever, after MESSAGE_MORE or once an event was dealt with, message_wants_buffer says no. A cut frame header
 * needs no buffer.
 *
 * Invariants: what is refused is refused at the earliest byte that shows it: a bad header at once, a too long
 * message from its frame's header, bad UTF-8 at its first bad byte. The same bytes give the same events however they
 * are cut. After MESSAGE_FAILED or MESSAGE_CLOSE the reader is at its end and must not be called again.
 *
 * Memory: the reader is the caller's, zero at the start; so are the range and the buffer. Thread: its owner's. */
#ifndef POSTERN_WEBSOCKET_MESSAGE_H
#define POSTERN_WEBSOCKET_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frame.h"
#include "utf8.h"

/* What is kept between two reads. Small, because it stands in every connection's record. */
struct message_reader {
    union {
        uint8_t header[FRAME_HEADER_BYTES_MAX]; /* while a frame header is cut */
        struct {
            uint32_t left_bytes; /* of the frame's payload */
            uint8_t mask[FRAME_MASK_BYTES];
        } frame; /* while its payload is cut */
    } part;
    uint8_t header_used_bytes; /* > 0: a header is cut */
    uint8_t control_used_bytes;
    uint8_t frame_opcode;   /* of the frame whose payload is cut, with READER_IN_FRAME and READER_FINAL */
    uint8_t message_opcode; /* text or binary while a fragmented message is open, else 0 */
    uint8_t state;
    struct utf8 utf8;       /* of the open text message; between messages nothing is pending */
    uint32_t message_bytes; /* of the open message that stand in the buffer */
};

enum message_event_kind {
    MESSAGE_MORE,   /* the range is eaten up: read on */
    MESSAGE_BUFFER, /* call again with a buffer of message_buffer_bytes; nothing was lost */
    MESSAGE_TEXT,   /* data, bytes: a whole message, valid UTF-8 */
    MESSAGE_BINARY, /* data, bytes: a whole message */
    MESSAGE_PING,   /* data, bytes: to be sent back in a pong */
    MESSAGE_PONG,   /* data, bytes */
    MESSAGE_CLOSE,  /* code (FRAME_CLOSE_NO_STATUS when the frame had none); data, bytes: its reason */
    MESSAGE_FAILED  /* code to close with (1002, 1007, 1009); reason */
};

/* Data points into the range or the buffer and is good until the next call. Its bytes are the caller's to change. */
struct message_event {
    enum message_event_kind kind;
    uint16_t code;
    uint8_t *data;
    size_t bytes;
    const char *reason; /* MESSAGE_FAILED: one static sentence */
};

/* What is still to be eaten of a read. */
struct message_input {
    uint8_t *data;
    size_t bytes;
};

/* How large a buffer for messages of up to message_bytes_max (at most UINT32_MAX / 2) must be: a message, and a
 * control frame that comes between its fragments. */
static inline size_t message_buffer_bytes(size_t message_bytes_max)
{
    return message_bytes_max + WEBSOCKET_CONTROL_BYTES_MAX;
}

/* The next event. `buffer` is NULL, or the one attached: message_buffer_bytes(message_bytes_max) long and the same
 * in each call while message_wants_buffer(reader). */
struct message_event message_next(struct message_reader *reader, struct message_input *input, uint8_t *buffer,
                                  size_t message_bytes_max);

/* For an owner that has sent its own close frame and wants only the peer's: eats the range, gives no messages, keeps
 * nothing (the buffer may go at once). True once the peer is done: its close frame began, or what it sends is no
 * WebSocket any more. After that the reader is at its end. */
bool message_discard(struct message_reader *reader, struct message_input *input);

/* True while the buffer holds bytes the reader will need: it must stay attached. */
bool message_wants_buffer(const struct message_reader *reader);

#endif
