/* SPDX-License-Identifier: MIT */
/* SipHash-2-4 (Aumasson and Bernstein, 2012): a keyed hash for tables whose keys strangers choose. Without the key
 * nobody can find keys that collide, so nobody can make a table slow. Memory: the caller's. Thread: any. */
#ifndef POSTERN_BASE_SIPHASH_H
#define POSTERN_BASE_SIPHASH_H

#include <stdint.h>

#include "span.h"

/* Filled with random bytes at start and kept secret. */
struct siphash_key {
    uint64_t words[2];
};

uint64_t siphash(const struct siphash_key *key, struct span bytes);

#endif
