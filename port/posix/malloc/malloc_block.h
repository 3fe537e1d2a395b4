/* SPDX-License-Identifier: MIT */
/* The process's malloc family over one fixed block: what libraries (librabbitmq, the C library's resolver and stdio)
 * allocate comes from it, so that they never ask the system for memory. Our own code does not allocate (poison.h).
 *
 * Linked into a program it replaces the C library's malloc, from before main on. Builds with sanitizers, which bring a
 * malloc of their own, have malloc_system.c instead: malloc then stays as it was, and the counters are 0.
 * Invariant: a call that finds no room returns NULL with ENOMEM and is counted. Memory: static. Thread: any. */
#ifndef POSTERN_PORT_POSIX_MALLOC_BLOCK_H
#define POSTERN_PORT_POSIX_MALLOC_BLOCK_H

#include "port.h"

/* The block's size and what is used of it; all 0 where malloc asks the system. For port_posix_options. */
void malloc_block_counters(struct port_heap *counters);

#endif
