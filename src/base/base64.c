/* SPDX-License-Identifier: MIT */
/* Three bytes are four characters of six bits. The decoder looks each character up and refuses at the end if any was
 * foreign: the marks of all are gathered with an or. */
#include "base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(struct span bytes, char *text)
{
    size_t at = 0;
    for (; bytes.bytes - at >= 3; at += 3) {
        uint32_t group = (uint32_t)bytes.data[at] << 16 | (uint32_t)bytes.data[at + 1] << 8 | bytes.data[at + 2];
        *text++ = alphabet[group >> 18];
        *text++ = alphabet[group >> 12 & 63];
        *text++ = alphabet[group >> 6 & 63];
        *text++ = alphabet[group & 63];
    }
    size_t left = bytes.bytes - at;
    if (left > 0) {
        uint32_t group = (uint32_t)bytes.data[at] << 16 | (left == 2 ? (uint32_t)bytes.data[at + 1] << 8 : 0);
        *text++ = alphabet[group >> 18];
        *text++ = alphabet[group >> 12 & 63];
        *text++ = (char)(left == 2 ? alphabet[group >> 6 & 63] : '=');
        *text++ = '=';
    }
}

enum { FOREIGN = 0xFF };

static uint32_t digit(uint8_t character)
{
    if (character >= 'A' && character <= 'Z') {
        return (uint32_t)(character - 'A');
    }
    if (character >= 'a' && character <= 'z') {
        return (uint32_t)(character - 'a' + 26);
    }
    if (character >= '0' && character <= '9') {
        return (uint32_t)(character - '0' + 52);
    }
    if (character == '+') {
        return 62;
    }
    return character == '/' ? 63 : FOREIGN;
}

bool base64_decode(struct span text, uint8_t *data, size_t data_bytes)
{
    if (text.bytes % 4 != 0 || text.bytes / 4 != data_bytes / 3 + (data_bytes % 3 != 0)) {
        return false;
    }
    const uint8_t *in = text.data;
    uint32_t marks = 0;
    size_t left = data_bytes;
    for (; left >= 3; left -= 3, in += 4) {
        uint32_t a = digit(in[0]);
        uint32_t b = digit(in[1]);
        uint32_t c = digit(in[2]);
        uint32_t d = digit(in[3]);
        marks |= a | b | c | d;
        *data++ = (uint8_t)(a << 2 | b >> 4);
        *data++ = (uint8_t)(b << 4 | c >> 2);
        *data++ = (uint8_t)(c << 6 | d);
    }
    if (left > 0) {
        uint32_t a = digit(in[0]);
        uint32_t b = digit(in[1]);
        uint32_t c = left == 2 ? digit(in[2]) : 0;
        marks |= a | b | c;
        uint32_t unused_bits = left == 2 ? c & 3 : b & 15;
        if (in[3] != '=' || (left == 1 && in[2] != '=') || unused_bits != 0) {
            return false;
        }
        *data++ = (uint8_t)(a << 2 | b >> 4);
        if (left == 2) {
            *data++ = (uint8_t)(b << 4 | c >> 2);
        }
    }
    return marks < 64;
}
