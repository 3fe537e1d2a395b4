/* SPDX-License-Identifier: MIT */
/* Two indexes walk a list of hosts and the addresses of the present one. A host that is a path, or that libpq knows by
 * itself, has one address, which is not looked at. */
#include "store_target.h"

#include "check.h"
#include "decimal.h"
#include "span.h"

/* Cuts the next piece up to a comma off the list. */
static struct span cut(struct span *list, bool *more)
{
    const uint8_t *const comma = list->bytes > 0 ? memchr(list->data, ',', list->bytes) : NULL;
    const struct span piece = comma == NULL ? *list : span_of(list->data, (size_t)(comma - list->data));
    *more = comma != NULL;
    *list = comma == NULL ? span_of(NULL, 0) : span_of(comma + 1, list->bytes - piece.bytes - 1);
    return piece;
}

static bool read_port(struct span text, uint16_t *port)
{
    uint64_t value = STORE_PORT_DEFAULT;
    if (text.bytes > 0 && !decimal_parse(text, 1, UINT16_MAX, &value)) {
        return false;
    }
    *port = (uint16_t)value;
    return true;
}

bool store_target_init(struct store_target *target, const char *hosts, const char *ports, bool has_addresses)
{
    *target = (struct store_target){.host_count = 0};
    struct span host_list = span_text(hosts == NULL ? "" : hosts);
    struct span port_list = span_text(ports == NULL ? "" : ports);
    const bool one_port = port_list.bytes == 0 || memchr(port_list.data, ',', port_list.bytes) == NULL;
    bool more_hosts = true;
    bool more_ports = true;
    while (more_hosts) {
        if (target->host_count == STORE_HOSTS_MAX) {
            return false;
        }
        struct store_host *const host = &target->hosts[target->host_count++];
        const struct span name = cut(&host_list, &more_hosts);
        if (name.bytes > STORE_HOST_BYTES_MAX || (!one_port && !more_ports)) {
            return false;
        }
        if (name.bytes > 0) {
            memcpy(host->name, name.data, name.bytes);
        }
        host->by_libpq = has_addresses || name.bytes == 0 || name.data[0] == '/' || name.data[0] == '@';
        if (!read_port(one_port ? port_list : cut(&port_list, &more_ports), &host->port)) {
            return false;
        }
    }
    if (!one_port && more_ports) {
        return false;
    }
    if (has_addresses) {
        target->host_count = 1; /* libpq walks the list by itself: nothing of it needs DNS */
    }
    return true;
}

void store_target_rewind(struct store_target *target)
{
    target->host_index = 0;
    target->address_index = 0;
    target->address_count = 0;
}

const struct store_host *store_target_host(const struct store_target *target)
{
    return target->host_index < target->host_count ? &target->hosts[target->host_index] : NULL;
}

void store_target_resolve(struct store_target *target, const struct port *port)
{
    const struct store_host *const host = store_target_host(target);
    CHECK(host != NULL);
    target->address_index = 0;
    if (host->by_libpq) {
        target->address_count = 1;
        return;
    }
    target->address_count =
        port->resolve(port->context, host->name, host->port, target->addresses, STORE_ADDRESSES_MAX);
    if (target->address_count == 0) {
        (void)snprintf(target->error, sizeof target->error, "%s", port->error_text(port->context));
    }
}

bool store_target_next(struct store_target *target)
{
    if (target->address_index + 1 < target->address_count) {
        target->address_index++;
        return true;
    }
    target->address_index = 0;
    target->address_count = 0;
    target->host_index++;
    return false;
}

void store_target_address(const struct store_target *target, const struct port *port,
                          char text[PORT_ADDRESS_TEXT_BYTES])
{
    CHECK(target->address_index < target->address_count);
    char with_port[PORT_ADDRESS_TEXT_BYTES];
    port->format_address(port->context, &target->addresses[target->address_index], with_port);
    const char *const end = strrchr(with_port, with_port[0] == '[' ? ']' : ':');
    CHECK(end != NULL);
    const char *const begin = with_port[0] == '[' ? with_port + 1 : with_port;
    const size_t bytes = (size_t)(end - begin);
    memcpy(text, begin, bytes);
    text[bytes] = '\0';
}
