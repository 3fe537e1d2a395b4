/* SPDX-License-Identifier: MIT */
/* A server on loopback over the real port, driven turn by turn, with clients in the same thread. Time passes only when
 * a test says so, so that nothing comes about by a deadline unnoticed. What the server says is written down, a line a
 * callback. */
#ifndef POSTERN_TESTS_NET_FIXTURE_H
#define POSTERN_TESTS_NET_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "frame.h"
#include "port_posix.h"
#include "server.h"

enum { NET_TRANSCRIPT_BYTES = 16384, NET_TAG = 7, NET_DEAF_MAX = 64 };

struct net {
    struct port port;
    struct server server;
    struct port_address address;
    void *memory;
    uint64_t added_ms;
    char transcript[NET_TRANSCRIPT_BYTES];
    size_t transcript_bytes;
    bool echo;                      /* messages are sent back */
    bool readable;                  /* what the server is told */
    struct connection_handle last;  /* opened last */
    struct connection_handle other; /* for a test's own use */
    /* Called in the callbacks, after they were written down; NULL: nothing. */
    void (*in_open)(struct net *net, struct connection_handle connection);
    void (*in_message)(struct net *net, struct connection_handle connection, const uint8_t *data, size_t bytes);
    void (*in_closed)(struct net *net, struct connection_handle connection);
    void (*in_timer)(struct net *net, struct connection_handle connection);
    void (*in_readable)(struct net *net, struct connection_handle connection);
    size_t interest_changes; /* watch_change of the port */
    bool accept_fails;
    port_socket deaf[NET_DEAF_MAX]; /* send to these takes nothing */
    size_t deaf_count;
};

/* A small server: 8 connections, 4 buffers, messages of 4096 bytes. */
struct server_options net_options(void);
/* Starts the server with these options; on the poller of the group that is running. */
void net_open(struct net *net, struct server_options options);
/* Ends it; checks that all was given back once the clients are gone. */
void net_close(struct net *net);
/* One turn: waits at most 1 ms. */
void net_turn(struct net *net);
/* As many turns as it takes until nothing happens any more. */
void net_settle(struct net *net);
/* Adds to the clock and takes a turn. */
void net_later(struct net *net, uint64_t ms);
/* Its peer reads nothing more: the socket takes nothing, as when the system's buffers are full; and takes again. */
void net_deafen(struct net *net, struct connection_handle connection);
void net_hear_again(struct net *net);
/* What was written down since the last call. */
const char *net_events(struct net *net);

#define NET_UNTIL(net, condition)                                                                                      \
    do {                                                                                                               \
        size_t turns = 0;                                                                                              \
        while (!(condition)) {                                                                                         \
            assert_true(turns++ < 5000);                                                                               \
            net_turn(net);                                                                                             \
        }                                                                                                              \
    } while (0)

/* Clients: non-blocking sockets. */
int client_connect(struct net *net);
/* Connects and makes the handshake. */
int client_open(struct net *net);
/* Sends all, with turns between where needed. */
void client_send(struct net *net, int client, const void *data, size_t bytes);
void client_send_text(struct net *net, int client, const char *text);
/* Writes a masked frame; returns its bytes. */
size_t client_frame(uint8_t *out, uint8_t first, const void *payload, size_t bytes);
/* Takes turns until so many bytes came, and compares. */
void client_expect(struct net *net, int client, const void *data, size_t bytes);
void client_expect_text(struct net *net, int client, const char *text);
/* A close frame with this code, whatever its reason. */
void client_expect_close(struct net *net, int client, uint16_t code);
/* The end of the stream, in good order. */
void client_expect_end(struct net *net, int client);
/* Reads what is there, up to capacity; 0: nothing, -1: the stream ended or was reset. */
long client_read(int client, void *buffer, size_t capacity);
void client_close(int client);
void client_reset(int client);

/* Runs the tests on each poller; returns how many failed. */
int net_run(const char *name, const struct CMUnitTest *tests, size_t test_count);

#endif
