/* SPDX-License-Identifier: MIT */
/* How full the memory is: one line of the log, at SIGHUP and at the end. Thread: the loop's. */
#ifndef POSTERN_GATEWAY_USAGE_H
#define POSTERN_GATEWAY_USAGE_H

struct gateway;

/* Logs `memory_used`: of the libraries' block, buffers, chunks, sessions and outbox what is used now, the most there
 * ever was (peak) and how often there was too little (refused). */
void usage_log(struct gateway *gateway);

#endif
