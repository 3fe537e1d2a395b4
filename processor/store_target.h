/* SPDX-License-Identifier: MIT */
/* Which addresses to try for a database, and in what order: each host of the URL, each address of a host, be it from
 * DNS or the one that the URL gives for it (hostaddr).
 *
 * libpq would walk the same list, but it asks DNS in the loop's thread, and waits for a silent host for minutes before
 * it turns to the next. So names are resolved by the port's worker, and libpq gets one address at a time.
 *
 * Memory: the caller's struct. Thread: the loop's; store_target_resolve runs on the worker. */
#ifndef POSTERN_PROCESSOR_STORE_TARGET_H
#define POSTERN_PROCESSOR_STORE_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "port.h"

enum {
    STORE_HOSTS_MAX = 8,
    STORE_ADDRESSES_MAX = 8,    /* of a host */
    STORE_HOST_BYTES_MAX = 253, /* a DNS name, or the path of a Unix socket's folder */
    STORE_PORT_DEFAULT = 5432,
    STORE_ERROR_BYTES = 160
};

struct store_host {
    char name[STORE_HOST_BYTES_MAX + 1];   /* empty: libpq's default; "/path": a Unix socket */
    char address[PORT_ADDRESS_TEXT_BYTES]; /* numeric, as the URL gives it; empty: it gives none */
    uint16_t port;
    bool by_libpq; /* nothing to resolve: libpq takes the host as it is */
};

struct store_target {
    struct store_host hosts[STORE_HOSTS_MAX];
    size_t host_count;
    size_t host_index;
    struct port_address addresses[STORE_ADDRESSES_MAX]; /* of hosts[host_index] */
    size_t address_count;
    size_t address_index;
    char error[STORE_ERROR_BYTES]; /* of the last resolve, when address_count is 0 */
};

/* Reads libpq's lists (host, hostaddr and port; commas between; NULL where the URL has none). False when they do not
 * fit together or a port is none. */
bool store_target_init(struct store_target *target, const char *hosts, const char *addresses, const char *ports);

/* Starts over with the first host. */
void store_target_rewind(struct store_target *target);

/* The present host; NULL when all were tried. */
const struct store_host *store_target_host(const struct store_target *target);

/* Fills the present host's addresses; blocks, so it runs on the worker. */
void store_target_resolve(struct store_target *target, const struct port *port);

/* The present address failed: on to the next one of this host. False when there is none; then the next host, if any,
 * is the present one and must be resolved. */
bool store_target_next(struct store_target *target);

/* The present address without its port, terminated ("127.0.0.1", "::1"). */
void store_target_address(const struct store_target *target, const struct port *port,
                          char text[PORT_ADDRESS_TEXT_BYTES]);

#endif
