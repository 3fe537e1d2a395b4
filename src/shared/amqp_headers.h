/* SPDX-License-Identifier: MIT */
/* The headers of a message that came, read without memory and without recursion: librabbitmq would allocate for each
 * entry, and for tables within tables as deep as a stranger cared to make them.
 *
 * Invariant: reads within what it is given. Memory: the caller's; spans point into the table. Thread: any one. */
#ifndef POSTERN_SHARED_AMQP_HEADERS_H
#define POSTERN_SHARED_AMQP_HEADERS_H

#include "amqp_link.h"
#include "span.h"

/* Copies a content's properties (AMQP 0-9-1 section 4.2.6.1: flags, then the fields) to `copy`, which has room for as
 * many bytes, with the headers taken out: `rest` is what is left, as if there had been none, and `table` the headers'
 * field table without its length, empty if there is none. False: malformed. */
bool amqp_headers_split(struct span properties, uint8_t *copy, struct span *rest, struct span *table);

/* Reads the first AMQP_HEADERS_MAX entries that are texts, integers or times; others are passed over. False:
 * malformed. */
bool amqp_headers_read(struct span table, struct amqp_header headers[AMQP_HEADERS_MAX], size_t *header_count);

#endif
