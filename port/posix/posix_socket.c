/* SPDX-License-Identifier: MIT */
/* Stream sockets, one system call a function where there are no options to set. Calls that a signal interrupted are
 * made again. */
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "posix.h"

enum {
    ACCEPT_TRIES_MAX = 64 /* newcomers that gave up, passed over in one call */
};

static bool set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value) == 0;
}

static bool would_block(int error)
{
#if EAGAIN != EWOULDBLOCK
    if (error == EWOULDBLOCK) {
        return true;
    }
#endif
    return error == EAGAIN;
}

/* Notes the failure, then closes. */
static enum port_result close_failed(struct posix *posix, int fd, const char *what)
{
    enum port_result result = posix_failed(posix, what);
    (void)close(fd);
    return result;
}

static int open_stream(bool v6)
{
    return socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

static enum port_result do_listen(void *context, const struct port_address *address, port_socket *socket)
{
    struct posix *posix = context;
    struct sockaddr_storage native;
    size_t native_bytes = posix_address_to_native(address, &native);
    int fd = open_stream(address->v6);
    if (fd < 0) {
        return posix_failed(posix, "socket");
    }
    if (!set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1)) {
        return close_failed(posix, fd, "SO_REUSEADDR");
    }
    /* "::" takes IPv4 too, whatever the machine's default is. */
    if (address->v6 && !set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0)) {
        return close_failed(posix, fd, "IPV6_V6ONLY");
    }
    if (bind(fd, (struct sockaddr *)&native, (socklen_t)native_bytes) != 0) {
        return close_failed(posix, fd, "bind");
    }
    if (listen(fd, SOMAXCONN) != 0) {
        return close_failed(posix, fd, "listen");
    }
    *socket = fd;
    return PORT_OK;
}

/* What became of a newcomer before it was taken from the queue; the next one may be well. accept(2) of Linux hands on
 * errors of the network so. */
static bool newcomer_gave_up(int error)
{
    return error == EINTR || error == ECONNABORTED || error == EPROTO || error == ENETDOWN || error == ENOPROTOOPT ||
           error == EHOSTDOWN || error == EHOSTUNREACH || error == ENETUNREACH || error == ECONNRESET;
}

static enum port_result do_accept(void *context, port_socket listener, port_socket *socket, struct port_address *peer)
{
    struct posix *posix = context;
    for (int tries = 0; tries < ACCEPT_TRIES_MAX; tries++) {
        struct sockaddr_storage native;
        socklen_t native_bytes = sizeof native;
        int fd = accept4(listener, (struct sockaddr *)&native, &native_bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (newcomer_gave_up(errno)) {
                continue;
            }
            return would_block(errno) ? PORT_AGAIN : posix_failed(posix, "accept");
        }
        if (!posix_address_from_native((struct sockaddr *)&native, peer) ||
            !set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1)) {
            (void)close(fd); /* gone already, on systems that tell it here */
            continue;
        }
        *socket = fd;
        return PORT_OK;
    }
    return PORT_AGAIN;
}

static enum port_result do_connect(void *context, const struct port_address *address, port_socket *socket)
{
    struct posix *posix = context;
    struct sockaddr_storage native;
    size_t native_bytes = posix_address_to_native(address, &native);
    int fd = open_stream(address->v6);
    if (fd < 0) {
        return posix_failed(posix, "socket");
    }
    if (!set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1)) {
        return close_failed(posix, fd, "TCP_NODELAY");
    }
    /* An interrupted connect goes on by itself. */
    if (connect(fd, (struct sockaddr *)&native, (socklen_t)native_bytes) != 0 && errno != EINPROGRESS &&
        errno != EINTR) {
        return close_failed(posix, fd, "connect");
    }
    *socket = fd;
    return PORT_OK;
}

static enum port_result do_connected(void *context, port_socket socket)
{
    struct posix *posix = context;
    int error = 0;
    socklen_t error_bytes = sizeof error;
    if (getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &error_bytes) != 0) {
        return posix_failed(posix, "connect");
    }
    if (error != 0) {
        errno = error;
        return posix_failed(posix, "connect");
    }
    struct sockaddr_storage peer;
    socklen_t peer_bytes = sizeof peer;
    if (getpeername(socket, (struct sockaddr *)&peer, &peer_bytes) != 0) {
        return errno == ENOTCONN ? PORT_AGAIN : posix_failed(posix, "connect");
    }
    return PORT_OK;
}

static enum port_result do_receive(void *context, port_socket socket, void *buffer, size_t bytes,
                                   size_t *received_bytes)
{
    CHECK(bytes > 0);
    ssize_t count;
    do {
        count = recv(socket, buffer, bytes, 0);
    } while (count < 0 && errno == EINTR);
    if (count > 0) {
        *received_bytes = (size_t)count;
        return PORT_OK;
    }
    *received_bytes = 0;
    if (count == 0) {
        return PORT_CLOSED;
    }
    return would_block(errno) ? PORT_AGAIN : posix_failed(context, "receive");
}

static enum port_result do_send(void *context, port_socket socket, const void *data, size_t bytes, size_t *sent_bytes)
{
    CHECK(bytes > 0);
    ssize_t count;
    do {
        count = send(socket, data, bytes, MSG_NOSIGNAL);
    } while (count < 0 && errno == EINTR);
    if (count >= 0) {
        *sent_bytes = (size_t)count;
        return PORT_OK;
    }
    *sent_bytes = 0;
    return would_block(errno) ? PORT_AGAIN : posix_failed(context, "send");
}

static void do_set_patience(void *context, port_socket socket, uint32_t patience_ms)
{
    (void)context;
    CHECK(patience_ms > 0 && patience_ms <= INT_MAX);
#ifdef TCP_USER_TIMEOUT
    (void)set_option(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)patience_ms); /* a dead stream tells it by itself */
#else
    (void)socket;
#endif
}

static void do_shutdown_send(void *context, port_socket socket)
{
    (void)context;
    (void)shutdown(socket, SHUT_WR); /* fails only when the peer is gone, which the next receive tells */
}

static void do_close_socket(void *context, port_socket socket)
{
    const struct posix *posix = context;
    CHECK(socket >= 0);
    CHECK((size_t)socket >= posix->poller.handle_max || posix->poller.index_by_fd[socket] == 0);
    (void)close(socket);
}

static enum port_result do_local_address(void *context, port_socket socket, struct port_address *address)
{
    struct posix *posix = context;
    struct sockaddr_storage native;
    socklen_t native_bytes = sizeof native;
    if (getsockname(socket, (struct sockaddr *)&native, &native_bytes) != 0) {
        return posix_failed(posix, "local address");
    }
    if (!posix_address_from_native((struct sockaddr *)&native, address)) {
        return posix_failed_because(posix, "local address", "neither IPv4 nor IPv6");
    }
    return PORT_OK;
}

void posix_socket_functions(struct port *port)
{
    port->listen = do_listen;
    port->accept = do_accept;
    port->connect = do_connect;
    port->connected = do_connected;
    port->receive = do_receive;
    port->send = do_send;
    port->set_patience = do_set_patience;
    port->shutdown_send = do_shutdown_send;
    port->close_socket = do_close_socket;
    port->local_address = do_local_address;
}
