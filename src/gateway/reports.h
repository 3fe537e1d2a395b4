/* SPDX-License-Identifier: MIT */
/* What the gateway's admin pages say: the live page, its numbers, health, readiness, metrics.
 *
 * Nothing is kept for them: each page reads what the parts count, at the moment it is asked for. Memory: the admin
 * room's buffers. Thread: the loop's. */
#ifndef POSTERN_GATEWAY_REPORTS_H
#define POSTERN_GATEWAY_REPORTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "admin.h"
#include "arena.h"
#include "text.h"

struct gateway;
struct readiness;

enum { REPORTS_PAGES = 5, REPORTS_POLICY_BYTES = 384 };

struct reports {
    struct admin_page pages[REPORTS_PAGES];
    char policy[REPORTS_POLICY_BYTES]; /* of the live page: it may connect to this gateway's PORT */
};

/* Makes the list of pages and takes the admin server's memory. */
void reports_init(struct gateway *gateway, struct arena *arena);

/* What is the matter just now. */
void reports_find(struct gateway *gateway, struct readiness *readiness);

/* The pages; each returns its HTTP status. */
uint16_t reports_health(void *context, struct text *page);
uint16_t reports_readiness(void *context, struct text *page);
uint16_t reports_metrics(void *context, struct text *page);
uint16_t reports_status(void *context, struct text *page);

#endif
