/* SPDX-License-Identifier: MIT */
/* Frame headers, masks and close codes, against readings of RFC 6455 section 5.2 that take one byte after another.
 *
 * Input: the cuts; the mask (4 bytes); then a frame, whose header is read and whose bytes are unmasked. */
#include <string.h>

#include "frame.h"
#include "fuzz.h"

enum { LENGTH_FIELD_AT = 2 };

static size_t header_bytes_of(struct span input)
{
    size_t length = input.data[1] % 128U;
    size_t bytes = LENGTH_FIELD_AT + (length == 126 ? 2U : 0U) + (length == 127 ? 8U : 0U);
    return bytes + (input.data[1] >= 128 ? 4U : 0U);
}

static uint64_t length_of(struct span input)
{
    uint64_t length = input.data[1] % 128U;
    size_t field_bytes = length == 126 ? 2 : length == 127 ? 8 : 0;
    for (size_t i = 0; i < field_bytes; i++) {
        length = (i == 0 ? 0 : length * 256) + input.data[LENGTH_FIELD_AT + i];
    }
    return length;
}

static bool is_length_good(struct span input)
{
    uint64_t length = length_of(input);
    uint8_t first = input.data[1] % 128U;
    return first < 126 || (first == 126 ? length > 125 : length > 65535 && length >> 63 == 0);
}

/* What a server would write for that header is the same but for the mask and the reserved bits. */
static void check_written(struct span input, const struct frame_header *header)
{
    uint8_t written[FRAME_SEND_HEADER_BYTES_MAX];
    size_t bytes =
        frame_write_header(written, (enum frame_opcode)header->opcode, header->is_final, header->payload_bytes);
    CHECK(bytes == header->header_bytes - (header->is_masked ? FRAME_MASK_BYTES : 0U));
    CHECK(written[0] == (input.data[0] & 0x8F) && written[1] == (input.data[1] & 0x7F));
    CHECK(memcmp(written + LENGTH_FIELD_AT, input.data + LENGTH_FIELD_AT, bytes - LENGTH_FIELD_AT) == 0);
}

static void check_header(struct span stream)
{
    for (size_t bytes = 0; bytes <= stream.bytes && bytes <= FRAME_HEADER_BYTES_MAX; bytes++) {
        struct span input = span_of(fuzz_guarded(span_of(stream.data, bytes)), bytes);
        CHECK(frame_header_bytes(input) == (bytes < 2 ? 2 : header_bytes_of(input)));
    }
    if (stream.bytes < 2 || stream.bytes < header_bytes_of(stream)) {
        return;
    }
    size_t bytes = header_bytes_of(stream);
    struct span input = span_of(fuzz_guarded(span_of(stream.data, bytes)), bytes);
    struct frame_header header;
    bool is_good = frame_read_header(input, &header);
    CHECK(is_good == is_length_good(input));
    CHECK(header.payload_bytes == length_of(input) && header.header_bytes == bytes);
    CHECK(header.opcode == input.data[0] % 16 && header.reserved_bits == input.data[0] / 16 % 8);
    CHECK(header.is_final == (input.data[0] >= 128) && header.is_masked == (input.data[1] >= 128));
    CHECK(!header.is_masked || memcmp(header.mask, input.data + bytes - FRAME_MASK_BYTES, FRAME_MASK_BYTES) == 0);
    if (is_good) {
        check_written(input, &header);
    }
}

static void check_mask(struct span stream, const uint8_t mask[FRAME_MASK_BYTES], struct fuzz_cuts cuts)
{
    uint8_t turned[FRAME_MASK_BYTES];
    uint8_t *data = fuzz_guarded(stream);
    memcpy(turned, mask, sizeof turned);
    for (size_t at = 0; at < stream.bytes;) {
        size_t bytes = fuzz_cut(&cuts, stream.bytes - at);
        frame_unmask(data + at, bytes, turned);
        frame_turn_mask(turned, bytes);
        at += bytes;
    }
    for (size_t at = 0; at < stream.bytes; at++) {
        CHECK(data[at] == (stream.data[at] ^ mask[at % FRAME_MASK_BYTES]));
    }
    frame_unmask(data, stream.bytes, mask);
    CHECK(stream.bytes == 0 || memcmp(data, stream.data, stream.bytes) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct span input = fuzz_input(data, bytes);
    struct fuzz_cuts cuts = fuzz_take_cuts(&input);
    uint8_t mask[FRAME_MASK_BYTES];
    for (size_t i = 0; i < FRAME_MASK_BYTES; i++) {
        mask[i] = fuzz_byte(&input);
    }
    check_header(input);
    check_mask(input, mask, cuts);
    unsigned code = mask[0] * 256U + mask[1];
    bool is_registered = code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006;
    CHECK(frame_close_code_valid((uint16_t)code) == (is_registered || (code >= 3000 && code < 5000)));
    return 0;
}
