/* SPDX-License-Identifier: MIT */
#include "decimal.h"

bool decimal_parse(struct span text, uint64_t min, uint64_t max, uint64_t *value)
{
    if (text.bytes == 0 || (text.bytes > 1 && text.data[0] == '0')) {
        return false;
    }
    uint64_t number = 0;
    for (size_t at = 0; at < text.bytes; at++) {
        uint8_t character = text.data[at];
        if (character < '0' || character > '9') {
            return false;
        }
        uint64_t digit = (uint64_t)(character - '0');
        if (number > (UINT64_MAX - digit) / 10) {
            return false;
        }
        number = number * 10 + digit;
    }
    if (number < min || number > max) {
        return false;
    }
    *value = number;
    return true;
}
