/* SPDX-License-Identifier: MIT */
/* The port for POSIX systems: sockets over poll() or, on Linux, epoll; files; a worker thread for each lane.
 *
 * Invariant: all memory is taken by port_posix_open. The signals of the process go to one port, the first that is
 * open and takes them: SIGTERM and SIGINT ask to stop, SIGHUP to reopen, SIGPIPE is ignored. Thread: the loop's (see
 * port.h). */
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
    /* Takes no signals: what comes from now on waits until a port is opened that does. */
    bool defers_signals;
    /* Tells about the fixed block that malloc is served from, where the program has one (malloc_block.h). NULL: it has
     * none, and cannot be sealed. Any thread. */
    void (*heap)(struct port_heap *heap);
};

/* Opens the port. False when the machine refuses something (memory, a thread, the poller); then
 * port->error_text(port->context) says what, and nothing else of `port` may be used. */
bool port_posix_open(struct port *port, const struct port_posix_options *options);

/* Ends the workers, gives back the signals, and frees all that `memory` gave, unless the port is sealed: then memory is
 * left to the end of the process. Sockets and files are the callers' to close before. Jobs that did not begin are
 * forgotten. One that runs is waited for a fifth of a second and no longer, because a name that does not resolve can
 * take many seconds: then the result is false, and what the job may still touch (the memory that `memory` gave, the
 * workers' stacks) stays until the process ends. */
bool port_posix_close(struct port *port);

/* "poll" or "epoll". */
const char *port_posix_poller_name(const struct port *port);

/* What the program takes without asking: the rows of a memory table beside those of the arena and of the port. */
struct port_posix_image {
    size_t data_bytes;  /* variables of the program and its libraries, the malloc block included; whole pages */
    size_t file_bytes;  /* code and constants: pages of files, which the system may drop and read again */
    size_t stack_bytes; /* of the main thread */
};

/* Does what the C library would put off until a name is looked up: loads the modules that /etc/nsswitch.conf names,
 * which takes memory that cannot be had after the seal. At start, before port_posix_image. */
void port_posix_warm_up(void);

void port_posix_image(struct port_posix_image *image);

/* Touches every page of the image and of the main thread's stack, so that too little memory ends the program here, and
 * no page has to be read later. From main's thread, at start. */
void port_posix_touch_image(void);

/* What the port itself takes with these options, in bytes, the workers' stacks included. */
size_t port_posix_memory_bytes(const struct port_posix_options *options);

#endif
