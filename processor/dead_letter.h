/* SPDX-License-Identifier: MIT */
/* A message that can never be stored, as it goes into the dead letters' queue: its body and properties as they came,
 * and three headers that say why.
 *
 *     x-postern-reason         the error's code, a word: bad_json, nul_content, violates_constraint, ...
 *     x-postern-detail         a sentence
 *     x-postern-first-failure  when it failed for the first time (an AMQP timestamp): a dead letter that someone puts
 *                              back into the queue and that fails again keeps its first time
 *
 * Of more than AMQP_HEADERS_MAX headers in all the last that came are left out. Pure. Thread: any one. */
#ifndef POSTERN_PROCESSOR_DEAD_LETTER_H
#define POSTERN_PROCESSOR_DEAD_LETTER_H

#include <stdint.h>

#include "amqp_link.h"

struct delivery;

enum { DEAD_LETTER_OWN_HEADERS = 3, DEAD_LETTER_HEADERS_MAX = AMQP_HEADERS_MAX };

/* Fills `out`, whose spans point into the delivery and whose headers are `headers`. The delivery is DELIVERY_DEAD. */
void dead_letter_make(const struct delivery *delivery, uint64_t now_s, struct amqp_publish *out,
                      struct amqp_header headers[DEAD_LETTER_HEADERS_MAX]);

#endif
