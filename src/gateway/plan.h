/* SPDX-License-Identifier: MIT */
/* The memory table of `postern-gateway --plan`, from the rows of an arena that measured (product.md section 6).
 *
 * Memory: the caller's text. Thread: any one, before the start. */
#ifndef POSTERN_GATEWAY_PLAN_H
#define POSTERN_GATEWAY_PLAN_H

#include <stddef.h>

#include "arena.h"
#include "text.h"

enum { PLAN_BYTES_MAX = 16384 }; /* of the written table */

/* Writes the table: what, how many, bytes each, bytes in all, and the total. program_bytes is the program's own fixed
 * record, port_bytes what the port takes; these and the AMQP library's buffers are rows of their own. */
void plan_write(struct text *text, const struct arena *arena, size_t program_bytes, size_t port_bytes);

#endif
