/* SPDX-License-Identifier: MIT */
/* How full the memory is: one line of the log, at SIGHUP and at the end. Thread: the loop's. */
#ifndef POSTERN_GATEWAY_USAGE_H
#define POSTERN_GATEWAY_USAGE_H

struct gateway;

/* Logs `memory_used`: of the libraries' block, buffers, chunks, sessions, outbox and the spool's stage what is used now
 * and the most there ever was (peak); how often there was too little (refused), but for sessions and stage; and what
 * stands on the disk. */
void usage_log(struct gateway *gateway);

#endif
