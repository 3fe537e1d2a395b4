/* SPDX-License-Identifier: MIT */
/* What JSON allows and PostgreSQL's jsonb cannot hold, beside \u0000 (which envelope finds): numbers beyond numeric's
 * range. Found before the batch is sent, because a client could otherwise make any batch fail at will, and each such
 * failure costs many statements.
 * Pure: reads the parser's nodes and the text they point into, keeps nothing. Memory: none. Thread: any one that may
 * read that parser. */
#ifndef POSTERN_PROCESSOR_JSONB_H
#define POSTERN_PROCESSOR_JSONB_H

#include <stdbool.h>
#include <stddef.h>

#include "span.h"

struct json;

/* A JSON number (RFC 8259 section 6, as json.h lets it through): at most 131072 digits before the decimal point and
 * 16383 after it, exponent applied (PostgreSQL manual, section 8.1.2). */
bool jsonb_number_fits(struct span number);

/* Whether all numbers in the node's value fit; the node is one of the document last parsed. */
bool jsonb_numbers_fit(const struct json *json, size_t node);

#endif
