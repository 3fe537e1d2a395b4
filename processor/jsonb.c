/* SPDX-License-Identifier: MIT */
/* A number is digits, perhaps a point among them, and an exponent that moves the point. Only the place of the first
 * digit that is not zero and the count of digits after the point matter; nothing is computed. */
#include "jsonb.h"

#include "json.h"

enum {
    DIGITS_BEFORE_MAX = 131072,
    DIGITS_AFTER_MAX = 16383,
    SHORT_BYTES = 1000,             /* without an exponent, a number this short always fits */
    EXPONENT_BOUND = INT32_MAX / 2, /* from it on numeric's parser gives up, whatever the digits */
};

static bool is_digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}

/* Reads the exponent at `at` (after the e). False when it is EXPONENT_BOUND or more. */
static bool read_exponent(struct span number, size_t at, int64_t *exponent)
{
    const bool is_negative = number.data[at] == '-';
    if (is_negative || number.data[at] == '+') {
        at++;
    }
    int64_t value = 0;
    for (; at < number.bytes; at++) {
        value = value * 10 + (number.data[at] - '0');
        if (value >= EXPONENT_BOUND) {
            return false;
        }
    }
    *exponent = is_negative ? -value : value;
    return true;
}

bool jsonb_number_fits(struct span number)
{
    int64_t before = 0;      /* digits of the whole part, leading zeros left out */
    int64_t after = 0;       /* digits of the fraction */
    int64_t after_zeros = 0; /* zeros that lead the fraction */
    bool is_zero = true;
    bool in_fraction = false;
    size_t at = number.data[0] == '-' ? 1 : 0;
    for (; at < number.bytes && (is_digit(number.data[at]) || number.data[at] == '.'); at++) {
        if (number.data[at] == '.') {
            in_fraction = true;
            continue;
        }
        if (in_fraction) {
            after++;
            after_zeros += is_zero && number.data[at] == '0' ? 1 : 0;
        }
        is_zero = is_zero && number.data[at] == '0';
        before += !in_fraction && !is_zero ? 1 : 0;
    }
    int64_t exponent = 0;
    if (at < number.bytes && !read_exponent(number, at + 1, &exponent)) {
        return false;
    }
    if (after - exponent > DIGITS_AFTER_MAX) {
        return false;
    }
    return is_zero || (before > 0 ? before : -after_zeros) + exponent <= DIGITS_BEFORE_MAX;
}

bool jsonb_numbers_fit(const struct json *json, size_t node)
{
    const struct span value = json_raw(json, node);
    const uint8_t *const end = value.data + value.bytes;
    for (; node < json->node_count && json_raw(json, node).data < end; node++) {
        if (json_kind(json, node) != JSON_KIND_NUMBER) {
            continue;
        }
        const struct span number = json_raw(json, node);
        const bool has_exponent =
            memchr(number.data, 'e', number.bytes) != NULL || memchr(number.data, 'E', number.bytes) != NULL;
        if ((has_exponent || number.bytes > SHORT_BYTES) && !jsonb_number_fits(number)) {
            return false;
        }
    }
    return true;
}
