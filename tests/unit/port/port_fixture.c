/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "port_fixture.h"

static enum port_posix_poller group_poller = PORT_POSIX_AUTO;

int open_port(void **state)
{
    static struct port port;
    const struct port_posix_options options = {.poller = group_poller, .watch_max = WATCH_MAX};
    if (!port_posix_open(&port, &options)) {
        print_error("%s\n", port.error_text(port.context));
        return -1;
    }
    *state = &port;
    return 0;
}

int close_port(void **state)
{
    port_posix_close(*state);
    return 0;
}

int run_on_each_poller(const struct CMUnitTest *tests, size_t count)
{
    static const struct {
        const char *name;
        enum port_posix_poller poller;
    } groups[] = {{"poll", PORT_POSIX_POLL}, {"epoll", PORT_POSIX_EPOLL}};
    int failed = 0;
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        group_poller = groups[i].poller;
        failed += _cmocka_run_group_tests(groups[i].name, tests, count, NULL, NULL);
    }
    return failed;
}

port_socket listen_loopback(struct port *port, struct port_address *address)
{
    port_socket listener = PORT_NONE;
    assert_true(port->parse_address(port->context, "127.0.0.1", 0, address));
    assert_int_equal(port->listen(port->context, address, &listener), PORT_OK);
    assert_int_equal(port->local_address(port->context, listener, address), PORT_OK);
    assert_int_not_equal(address->port, 0);
    return listener;
}

struct pair connect_pair(struct port *port, port_socket listener, const struct port_address *address)
{
    struct pair pair = {PORT_NONE, PORT_NONE};
    struct port_address peer;
    assert_int_equal(port->connect(port->context, address, &pair.client), PORT_OK);
    assert_int_equal(wait_ready(port, listener, PORT_READ), PORT_READ);
    assert_int_equal(port->accept(port->context, listener, &pair.server, &peer), PORT_OK);
    assert_int_equal(wait_ready(port, pair.client, PORT_WRITE), PORT_WRITE);
    assert_int_equal(port->connected(port->context, pair.client), PORT_OK);
    return pair;
}

void close_pair(struct port *port, struct pair pair)
{
    port->close_socket(port->context, pair.client);
    port->close_socket(port->context, pair.server);
}

size_t wait_some(struct port *port, struct port_event *events, size_t event_max)
{
    uint64_t until_ns = port->now_ns(port->context) + (uint64_t)PATIENCE_MS * 1000000;
    while (port->now_ns(port->context) < until_ns) {
        size_t count = port->wait(port->context, events, event_max, PATIENCE_MS);
        if (count > 0) {
            return count;
        }
    }
    fail_msg("nothing came");
    return 0;
}

uint32_t wait_ready(struct port *port, port_socket socket, uint32_t interest)
{
    struct port_event event = {0, 0};
    assert_int_equal(port->watch_add(port->context, socket, interest, 0xABCDEF0123456789), PORT_OK);
    assert_int_equal(wait_some(port, &event, 1), 1);
    assert_true(event.token == 0xABCDEF0123456789);
    port->watch_remove(port->context, socket);
    return event.ready;
}
