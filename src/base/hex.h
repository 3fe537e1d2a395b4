/* SPDX-License-Identifier: MIT */
/* Hexadecimal digits, lower case when written, either when read.
 *
 * Memory: none. Thread: any. */
#ifndef POSTERN_BASE_HEX_H
#define POSTERN_BASE_HEX_H

#include <stdint.h>

/* The digit of a value of 0 to 15. */
static inline char hex_digit(unsigned value)
{
    return "0123456789abcdef"[value & 15];
}

/* The value of a digit, or -1. */
static inline int hex_value(uint8_t digit)
{
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    uint8_t lower = digit | 0x20;
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

#endif
