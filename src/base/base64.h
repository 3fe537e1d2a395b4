/* SPDX-License-Identifier: MIT */
/* Base64 with padding (RFC 4648 section 4). Memory: the caller's. Thread: any. */
#ifndef POSTERN_BASE_BASE64_H
#define POSTERN_BASE_BASE64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "span.h"

/* The length of `bytes` bytes in base64; a constant for a constant. */
#define BASE64_TEXT_BYTES(bytes) (((bytes) + 2) / 3 * 4)

/* Writes BASE64_TEXT_BYTES(bytes.bytes) characters to `text`, without a terminator. */
void base64_encode(struct span bytes, char *text);

/* Reads exactly `data_bytes` bytes. False, with `data` undefined, when `text` is not the one canonical encoding of
 * so many: another length, a foreign character or blank, missing padding, or unused bits that are not zero. */
bool base64_decode(struct span text, uint8_t *data, size_t data_bytes);

#endif
