/* SPDX-License-Identifier: MIT */
/* CRC-32C (Castagnoli; RFC 3720 appendix B.4): finds every error of up to 5 bits in 655 bytes, of up to 3 bits in
 * 256 MiB, and every burst of up to 32 bits. It guards against accidents, not against people. Memory: none. Thread:
 * any. */
#ifndef POSTERN_BASE_CRC32C_H
#define POSTERN_BASE_CRC32C_H

#include <stdint.h>

#include "span.h"

/* The checksum of what `crc` is the checksum of (0: of nothing), with `bytes` behind it. */
uint32_t crc32c_extend(uint32_t crc, struct span bytes);

static inline uint32_t crc32c(struct span bytes)
{
    return crc32c_extend(0, bytes);
}

#endif
