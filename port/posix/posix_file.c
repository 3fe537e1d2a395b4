/* SPDX-License-Identifier: MIT */
/* Files by the plain calls. Standard output may be a pipe that nobody empties. It is not made non-blocking, because
 * that is a property of the pipe's end and not of the program: the shell and what else writes there would see it too.
 * So it is asked for room before each piece, and a piece is no longer than what POSIX lets fit where there is room. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "posix.h"

enum { FILE_MODE = 0644, DIRECTORY_MODE = 0755, PATH_BYTES_MAX = 4096, PIECE_BYTES_MIN = 512, OPEN_ATTEMPTS_MAX = 10 };

int posix_open_file(const char *path, int flags)
{
    int fd;
    do {
        fd = open(path, flags | O_CLOEXEC, FILE_MODE);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

/* Does the path still name the file that was opened by it? Whoever had it before may have moved it away meanwhile. */
static bool is_still_named(const char *path, const struct stat *opened)
{
    struct stat named;
    return lstat(path, &named) == 0 && named.st_dev == opened->st_dev && named.st_ino == opened->st_ino;
}

/* /dev/stdout is a symbolic link, and may lead to a regular file. */
static bool is_link(const char *path)
{
    struct stat named;
    return lstat(path, &named) == 0 && S_ISLNK(named.st_mode);
}

/* PORT_CLOSED: the file was moved away before it was ours. */
static enum port_result take_file(struct posix *posix, int fd, const char *path, uint64_t *size_bytes)
{
    struct stat status;
    if (fstat(fd, &status) != 0) {
        return posix_failed(posix, "fstat");
    }
    if (!S_ISREG(status.st_mode) || is_link(path)) {
        *size_bytes = PORT_NO_SIZE;
        return PORT_OK;
    }
    bool locked = posix_lock(fd);
    if (!locked && errno == EWOULDBLOCK) {
        (void)posix_failed(posix, "lock");
        return PORT_AGAIN;
    }
    /* Where there are no locks (some network file systems) it must do without. */
    if (locked && (fstat(fd, &status) != 0 || !is_still_named(path, &status))) {
        return PORT_CLOSED;
    }
    *size_bytes = (uint64_t)status.st_size;
    return PORT_OK;
}

static enum port_result open_append(void *context, const char *path, port_file *file, uint64_t *size_bytes)
{
    struct posix *posix = context;
    enum port_result result = PORT_CLOSED;
    for (unsigned attempt = 0; attempt < OPEN_ATTEMPTS_MAX && result == PORT_CLOSED; attempt++) {
        /* A named pipe must not be waited for: not now for a reader, nor later for room. */
        int fd = posix_open_file(path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK);
        if (fd < 0) {
            return errno == ENXIO ? posix_failed_because(posix, "open", "it is a socket, or a pipe that nobody reads")
                                  : posix_failed(posix, "open");
        }
        result = take_file(posix, fd, path, size_bytes);
        if (result == PORT_OK) {
            *file = fd;
        } else {
            (void)close(fd);
        }
    }
    return result == PORT_CLOSED ? posix_failed_because(posix, "open", "the file is moved away again and again")
                                 : result;
}

static enum port_result append(void *context, port_file file, const void *data, size_t bytes, size_t *written_bytes)
{
    size_t written = 0;
    bool well = true;
    while (well && written < bytes) {
        ssize_t count = write(file, (const uint8_t *)data + written, bytes - written);
        if (count >= 0) {
            written += (size_t)count;
        } else {
            well = errno == EINTR;
        }
    }
    *written_bytes = written;
    return well ? PORT_OK : posix_failed(context, "write");
}

static bool has_room(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
    return poll(&poll_fd, 1, 0) == 1 && (poll_fd.revents & POLLOUT) != 0;
}

static size_t print(void *context, const void *data, size_t bytes)
{
    (void)context;
    long limit = fpathconf(STDOUT_FILENO, _PC_PIPE_BUF);
    size_t piece = limit > PIECE_BYTES_MIN ? (size_t)limit : PIECE_BYTES_MIN;
    size_t printed = 0;
    while (printed < bytes && has_room(STDOUT_FILENO)) {
        size_t left = bytes - printed;
        ssize_t count = write(STDOUT_FILENO, (const uint8_t *)data + printed, left < piece ? left : piece);
        if (count <= 0) {
            break;
        }
        printed += (size_t)count;
    }
    return printed;
}

static enum port_result read_all(struct posix *posix, int fd, uint8_t *buffer, size_t capacity_bytes,
                                 size_t *read_bytes)
{
    size_t used = 0;
    for (;;) {
        uint8_t beyond; /* whether there is more than fits */
        bool full = used == capacity_bytes;
        ssize_t count = read(fd, full ? &beyond : buffer + used, full ? 1 : capacity_bytes - used);
        if (count == 0) {
            *read_bytes = used;
            return PORT_OK;
        }
        if (count < 0) {
            if (errno == EINTR) {
                continue;
            }
            return posix_failed(posix, "read");
        }
        if (full) {
            return posix_failed_because(posix, "read", "the file is too large");
        }
        used += (size_t)count;
    }
}

static enum port_result read_file(void *context, const char *path, void *buffer, size_t capacity_bytes,
                                  size_t *read_bytes)
{
    struct posix *posix = context;
    int fd = posix_open_file(path, O_RDONLY);
    if (fd < 0) {
        return errno == ENOENT ? PORT_CLOSED : posix_failed(posix, "open");
    }
    enum port_result result = read_all(posix, fd, buffer, capacity_bytes, read_bytes);
    (void)close(fd);
    return result;
}

static enum port_result rename_file(void *context, const char *from, const char *to)
{
    return rename(from, to) == 0 ? PORT_OK : posix_failed(context, "rename");
}

/* One level; fine when it is there already. What is made stays, whatever happens to the power. */
static bool make_one(const char *path)
{
    struct stat status;
    char parent[PATH_BYTES_MAX + sizeof "/.."];
    if (mkdir(path, DIRECTORY_MODE) == 0) {
        (void)snprintf(parent, sizeof parent, "%s/..", path);
        return posix_sync_directory(parent);
    }
    /* A read-only file system says so before it says that the directory exists. */
    int saved = errno;
    if (stat(path, &status) == 0) {
        if (S_ISDIR(status.st_mode)) {
            return true;
        }
        saved = ENOTDIR;
    }
    errno = saved;
    return false;
}

static enum port_result make_directory(void *context, const char *path)
{
    struct posix *posix = context;
    char partial[PATH_BYTES_MAX];
    size_t length = strlen(path);
    CHECK(length > 0);
    if (length >= sizeof partial) {
        errno = ENAMETOOLONG;
        return posix_failed(posix, "make directory");
    }
    memcpy(partial, path, length + 1);
    for (size_t at = 1; at <= length; at++) {
        if (path[at] == '/' || path[at] == '\0') {
            partial[at] = '\0';
            if (!make_one(partial)) {
                return posix_failed(posix, "make directory");
            }
            partial[at] = path[at];
        }
    }
    return PORT_OK;
}

static void close_file(void *context, port_file file)
{
    (void)context;
    CHECK(file >= 0);
    (void)close(file);
}

void posix_file_functions(struct port *port)
{
    port->open_append = open_append;
    port->append = append;
    port->read_file = read_file;
    port->print = print;
    port->rename = rename_file;
    port->make_directory = make_directory;
    port->close_file = close_file;
}
