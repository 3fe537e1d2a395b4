/* SPDX-License-Identifier: MIT */
/* Message digests, over wolfCrypt. SHA-1 is here for the WebSocket handshake (RFC 6455 section 4.2.2), where it
 * proves understanding and protects nothing. Memory: the caller's. Thread: any. */
#ifndef POSTERN_BASE_DIGEST_H
#define POSTERN_BASE_DIGEST_H

#include <stdint.h>

#include "span.h"

enum { DIGEST_SHA1_BYTES = 20 };

void digest_sha1(struct span bytes, uint8_t digest[DIGEST_SHA1_BYTES]);

#endif
