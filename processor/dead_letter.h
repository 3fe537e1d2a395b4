/* SPDX-License-Identifier: MIT */
/* A message that can never be stored, as it goes into the dead letters' queue: its body, its headers and those of its
 * properties that say what it is (content_type, correlation_id, reply_to, message_id, type, app_id, timestamp), and
 * headers that say why.
 *
 *     x-postern-reason         the error's code, a word: bad_json, nul_content, violates_constraint, ...
 *     x-postern-detail         a sentence
 *     x-postern-first-failure  when it failed for the first time (an AMQP timestamp): a dead letter that someone puts
 *                              back into the queue and that fails again keeps its first time
 *     x-postern-body-bytes     of a body that was too long: how long it was; the letter has its beginning
 *     x-postern-headers-lost   how many of the headers that were read found no room
 *
 * What the consumer does not read is not passed on: content_encoding, priority, expiration (with which the letter would
 * vanish), user_id and cluster_id, headers that are neither text, integer nor time, and those beyond AMQP_HEADERS_MAX.
 *
 * Invariant: the headers together fit AMQP_PUBLISH_HEADERS_BYTES_MAX, whatever came. Pure. Memory: the caller's.
 * Thread: any one. */
#ifndef POSTERN_PROCESSOR_DEAD_LETTER_H
#define POSTERN_PROCESSOR_DEAD_LETTER_H

#include <stdint.h>

#include "amqp_link.h"

struct delivery;

enum { DEAD_LETTER_OWN_HEADERS = 5, DEAD_LETTER_HEADERS_MAX = AMQP_HEADERS_MAX };

/* Fills `out`, whose spans point into the delivery and whose headers are `headers`. The delivery is DELIVERY_DEAD. */
void dead_letter_make(const struct delivery *delivery, uint64_t now_s, struct amqp_publish *out,
                      struct amqp_header headers[DEAD_LETTER_HEADERS_MAX]);

#endif
