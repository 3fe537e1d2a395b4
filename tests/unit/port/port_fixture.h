/* SPDX-License-Identifier: MIT */
/* What the tests of the port share: a port over each poller, and connected sockets on loopback. */
#ifndef POSTERN_TESTS_PORT_FIXTURE_H
#define POSTERN_TESTS_PORT_FIXTURE_H

#include "port.h"
#include "port_posix.h"

enum {
    WATCH_MAX = 512,
    PATIENCE_MS = 20000 /* for what must come; a test that waits so long has failed */
};

/* A cmocka fixture: the port of the test in *state, over the poller that the group was run for. */
int open_port(void **state);
int close_port(void **state);

/* Runs a group once for each poller; the result is that of main. */
struct CMUnitTest;
int run_on_each_poller(const struct CMUnitTest *tests, size_t count);

struct pair {
    port_socket client;
    port_socket server;
};

/* A listener on 127.0.0.1, on any port. */
port_socket listen_loopback(struct port *port, struct port_address *address);
/* Two sockets connected to each other, not watched. */
struct pair connect_pair(struct port *port, port_socket listener, const struct port_address *address);
void close_pair(struct port *port, struct pair pair);

/* Waits for events, at most PATIENCE_MS. */
size_t wait_some(struct port *port, struct port_event *events, size_t event_max);
/* Waits until `socket`, which is not watched, is ready for any of `interest`; returns for what. */
uint32_t wait_ready(struct port *port, port_socket socket, uint32_t interest);

#endif
