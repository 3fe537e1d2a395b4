/* SPDX-License-Identifier: MIT */
/* A gateway on the table: in-process, over the POSIX port, turned by the test itself, with clients on loopback sockets
 * and a clock that stands until the test pushes it: no time limit of the gateway's passes on a slow machine. */
#ifndef POSTERN_TESTS_TABLE_TOP_H
#define POSTERN_TESTS_TABLE_TOP_H

#include "gateway.h"

enum { CLIENT_BUFFER_BYTES = 256 * 1024 };

struct table_top {
    struct port port; /* the POSIX port with the clock and the signals below */
    struct port real;
    uint64_t start_ns; /* the real clock's time at the start */
    uint64_t clock_ms; /* added to it: the gateway's clock */
    uint32_t signals;  /* to be reported once */
    struct settings settings;
    struct gateway gateway;
    struct arena arena;
    uint16_t listen_port;
    char folder[64];   /* of the log, and of the spool where there is one */
    bool keeps_folder; /* for another table: table_top_open_in */
};

struct client {
    struct table_top *table;
    int socket;
    uint8_t *received;
    size_t received_bytes;
    bool ended; /* the gateway ended the stream */
};

struct frame {
    uint8_t opcode;   /* 0: the stream ended */
    uint16_t code;    /* of a close */
    const char *text; /* payload, terminated; good until the next read of this client */
    size_t bytes;
};

/* No test is about speed; after so long something hangs. */
enum { TABLE_TOP_PATIENCE_MS = 60000 };

/* `change` adjusts the settings before the start; may be NULL. */
struct table_top *table_top_open(void (*change)(struct settings *settings));
/* The same, in the folder of a table that was closed and kept it: the gateway's next start. */
struct table_top *table_top_open_in(const char *folder, void (*change)(struct settings *settings));
/* Checks that nothing is left of any client, once those that are open were closed. */
void table_top_close(struct table_top *table);
/* One turn that does not wait for anything but what is there. */
enum gateway_turned table_top_turn(struct table_top *table);
/* The real clock's time, for bounds on what waits for the machine. */
uint64_t table_top_real_ms(const struct table_top *table);
/* How often the log holds `text`. */
size_t table_top_log_count(struct table_top *table, const char *text);

struct client *client_connect(struct table_top *table);
/* Connects and sends the request for "/{client_id}{query}". */
struct client *client_open(struct table_top *table, const char *path);
/* The same, and takes the greeting. */
struct client *client_join(struct table_top *table, const char *client_id);
void client_send_raw(struct client *client, const void *data, size_t bytes);
void client_send_frame(struct client *client, uint8_t opcode, const void *data, size_t bytes);
void client_say(struct client *client, const char *text);
/* Sends without insisting; returns how many bytes the socket took. */
size_t client_try_send(struct client *client, const void *data, size_t bytes);
/* The next frame, turning the gateway until it is there. */
struct frame client_read(struct client *client);
/* A frame that is there after the gateway had a few turns; opcode 0 when none is. */
struct frame client_peek(struct client *client);
void client_expect(struct client *client, const char *text);
void client_expect_close(struct client *client, uint16_t code);
/* The HTTP status of the answer to the request. */
int client_status(struct client *client);
void client_close(struct client *client);

#endif
