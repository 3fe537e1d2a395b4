/* SPDX-License-Identifier: MIT */
/* Reads whole numbers strictly. Memory: the caller's. Thread: any. */
#ifndef POSTERN_BASE_DECIMAL_H
#define POSTERN_BASE_DECIMAL_H

#include <stdbool.h>
#include <stdint.h>

#include "span.h"

/* Reads `text`, all of it, as a decimal number from min to max (both included). False, with `value` untouched, for
 * anything else: nothing, a sign, a blank, a leading zero ("0" itself is fine), or a number out of range, however
 * long. */
bool decimal_parse(struct span text, uint64_t min, uint64_t max, uint64_t *value);

#endif
