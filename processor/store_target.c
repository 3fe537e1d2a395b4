/* SPDX-License-Identifier: MIT */
/* Two indexes walk a list of hosts and the addresses of the present one. A host whose address the URL gives, that is a
 * path, or that libpq knows by itself, has one address, which is not looked at. */
#include "store_target.h"

#include "check.h"
#include "decimal.h"
#include "span.h"

static size_t count_pieces(struct span list)
{
    size_t count = list.bytes > 0;
    for (size_t i = 0; i < list.bytes; i++) {
        count += list.data[i] == ',';
    }
    return count;
}

/* Cuts the next piece up to a comma off the list; an empty one when nothing is left. */
static struct span cut(struct span *list)
{
    const uint8_t *const comma = list->bytes > 0 ? memchr(list->data, ',', list->bytes) : NULL;
    const struct span piece = comma == NULL ? *list : span_of(list->data, (size_t)(comma - list->data));
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

/* False when there is no room for it and its terminator. */
static bool read_text(struct span from, char *to, size_t to_bytes)
{
    if (from.bytes >= to_bytes) {
        return false;
    }
    if (from.bytes > 0) {
        memcpy(to, from.data, from.bytes);
    }
    to[from.bytes] = '\0';
    return true;
}

static bool read_host(struct store_host *host, struct span name, struct span address, struct span port)
{
    host->by_libpq = address.bytes > 0 || name.bytes == 0 || name.data[0] == '/' || name.data[0] == '@';
    if (!host->by_libpq && memchr(name.data, '@', name.bytes) != NULL) {
        return false; /* no name, but the end of a password with an @ in it: nobody shall log it */
    }
    return read_text(name, host->name, sizeof host->name) && read_text(address, host->address, sizeof host->address) &&
           read_port(port, &host->port);
}

bool store_target_init(struct store_target *target, const char *hosts, const char *addresses, const char *ports)
{
    struct span host_list = span_text(hosts == NULL ? "" : hosts);
    struct span address_list = span_text(addresses == NULL ? "" : addresses);
    struct span port_list = span_text(ports == NULL ? "" : ports);
    const size_t name_count = count_pieces(host_list);
    const size_t address_count = count_pieces(address_list);
    const size_t port_count = count_pieces(port_list);
    const size_t named_count = name_count > 0 ? name_count : 1;
    *target = (struct store_target){.host_count = address_count > 0 ? address_count : named_count};
    const size_t count = target->host_count;
    /* As libpq has it: name and address of one place belong together, and one port is everybody's. */
    if (count > STORE_HOSTS_MAX || (name_count > 0 && name_count != count) || (port_count > 1 && port_count != count)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const struct span port = port_count > 1 ? cut(&port_list) : port_list;
        if (!read_host(&target->hosts[i], cut(&host_list), cut(&address_list), port)) {
            return false;
        }
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
