/* SPDX-License-Identifier: MIT */
/* A header's length follows from its second byte, so it is read in one step once that many bytes are there. The mask
 * is taken off eight bytes at a time through unaligned loads, which cost nothing on the machines we build for; the
 * rest of up to seven goes byte by byte, so that nothing outside the range is touched. */
#include "frame.h"

#include <string.h>

#include "check.h"

enum {
    FINAL_BIT = 0x80,
    RESERVED_SHIFT = 4,
    RESERVED_MASK = 7,
    OPCODE_MASK = 0x0f,
    MASK_BIT = 0x80,
    LENGTH_MASK = 0x7f,
    LENGTH_16 = 126,
    LENGTH_64 = 127
};

static size_t length_field_bytes(uint8_t second)
{
    uint8_t length = second & LENGTH_MASK;
    return length == LENGTH_64 ? 8 : length == LENGTH_16 ? 2 : 0;
}

size_t frame_header_bytes(struct span input)
{
    if (input.bytes < 2) {
        return 2;
    }
    return 2 + length_field_bytes(input.data[1]) + ((input.data[1] & MASK_BIT) != 0 ? FRAME_MASK_BYTES : 0);
}

bool frame_read_header(struct span input, struct frame_header *header)
{
    CHECK(input.bytes >= 2 && input.bytes >= frame_header_bytes(input));
    uint8_t first = input.data[0];
    uint8_t second = input.data[1];
    size_t length_bytes = length_field_bytes(second);
    uint64_t length = second & LENGTH_MASK;
    if (length_bytes > 0) {
        length = 0;
        for (size_t index = 0; index < length_bytes; index++) {
            length = length << 8 | input.data[2 + index];
        }
    }
    *header = (struct frame_header){.payload_bytes = length,
                                    .opcode = first & OPCODE_MASK,
                                    .reserved_bits = (first >> RESERVED_SHIFT) & RESERVED_MASK,
                                    .header_bytes = (uint8_t)frame_header_bytes(input),
                                    .is_final = (first & FINAL_BIT) != 0,
                                    .is_masked = (second & MASK_BIT) != 0};
    if (header->is_masked) {
        memcpy(header->mask, input.data + 2 + length_bytes, FRAME_MASK_BYTES);
    }
    if (length_bytes == 2) {
        return length >= LENGTH_16;
    }
    if (length_bytes == 8) {
        return length > UINT16_MAX && length <= INT64_MAX;
    }
    return true;
}

size_t frame_write_header(uint8_t out[FRAME_SEND_HEADER_BYTES_MAX], enum frame_opcode opcode, bool is_final,
                          uint64_t payload_bytes)
{
    CHECK(payload_bytes <= INT64_MAX);
    out[0] = (uint8_t)((is_final ? FINAL_BIT : 0) | (int)opcode);
    if (payload_bytes < LENGTH_16) {
        out[1] = (uint8_t)payload_bytes;
        return 2;
    }
    size_t length_bytes = payload_bytes <= UINT16_MAX ? 2 : 8;
    out[1] = length_bytes == 2 ? LENGTH_16 : LENGTH_64;
    for (size_t index = 0; index < length_bytes; index++) {
        out[2 + index] = (uint8_t)(payload_bytes >> (8 * (length_bytes - 1 - index)));
    }
    return 2 + length_bytes;
}

void frame_unmask(uint8_t *data, size_t bytes, const uint8_t mask[FRAME_MASK_BYTES])
{
    uint64_t wide;
    memcpy(&wide, mask, FRAME_MASK_BYTES);
    memcpy((uint8_t *)&wide + FRAME_MASK_BYTES, mask, FRAME_MASK_BYTES);
    size_t index = 0;
    for (; bytes - index >= sizeof wide; index += sizeof wide) {
        uint64_t word;
        memcpy(&word, data + index, sizeof word);
        word ^= wide;
        memcpy(data + index, &word, sizeof word);
    }
    for (; index < bytes; index++) {
        data[index] ^= mask[index % FRAME_MASK_BYTES];
    }
}

void frame_turn_mask(uint8_t mask[FRAME_MASK_BYTES], size_t bytes)
{
    uint8_t turned[FRAME_MASK_BYTES];
    for (size_t index = 0; index < FRAME_MASK_BYTES; index++) {
        turned[index] = mask[(bytes + index) % FRAME_MASK_BYTES];
    }
    memcpy(mask, turned, FRAME_MASK_BYTES);
}

bool frame_close_code_valid(uint16_t code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}
