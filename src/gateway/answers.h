/* SPDX-License-Identifier: MIT */
/* What comes back for the clients: receipts of the outbox, batches of receipts from the processor, and messages from
 * backends, each to the connection it is for.
 *
 * A receipt goes to the connection its message came on, with `seq`, as long as that lives; else to the client's present
 * one, by `id` alone; else nowhere. Memory: none. Thread: the loop's. */
#ifndef POSTERN_GATEWAY_ANSWERS_H
#define POSTERN_GATEWAY_ANSWERS_H

#include "downlink.h"
#include "outbox.h"

/* For outbox_init and downlink_init, with the gateway as context. */
extern const struct outbox_handler answers_outbox_handler;
extern const struct downlink_handler answers_downlink_handler;

#endif
