/* SPDX-License-Identifier: MIT */
/* A pipe whose reading end the poller watches. Who finds wake_pending false sets it and writes the one byte; the loop
 * empties the pipe first and clears the mark after. So no wake-up is lost: one that comes between the two finds the
 * mark set and writes nothing, but the loop is awake then, and its exchange has seen all that was written before. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "posix.h"

bool posix_wake_open(struct posix *posix)
{
    int ends[2];
    if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0) {
        (void)posix_failed(posix, "pipe");
        return false;
    }
    posix->wake_read_fd = ends[0];
    posix->wake_write_fd = ends[1];
    return true;
}

void posix_wake_close(struct posix *posix)
{
    if (posix->wake_read_fd != PORT_NONE) {
        (void)close(posix->wake_read_fd);
        (void)close(posix->wake_write_fd);
    }
}

void posix_wake(void *context)
{
    struct posix *posix = context;
    if (!atomic_exchange(&posix->wake_pending, true)) {
        int saved = errno; /* a signal handler comes here too */
        ssize_t written = write(posix->wake_write_fd, "", 1);
        (void)written; /* the pipe holds one byte at most, so there is room */
        errno = saved;
    }
}

void posix_wake_clear(struct posix *posix)
{
    char bytes[8];
    ssize_t count = read(posix->wake_read_fd, bytes, sizeof bytes);
    (void)count;
    (void)atomic_exchange(&posix->wake_pending, false);
}
