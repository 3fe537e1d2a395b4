/* SPDX-License-Identifier: MIT */
/* The port for POSIX systems: sockets over poll() or, on Linux, epoll; files; one worker thread.
 *
 * Invariant: all memory is taken by port_posix_open. The signals of the process go to one port, the first that is
 * open: SIGTERM and SIGINT ask to stop, SIGHUP to reopen, SIGPIPE is ignored. Thread: the loop's (see port.h). */
#ifndef POSTERN_PORT_POSIX_H
#define POSTERN_PORT_POSIX_H

#include <stdbool.h>
#include <stddef.h>

#include "port.h"

enum port_posix_poller {
    PORT_POSIX_AUTO, /* epoll where it exists and more than PORT_POSIX_POLL_WATCHES are to be watched, else poll */
    PORT_POSIX_POLL, /* poll(): anywhere; a wait costs time for every watched socket */
    PORT_POSIX_EPOLL /* epoll: Linux; a wait costs time for every ready socket */
};

enum { PORT_POSIX_POLL_WATCHES = 256 };

struct port_posix_options {
    enum port_posix_poller poller;
    size_t watch_max; /* sockets watched at once; 20 bytes each */
};

/* Opens the port. False when the machine refuses something (memory, a thread, the poller); then
 * port->error_text(port->context) says what, and nothing else of `port` may be used. */
bool port_posix_open(struct port *port, const struct port_posix_options *options);

/* Ends the worker, gives back the signals, and frees all that `memory` gave. Sockets and files are the callers' to
 * close before. Jobs that did not begin are forgotten. One that runs is waited for a fifth of a second and no longer,
 * because a name that does not resolve can take many seconds: then the result is false, and what the job may still
 * touch (the memory that `memory` gave, the worker's stack) stays until the process ends. */
bool port_posix_close(struct port *port);

/* "poll" or "epoll". */
const char *port_posix_poller_name(const struct port *port);

/* What the port itself takes with these options, in bytes, the worker's stack included. */
size_t port_posix_memory_bytes(const struct port_posix_options *options);

#endif
