/* SPDX-License-Identifier: MIT */
/* A dense array of what is watched, which poll() takes as it is, and an index by descriptor into it: adding, changing
 * and removing are O(1), a hole is filled with the last entry. epoll uses the same table for tokens and interests and
 * has its own list in the kernel. */
#include "check.h"
#include "posix.h"

#include <errno.h>
#include <limits.h>

enum { WAKE_INDEX = 0 };

static short poll_events(uint32_t interest)
{
    return (short)(((interest & PORT_READ) != 0 ? POLLIN : 0) | ((interest & PORT_WRITE) != 0 ? POLLOUT : 0));
}

static size_t rounded(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static size_t handle_max(size_t watch_max)
{
    return watch_max + POSIX_OTHER_HANDLES_MAX;
}

size_t posix_poller_bytes(size_t watch_max)
{
    return rounded((watch_max + 1) * sizeof(struct pollfd)) + rounded((watch_max + 1) * sizeof(uint64_t)) +
           rounded(handle_max(watch_max) * sizeof(uint32_t));
}

bool posix_poller_open(struct posix *posix, enum port_posix_poller kind, size_t watch_max, void *memory)
{
    struct posix_poller *poller = &posix->poller;
    uint8_t *bytes = memory;
    poller->polls = (void *)bytes;
    bytes += rounded((watch_max + 1) * sizeof(struct pollfd));
    poller->tokens = (void *)bytes;
    bytes += rounded((watch_max + 1) * sizeof(uint64_t));
    poller->index_by_fd = (void *)bytes;
    poller->handle_max = handle_max(watch_max);
    poller->watch_max = watch_max;
    poller->scan_index = 1;
    poller->polls[WAKE_INDEX] = (struct pollfd){.fd = posix->wake_read_fd, .events = POLLIN};
    switch (kind) {
    case PORT_POSIX_POLL:
        return true;
    case PORT_POSIX_EPOLL:
        return posix_epoll_open(posix);
    case PORT_POSIX_AUTO:
        if (watch_max > PORT_POSIX_POLL_WATCHES) {
            (void)posix_epoll_open(posix); /* poll() does where there is no epoll */
        }
        return true;
    }
    CHECK(false);
    return false;
}

void posix_poller_close(struct posix *posix)
{
    posix_epoll_close(posix);
}

static uint32_t watched_index(const struct posix_poller *poller, port_socket socket)
{
    CHECK(socket >= 0);
    uint32_t index = (size_t)socket < poller->handle_max ? poller->index_by_fd[socket] : 0;
    CHECK(index != 0);
    return index;
}

enum port_result posix_watch_add(void *context, port_socket socket, uint32_t interest, uint64_t token)
{
    struct posix *posix = context;
    struct posix_poller *poller = &posix->poller;
    CHECK(socket >= 0);
    if (poller->watch_count == poller->watch_max || (size_t)socket >= poller->handle_max) {
        return posix_failed_because(posix, "watch", "more sockets than the poller was made for");
    }
    CHECK(poller->index_by_fd[socket] == 0);
    short events = poll_events(interest);
    if (poller->epoll && !posix_epoll_add(posix, socket, events)) {
        return posix_failed(posix, "watch");
    }
    poller->watch_count++;
    uint32_t index = (uint32_t)poller->watch_count;
    poller->polls[index] = (struct pollfd){.fd = socket, .events = events};
    poller->tokens[index] = token;
    poller->index_by_fd[socket] = index;
    return PORT_OK;
}

void posix_watch_change(void *context, port_socket socket, uint32_t interest)
{
    struct posix *posix = context;
    struct posix_poller *poller = &posix->poller;
    struct pollfd *entry = &poller->polls[watched_index(poller, socket)];
    short events = poll_events(interest);
    if (entry->events == events) {
        return;
    }
    entry->events = events;
    if (poller->epoll) {
        posix_epoll_change(posix, socket, events);
    }
}

void posix_watch_remove(void *context, port_socket socket)
{
    struct posix *posix = context;
    struct posix_poller *poller = &posix->poller;
    uint32_t index = watched_index(poller, socket);
    size_t last = poller->watch_count;
    poller->polls[index] = poller->polls[last];
    poller->tokens[index] = poller->tokens[last];
    poller->index_by_fd[poller->polls[index].fd] = index;
    poller->index_by_fd[socket] = 0;
    poller->watch_count--;
    if (poller->epoll) {
        posix_epoll_remove(posix, socket);
    }
}

static uint32_t ready_bits(short events)
{
    return ((events & POLLIN) != 0 ? (uint32_t)PORT_READ : 0) | ((events & POLLOUT) != 0 ? (uint32_t)PORT_WRITE : 0) |
           ((events & (POLLERR | POLLHUP | POLLNVAL)) != 0 ? (uint32_t)PORT_HANGUP : 0);
}

static size_t poll_wait(struct posix *posix, struct port_event *events, size_t event_max, int timeout_ms)
{
    struct posix_poller *poller = &posix->poller;
    int found = poll(poller->polls, (nfds_t)(poller->watch_count + 1), timeout_ms);
    if (found <= 0) {
        CHECK(found == 0 || errno == EINTR);
        return 0; /* after EINTR the wake-up is in the pipe: the next wait returns at once */
    }
    size_t ready_count = (size_t)found;
    if (poller->polls[WAKE_INDEX].revents != 0) {
        posix_wake_clear(posix);
        ready_count--;
    }
    size_t event_count = 0;
    size_t index = poller->scan_index;
    for (size_t step = 0; step < poller->watch_count && event_count < ready_count && event_count < event_max; step++) {
        if (index > poller->watch_count) {
            index = 1;
        }
        if (poller->polls[index].revents != 0) {
            events[event_count++] =
                (struct port_event){.token = poller->tokens[index], .ready = ready_bits(poller->polls[index].revents)};
        }
        index++;
    }
    poller->scan_index = index;
    return event_count;
}

size_t posix_wait(void *context, struct port_event *events, size_t event_max, int64_t timeout_ms)
{
    struct posix *posix = context;
    CHECK(event_max > 0);
    int timeout = timeout_ms < 0 ? -1 : timeout_ms > INT_MAX ? INT_MAX : (int)timeout_ms;
    return posix->poller.epoll ? posix_epoll_wait(posix, events, event_max, timeout)
                               : poll_wait(posix, events, event_max, timeout);
}
