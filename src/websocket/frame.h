/* SPDX-License-Identifier: MIT */
/* WebSocket frames on the wire (RFC 6455 section 5.2): the header's bytes, and the mask. What a frame means in its
 * place, among others, is message.h's.
 *
 * Memory: the caller's. Thread: any. */
#ifndef POSTERN_WEBSOCKET_FRAME_H
#define POSTERN_WEBSOCKET_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "limits.h"
#include "span.h"

enum frame_opcode {
    FRAME_CONTINUATION = 0,
    FRAME_TEXT = 1,
    FRAME_BINARY = 2,
    FRAME_CLOSE = 8,
    FRAME_PING = 9,
    FRAME_PONG = 10
};

enum {
    FRAME_HEADER_BYTES_MAX = 14, /* two, a 64-bit length and a mask */
    FRAME_SEND_HEADER_BYTES_MAX = 10,
    FRAME_MASK_BYTES = 4,
    FRAME_CONTROL_OPCODE_MIN = 8
};

/* Close codes (RFC 6455 section 7.4.1 and the IANA registry). */
enum {
    FRAME_CLOSE_GOING_AWAY = 1001,
    FRAME_CLOSE_PROTOCOL_ERROR = 1002,
    FRAME_CLOSE_UNSUPPORTED = 1003,
    FRAME_CLOSE_NO_STATUS = 1005, /* never on the wire: the close frame held no code */
    FRAME_CLOSE_ABNORMAL = 1006,  /* never on the wire: there was no close frame */
    FRAME_CLOSE_INVALID_DATA = 1007,
    FRAME_CLOSE_POLICY = 1008,
    FRAME_CLOSE_TOO_BIG = 1009,
    FRAME_CLOSE_SERVICE_RESTART = 1012,
    FRAME_CLOSE_TRY_AGAIN_LATER = 1013
};

struct frame_header {
    uint64_t payload_bytes;
    uint8_t opcode; /* any of 0 to 15; the reserved ones too */
    uint8_t reserved_bits;
    uint8_t header_bytes;
    bool is_final;
    bool is_masked;
    uint8_t mask[FRAME_MASK_BYTES]; /* when masked */
};

/* How many bytes the header has that begins with these; 2 while its second byte is not there. */
size_t frame_header_bytes(struct span input);

/* Reads the header at the start of `input`, which holds at least frame_header_bytes(input) bytes. False when its
 * length is not in the shortest form or has its highest bit set (a protocol error). */
bool frame_read_header(struct span input, struct frame_header *header);

/* Writes an unmasked (server's) header; returns its bytes. */
size_t frame_write_header(uint8_t out[FRAME_SEND_HEADER_BYTES_MAX], enum frame_opcode opcode, bool is_final,
                          uint64_t payload_bytes);

/* Takes the mask off `bytes` bytes in place; `mask` is the one of the first byte given, so the caller turns it
 * (frame_turn_mask) when a payload comes in pieces. Touches no byte outside. */
void frame_unmask(uint8_t *data, size_t bytes, const uint8_t mask[FRAME_MASK_BYTES]);

/* Turns the mask for the payload that comes after `bytes` more bytes of it. */
void frame_turn_mask(uint8_t mask[FRAME_MASK_BYTES], size_t bytes);

/* Whether a peer may send this code in a close frame: 1000 to 1003, 1007 to 1014, 3000 to 4999. */
bool frame_close_code_valid(uint16_t code);

#endif
