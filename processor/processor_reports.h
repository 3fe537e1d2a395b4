/* SPDX-License-Identifier: MIT */
/* What the processor's admin pages say: health, readiness, metrics. Each reads what the parts
 * count, at the moment it is asked for. Memory: the admin room's buffers. Thread: the loop's. */
#ifndef POSTERN_PROCESSOR_PROCESSOR_REPORTS_H
#define POSTERN_PROCESSOR_PROCESSOR_REPORTS_H

#include <stdint.h>

struct arena;
struct processor;

/* Takes the admin server's memory. `token`: the poller's first one for it. */
void processor_reports_init(struct processor *processor, struct arena *arena, uint64_t token);

#endif
