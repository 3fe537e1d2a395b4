/* SPDX-License-Identifier: MIT */
/* The least a server of many connections can cost: poll(), receive, send the same bytes back. The limit that the
 * gateway's CPU time a message is put beside. Prints its port, then serves until it is ended. */
#define _GNU_SOURCE
#include "bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ECHO_BYTES = 64 * 1024, BACKLOG = 4096 };

struct echo {
    struct pollfd *fds; /* the listener first */
    nfds_t fd_count;
    nfds_t fd_max;
    char buffer[ECHO_BYTES];
};

static int listen_anywhere(unsigned *port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)*port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t address_bytes = sizeof address;
    int on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &address_bytes) != 0) {
        bench_die("listen: %s", strerror(errno));
    }
    *port = ntohs(address.sin_port);
    return fd;
}

static void accept_all(struct echo *echo)
{
    while (echo->fd_count < echo->fd_max) {
        int fd = accept4(echo->fds[0].fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            return;
        }
        int on = 1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        echo->fds[echo->fd_count++] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
}

/* False when the connection has gone. What one receive brought fits an empty send buffer. */
static bool echo_once(struct echo *echo, int fd)
{
    ssize_t received = recv(fd, echo->buffer, sizeof echo->buffer, 0);
    if (received < 0) {
        return errno == EAGAIN || errno == EINTR;
    }
    return received > 0 && send(fd, echo->buffer, (size_t)received, MSG_NOSIGNAL) == received;
}

int main(int argc, char **argv)
{
    static struct echo echo;
    double port_option = 0;
    const struct bench_option options[] = {{"port", NULL, &port_option}}; /* 0: any */
    bench_options(argc, argv, options, 1);
    struct rlimit files;
    (void)getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
    unsigned port = (unsigned)port_option;
    echo.fd_max = (nfds_t)files.rlim_cur;
    echo.fds = bench_memory(echo.fd_max, sizeof *echo.fds);
    echo.fds[echo.fd_count++] = (struct pollfd){.fd = listen_anywhere(&port), .events = POLLIN};
    (void)printf("%u\n", port);
    (void)fflush(stdout);
    for (;;) {
        int ready = poll(echo.fds, echo.fd_count, -1);
        bool accepting = ready > 0 && echo.fds[0].revents != 0;
        ready -= accepting ? 1 : 0;
        for (nfds_t i = echo.fd_count - 1; i > 0 && ready > 0; i--) {
            if (echo.fds[i].revents == 0) {
                continue;
            }
            ready--;
            if (!echo_once(&echo, echo.fds[i].fd)) {
                (void)close(echo.fds[i].fd);
                echo.fds[i] = echo.fds[--echo.fd_count];
            }
        }
        if (accepting) {
            accept_all(&echo);
        }
    }
}
