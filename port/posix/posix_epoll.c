/* SPDX-License-Identifier: MIT */
/* Linux's epoll, level-triggered, behind the poller's table. Its events carry the descriptor; the token is looked up in
 * the table when they are handed on, before anything can be removed. */
#include "check.h"
#include "posix.h"

#ifdef __linux__

#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { BATCH_MAX = 256 };

static uint32_t epoll_events(short poll_events)
{
    return ((poll_events & POLLIN) != 0 ? (uint32_t)EPOLLIN : 0) |
           ((poll_events & POLLOUT) != 0 ? (uint32_t)EPOLLOUT : 0);
}

static bool control(struct posix *posix, int operation, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    return epoll_ctl(posix->poller.epoll_fd, operation, fd, &event) == 0;
}

bool posix_epoll_open(struct posix *posix)
{
    posix->poller.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (posix->poller.epoll_fd < 0 || !control(posix, EPOLL_CTL_ADD, posix->wake_read_fd, EPOLLIN)) {
        (void)posix_failed(posix, "epoll");
        return false;
    }
    posix->poller.epoll = true;
    return true;
}

void posix_epoll_close(struct posix *posix)
{
    if (posix->poller.epoll_fd >= 0) {
        (void)close(posix->poller.epoll_fd);
    }
}

bool posix_epoll_add(struct posix *posix, int fd, short poll_events)
{
    return control(posix, EPOLL_CTL_ADD, fd, epoll_events(poll_events));
}

void posix_epoll_change(struct posix *posix, int fd, short poll_events)
{
    CHECK(control(posix, EPOLL_CTL_MOD, fd, epoll_events(poll_events)));
}

void posix_epoll_remove(struct posix *posix, int fd)
{
    /* A library that owns its descriptor may have closed it already, and the kernel has forgotten it then. */
    CHECK(control(posix, EPOLL_CTL_DEL, fd, 0) || errno == EBADF || errno == ENOENT);
}

size_t posix_epoll_wait(struct posix *posix, struct port_event *events, size_t event_max, int timeout_ms)
{
    struct posix_poller *poller = &posix->poller;
    struct epoll_event batch[BATCH_MAX];
    int found = epoll_wait(poller->epoll_fd, batch, event_max < BATCH_MAX ? (int)event_max : BATCH_MAX, timeout_ms);
    CHECK(found >= 0 || errno == EINTR);
    size_t event_count = 0;
    for (int at = 0; at < found; at++) {
        int fd = batch[at].data.fd;
        if (fd == posix->wake_read_fd) {
            posix_wake_clear(posix);
            continue;
        }
        uint32_t index = poller->index_by_fd[fd];
        uint32_t flags = batch[at].events;
        uint32_t ready = ((flags & EPOLLIN) != 0 ? (uint32_t)PORT_READ : 0) |
                         ((flags & EPOLLOUT) != 0 ? (uint32_t)PORT_WRITE : 0) |
                         ((flags & (EPOLLERR | EPOLLHUP)) != 0 ? (uint32_t)PORT_HANGUP : 0);
        events[event_count++] = (struct port_event){.token = poller->tokens[index], .ready = ready};
    }
    return event_count;
}

#else

bool posix_epoll_open(struct posix *posix)
{
    (void)posix_failed_because(posix, "epoll", "this system has none");
    return false;
}

void posix_epoll_close(struct posix *posix)
{
    (void)posix;
}

bool posix_epoll_add(struct posix *posix, int fd, short poll_events)
{
    (void)posix;
    (void)fd;
    (void)poll_events;
    CHECK(false);
    return false;
}

void posix_epoll_change(struct posix *posix, int fd, short poll_events)
{
    (void)posix_epoll_add(posix, fd, poll_events);
}

void posix_epoll_remove(struct posix *posix, int fd)
{
    (void)posix_epoll_add(posix, fd, 0);
}

size_t posix_epoll_wait(struct posix *posix, struct port_event *events, size_t event_max, int timeout_ms)
{
    (void)events;
    (void)event_max;
    (void)posix_epoll_add(posix, timeout_ms, 0);
    return 0;
}

#endif
