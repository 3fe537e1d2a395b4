/* SPDX-License-Identifier: MIT */
/* Addresses to and from the system's form, to and from text, and from names. An IPv4 address in IPv6's clothes
 * (::ffff:192.0.2.1, from a listener for both) is shown as what it is. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "check.h"
#include "posix.h"

size_t posix_address_to_native(const struct port_address *address, struct sockaddr_storage *native)
{
    memset(native, 0, sizeof *native);
    if (address->v6) {
        struct sockaddr_in6 *six = (void *)native;
        six->sin6_family = AF_INET6;
        six->sin6_port = htons(address->port);
        memcpy(&six->sin6_addr, address->bytes, 16);
        return sizeof *six;
    }
    struct sockaddr_in *four = (void *)native;
    four->sin_family = AF_INET;
    four->sin_port = htons(address->port);
    memcpy(&four->sin_addr, address->bytes, 4);
    return sizeof *four;
}

bool posix_address_from_native(const struct sockaddr *native, struct port_address *address)
{
    static const uint8_t mapped[12] = {[10] = 0xFF, [11] = 0xFF};
    memset(address, 0, sizeof *address);
    if (native->sa_family == AF_INET) {
        struct sockaddr_in four;
        memcpy(&four, native, sizeof four);
        address->port = ntohs(four.sin_port);
        memcpy(address->bytes, &four.sin_addr, 4);
        return true;
    }
    if (native->sa_family == AF_INET6) {
        struct sockaddr_in6 six;
        memcpy(&six, native, sizeof six);
        address->port = ntohs(six.sin6_port);
        memcpy(address->bytes, &six.sin6_addr, 16);
        address->v6 = memcmp(address->bytes, mapped, sizeof mapped) != 0;
        if (!address->v6) {
            memmove(address->bytes, address->bytes + sizeof mapped, 4);
            memset(address->bytes + 4, 0, 12);
        }
        return true;
    }
    return false;
}

void posix_format_address(void *context, const struct port_address *address, char text[PORT_ADDRESS_TEXT_BYTES])
{
    (void)context;
    char host[INET6_ADDRSTRLEN];
    CHECK(inet_ntop(address->v6 ? AF_INET6 : AF_INET, address->bytes, host, sizeof host) != NULL);
    (void)snprintf(text, PORT_ADDRESS_TEXT_BYTES, address->v6 ? "[%s]:%u" : "%s:%u", host, (unsigned)address->port);
}

bool posix_parse_address(void *context, const char *host, uint16_t port, struct port_address *address)
{
    (void)context;
    struct port_address parsed = {.port = port};
    if (inet_pton(AF_INET, host, parsed.bytes) != 1) {
        parsed.v6 = true;
        if (inet_pton(AF_INET6, host, parsed.bytes) != 1) {
            return false;
        }
    }
    *address = parsed;
    return true;
}

size_t posix_resolve(void *context, const char *host, uint16_t port, struct port_address *addresses, size_t address_max)
{
    struct posix *posix = context;
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int error = getaddrinfo(host, NULL, &hints, &found);
    if (error == EAI_SYSTEM) {
        (void)posix_failed(posix, "resolve");
        return 0;
    }
    if (error != 0) {
        (void)posix_failed_because(posix, "resolve", gai_strerror(error));
        return 0;
    }
    size_t count = 0;
    for (const struct addrinfo *item = found; item != NULL && count < address_max; item = item->ai_next) {
        if (posix_address_from_native(item->ai_addr, &addresses[count])) {
            addresses[count].port = port;
            count++;
        }
    }
    freeaddrinfo(found);
    if (count == 0) {
        (void)posix_failed_because(posix, "resolve", "the name has no address");
    }
    return count;
}
