/* SPDX-License-Identifier: MIT */
/* Storage by pread, pwrite and fdatasync, which also writes what is needed to find the data again. Nothing here looks
 * at the file's position, so that a file needs no more state than its descriptor. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "posix.h"

static enum port_result open_file(void *context, const char *path, bool create, port_file *file, uint64_t *size_bytes)
{
    struct posix *posix = context;
    int fd = posix_open_file(path, O_RDWR | (create ? O_CREAT : 0));
    if (fd < 0) {
        return errno == ENOENT && !create ? PORT_CLOSED : posix_failed(posix, "open");
    }
    struct stat status;
    if (fstat(fd, &status) != 0) {
        enum port_result result = posix_failed(posix, "fstat");
        (void)close(fd);
        return result;
    }
    *file = fd;
    *size_bytes = (uint64_t)status.st_size;
    return PORT_OK;
}

static enum port_result preallocate(void *context, port_file file, uint64_t size_bytes)
{
    int error;
    do {
        error = posix_fallocate(file, 0, (off_t)size_bytes);
    } while (error == EINTR);
    errno = error;
    return error == 0 ? PORT_OK : posix_failed(context, "preallocate");
}

static enum port_result read_at(void *context, port_file file, uint64_t offset, void *buffer, size_t bytes)
{
    uint8_t *into = buffer;
    while (bytes > 0) {
        ssize_t count = pread(file, into, bytes, (off_t)offset);
        if (count == 0) {
            return PORT_CLOSED;
        }
        if (count < 0) {
            if (errno == EINTR) {
                continue;
            }
            return posix_failed(context, "read");
        }
        into += count;
        offset += (uint64_t)count;
        bytes -= (size_t)count;
    }
    return PORT_OK;
}

static enum port_result write_at(void *context, port_file file, uint64_t offset, const void *data, size_t bytes)
{
    const uint8_t *from = data;
    while (bytes > 0) {
        ssize_t count = pwrite(file, from, bytes, (off_t)offset);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count <= 0) {
            return count < 0 ? posix_failed(context, "write")
                             : posix_failed_because(context, "write", "nothing of it was taken");
        }
        from += count;
        offset += (uint64_t)count;
        bytes -= (size_t)count;
    }
    return PORT_OK;
}

static enum port_result sync_file(void *context, port_file file)
{
    return fdatasync(file) == 0 ? PORT_OK : posix_failed(context, "sync");
}

bool posix_sync_directory(const char *path)
{
    int fd = posix_open_file(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0) {
        return false;
    }
    bool is_synced = fsync(fd) == 0;
    int saved = errno;
    (void)close(fd);
    errno = saved;
    return is_synced;
}

static enum port_result sync_directory(void *context, const char *path)
{
    return posix_sync_directory(path) ? PORT_OK : posix_failed(context, "sync the folder");
}

static enum port_result remove_file(void *context, const char *path)
{
    return unlink(path) == 0 ? PORT_OK : posix_failed(context, "remove");
}

static enum port_result list_directory(void *context, const char *path,
                                       void (*on_name)(void *argument, const char *name), void *argument)
{
    struct posix *posix = context;
    DIR *directory = opendir(path);
    if (directory == NULL) {
        return posix_failed(posix, "list the folder");
    }
    const struct dirent *entry;
    for (errno = 0; (entry = readdir(directory)) != NULL; errno = 0) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            on_name(argument, entry->d_name);
        }
    }
    enum port_result result = errno == 0 ? PORT_OK : posix_failed(posix, "list the folder");
    (void)closedir(directory);
    return result;
}

/* flock and not fcntl: a lock by fcntl goes when the process closes any descriptor of the file. */
bool posix_lock(int fd)
{
    int locked;
    do {
        locked = flock(fd, LOCK_EX | LOCK_NB);
    } while (locked != 0 && errno == EINTR);
    return locked == 0;
}

static enum port_result lock_file(void *context, const char *path, port_file *file)
{
    struct posix *posix = context;
    int fd = posix_open_file(path, O_RDWR | O_CREAT);
    if (fd < 0) {
        return posix_failed(posix, "open");
    }
    if (!posix_lock(fd)) {
        enum port_result result = errno == EWOULDBLOCK ? PORT_AGAIN : posix_failed(posix, "lock");
        (void)close(fd);
        return result;
    }
    *file = fd;
    return PORT_OK;
}

void posix_storage_functions(struct port *port)
{
    port->open_file = open_file;
    port->preallocate = preallocate;
    port->read_at = read_at;
    port->write_at = write_at;
    port->sync_file = sync_file;
    port->sync_directory = sync_directory;
    port->remove_file = remove_file;
    port->list_directory = list_directory;
    port->lock_file = lock_file;
}
