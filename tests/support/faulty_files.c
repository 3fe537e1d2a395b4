/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include "faulty_files.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SECTOR_BYTES = 512, FILES_MAX = 64, PATH_BYTES = 512 };

/* A write that no good sync followed. */
struct pending {
    struct pending *next; /* newer */
    char path[PATH_BYTES];
    uint64_t offset;
    size_t bytes;
    uint8_t *before;
    uint8_t *after;
};

struct open_file {
    port_file file; /* PORT_NONE: no file */
    char path[PATH_BYTES];
};

struct created {
    struct created *next;
    char path[PATH_BYTES];
};

static struct faulty_files *the;
static struct pending *pending_first;
static struct created *created_first; /* since the last sync of a folder */
static struct open_file files[FILES_MAX];

static void die(const char *what)
{
    (void)fprintf(stderr, "faulty_files: %s\n", what);
    abort();
}

static void *take(size_t bytes)
{
    void *memory = calloc(1, bytes > 0 ? bytes : 1);
    if (memory == NULL) {
        die("no memory");
    }
    return memory;
}

static uint64_t next_random(void)
{
    the->random ^= the->random << 13;
    the->random ^= the->random >> 7;
    the->random ^= the->random << 17;
    return the->random;
}

/* ---- faults ---- */

static enum port_result fail(const char *reason)
{
    the->reason = reason;
    return PORT_FAILED;
}

/* Counts the operation; true when it is to fail. */
static bool is_hit(enum faulty_operation operation)
{
    uint64_t number = the->counts[operation]++;
    const struct faulty_rule *rule = &the->rules[operation];
    if (faulty_is_dead(the)) {
        the->reason = "the power is off";
        return true;
    }
    if (operation != FAULTY_OPEN && operation != FAULTY_READ && operation != FAULTY_LIST && operation != FAULTY_LOCK) {
        the->change_count++;
        if (faulty_is_dead(the)) { /* it was in the middle of this one */
            the->reason = "the power is off";
            return true;
        }
    }
    if (rule->count > 0 && number >= rule->from && number - rule->from < rule->count) {
        the->reason = rule->reason;
        return true;
    }
    the->reason = NULL;
    return false;
}

void faulty_fail(struct faulty_files *faulty, enum faulty_operation operation, uint64_t skip, uint64_t count,
                 const char *reason)
{
    faulty->rules[operation] =
        (struct faulty_rule){.from = faulty->counts[operation] + skip, .count = count, .reason = reason};
}

void faulty_heal(struct faulty_files *faulty)
{
    memset(faulty->rules, 0, sizeof faulty->rules);
}

static const char *error_text(void *context)
{
    return the->reason != NULL ? the->reason : the->real.error_text(context);
}

/* ---- what was not synced ---- */

static struct open_file *find_open(port_file file)
{
    for (size_t i = 0; i < FILES_MAX; i++) {
        if (files[i].file == file) {
            return &files[i];
        }
    }
    die(file == PORT_NONE ? "too many open files" : "a file that is not open");
    return NULL;
}

static void remember(const char *path, port_file file, uint64_t offset, const void *data, size_t bytes)
{
    struct pending *pending = take(sizeof *pending);
    struct pending **last = &pending_first;
    (void)snprintf(pending->path, sizeof pending->path, "%s", path);
    pending->offset = offset;
    pending->bytes = bytes;
    pending->before = take(bytes);
    pending->after = take(bytes);
    memcpy(pending->after, data, bytes);
    if (pread(file, pending->before, bytes, (off_t)offset) < 0) {
        die("what stood there cannot be read");
    }
    while (*last != NULL) {
        last = &(*last)->next;
    }
    *last = pending;
}

static void write_into(const char *path, uint64_t offset, const uint8_t *data, size_t bytes)
{
    int fd = open(path, O_WRONLY);
    if (fd >= 0) {
        if (pwrite(fd, data, bytes, (off_t)offset) != (ssize_t)bytes) {
            die("a file cannot be put back");
        }
        (void)close(fd);
    }
}

static void undo_all(const struct pending *pending, const char *path)
{
    if (pending != NULL) {
        undo_all(pending->next, path);
        if (path == NULL || strcmp(path, pending->path) == 0) {
            write_into(pending->path, pending->offset, pending->before, pending->bytes);
        }
    }
}

/* Each sector that a write touches is there whole or not at all. */
static void redo_some(const struct pending *pending)
{
    uint64_t at = pending->offset;
    uint64_t end = pending->offset + pending->bytes;
    while (at < end) {
        uint64_t sector_end = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
        uint64_t stop = sector_end < end ? sector_end : end;
        if (next_random() % 2 == 0) {
            write_into(pending->path, at, pending->after + (at - pending->offset), (size_t)(stop - at));
        }
        at = stop;
    }
}

static void forget(const char *path)
{
    for (struct pending **at = &pending_first; *at != NULL;) {
        struct pending *pending = *at;
        if (path != NULL && strcmp(path, pending->path) != 0) {
            at = &pending->next;
            continue;
        }
        *at = pending->next;
        free(pending->before);
        free(pending->after);
        free(pending);
    }
}

/* What the cache of an operating system does after a failed sync: what was not written is gone, and nothing tells. */
static void lose_some(const char *path)
{
    undo_all(pending_first, path);
    for (const struct pending *pending = pending_first; pending != NULL; pending = pending->next) {
        if (strcmp(path, pending->path) == 0) {
            redo_some(pending);
        }
    }
    forget(path);
}

static void settle_created(enum faulty_cut cut)
{
    while (created_first != NULL) {
        struct created *created = created_first;
        uint64_t fate = cut == FAULTY_CUT_KEEPS ? 0 : cut == FAULTY_CUT_LOSES ? 1 : next_random() % 3;
        if (fate == 1 || (fate == 2 && truncate(created->path, 0) != 0)) {
            (void)unlink(created->path);
        }
        created_first = created->next;
        free(created);
    }
}

void faulty_cut_power(struct faulty_files *faulty, enum faulty_cut cut)
{
    for (size_t i = 0; i < FILES_MAX; i++) {
        if (files[i].file != PORT_NONE) {
            faulty->real.close_file(faulty->real.context, files[i].file);
            files[i].file = PORT_NONE;
        }
    }
    if (cut != FAULTY_CUT_KEEPS) {
        undo_all(pending_first, NULL);
        for (const struct pending *pending = pending_first; cut == FAULTY_CUT_TEARS && pending != NULL;
             pending = pending->next) {
            redo_some(pending);
        }
        forget(NULL);
        settle_created(cut);
    }
    faulty->job_count = 0;
    faulty->finished_count = 0;
    faulty->power_until = 0;
    faulty_heal(faulty);
}

/* ---- the port's functions ---- */

static enum port_result open_file(void *context, const char *path, bool create, port_file *file, uint64_t *size_bytes)
{
    if (is_hit(FAULTY_OPEN)) {
        return PORT_FAILED;
    }
    bool is_new = create && access(path, F_OK) != 0;
    enum port_result result = the->real.open_file(context, path, create, file, size_bytes);
    if (result == PORT_OK) {
        struct open_file *opened = find_open(PORT_NONE);
        opened->file = *file;
        (void)snprintf(opened->path, sizeof opened->path, "%s", path);
        if (is_new) {
            struct created *created = take(sizeof *created);
            (void)snprintf(created->path, sizeof created->path, "%s", path);
            created->next = created_first;
            created_first = created;
        }
    }
    return result;
}

static enum port_result preallocate(void *context, port_file file, uint64_t size_bytes)
{
    return is_hit(FAULTY_PREALLOCATE) ? PORT_FAILED : the->real.preallocate(context, file, size_bytes);
}

static enum port_result read_at(void *context, port_file file, uint64_t offset, void *buffer, size_t bytes)
{
    return is_hit(FAULTY_READ) ? PORT_FAILED : the->real.read_at(context, file, offset, buffer, bytes);
}

static enum port_result write_at(void *context, port_file file, uint64_t offset, const void *data, size_t bytes)
{
    const struct open_file *opened = find_open(file);
    bool was_dead = faulty_is_dead(the);
    bool is_failing = is_hit(FAULTY_WRITE);
    size_t done_bytes = is_failing ? the->rules[FAULTY_WRITE].written_bytes : bytes;
    if (is_failing && faulty_is_dead(the)) {
        done_bytes = was_dead ? 0 : bytes; /* of the write that the power cut hit, the cut decides */
    }
    done_bytes = done_bytes < bytes ? done_bytes : bytes;
    const char *reason = the->reason;
    remember(opened->path, file, offset, data, done_bytes);
    enum port_result result = the->real.write_at(context, file, offset, data, done_bytes);
    the->written_bytes += done_bytes;
    return is_failing ? fail(reason) : result;
}

static enum port_result sync_file(void *context, port_file file)
{
    (void)context;
    const struct open_file *opened = find_open(file);
    if (is_hit(FAULTY_SYNC)) {
        const char *reason = the->reason;
        if (!faulty_is_dead(the)) {
            lose_some(opened->path);
        }
        return fail(reason);
    }
    forget(opened->path); /* no real sync: what a power cut does is ours to say */
    return PORT_OK;
}

static enum port_result sync_directory(void *context, const char *path)
{
    (void)context;
    (void)path;
    if (is_hit(FAULTY_SYNC_DIRECTORY)) {
        return PORT_FAILED;
    }
    settle_created(FAULTY_CUT_KEEPS);
    return PORT_OK;
}

static enum port_result remove_file(void *context, const char *path)
{
    return is_hit(FAULTY_REMOVE) ? PORT_FAILED : the->real.remove_file(context, path);
}

static enum port_result list_directory(void *context, const char *path,
                                       void (*on_name)(void *argument, const char *name), void *argument)
{
    return is_hit(FAULTY_LIST) ? PORT_FAILED : the->real.list_directory(context, path, on_name, argument);
}

static enum port_result lock_file(void *context, const char *path, port_file *file)
{
    if (is_hit(FAULTY_LOCK)) {
        return PORT_FAILED;
    }
    enum port_result result = the->real.lock_file(context, path, file);
    if (result == PORT_OK) {
        struct open_file *opened = find_open(PORT_NONE);
        opened->file = *file;
        (void)snprintf(opened->path, sizeof opened->path, "%s", path);
    }
    return result;
}

static void close_file(void *context, port_file file)
{
    for (size_t i = 0; i < FILES_MAX; i++) {
        if (files[i].file == file) {
            files[i].file = PORT_NONE;
        }
    }
    the->real.close_file(context, file);
}

static bool submit_job(void *context, struct port_job *job)
{
    (void)context;
    if (the->job_count + the->finished_count == PORT_JOBS_MAX) {
        return false;
    }
    the->jobs[the->job_count++] = job;
    return true;
}

void faulty_work(struct faulty_files *faulty)
{
    for (size_t i = 0; i < faulty->job_count; i++) {
        faulty->jobs[i]->run(faulty->jobs[i]);
        faulty->finished[faulty->finished_count++] = faulty->jobs[i];
    }
    faulty->job_count = 0;
}

static struct port_job *finished_job(void *context)
{
    (void)context;
    if (the->finished_count == 0) {
        return NULL;
    }
    struct port_job *job = the->finished[0];
    the->finished_count--;
    for (size_t i = 0; i < the->finished_count; i++) {
        the->finished[i] = the->finished[i + 1];
    }
    return job;
}

void faulty_files_open(struct faulty_files *faulty, const struct port *real, uint64_t seed)
{
    *faulty = (struct faulty_files){.port = *real, .real = *real, .random = seed * 2654435761U + 88172645463325252U};
    the = faulty;
    for (size_t i = 0; i < FILES_MAX; i++) {
        files[i].file = PORT_NONE;
    }
    struct port *port = &faulty->port;
    port->error_text = error_text;
    port->open_file = open_file;
    port->preallocate = preallocate;
    port->read_at = read_at;
    port->write_at = write_at;
    port->sync_file = sync_file;
    port->sync_directory = sync_directory;
    port->remove_file = remove_file;
    port->list_directory = list_directory;
    port->lock_file = lock_file;
    port->close_file = close_file;
    port->submit_job = submit_job;
    port->finished_job = finished_job;
}

void faulty_files_close(struct faulty_files *faulty)
{
    faulty_cut_power(faulty, FAULTY_CUT_KEEPS);
    forget(NULL);
    settle_created(FAULTY_CUT_KEEPS);
}
