/* SPDX-License-Identifier: MIT */
/* A handle of storage is the file's number; two beyond these are the lock's and the log's. */
#include "fuzz_port.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

enum { FILE_LOCK = FUZZ_FILES, FILE_LOG };

struct fuzz_file fuzz_files[FUZZ_FILES];
struct fuzz_port_counts fuzz_port_counts;
uint64_t fuzz_port_seed = 1;

static struct port_job *finished[PORT_JOBS_MAX];
static size_t finished_count;

/* ---- clock, random, log ---- */

static uint64_t now_ns(void *context)
{
    (void)context;
    return 1000000000;
}

static int64_t wall_ms(void *context)
{
    (void)context;
    return 1795449192839;
}

static void random_bytes(void *context, void *buffer, size_t bytes)
{
    (void)context;
    for (size_t i = 0; i < bytes; i++) {
        fuzz_port_seed ^= fuzz_port_seed << 13;
        fuzz_port_seed ^= fuzz_port_seed >> 7;
        fuzz_port_seed ^= fuzz_port_seed << 17;
        ((uint8_t *)buffer)[i] = (uint8_t)fuzz_port_seed;
    }
}

static const char *error_text(void *context)
{
    (void)context;
    return "Input/output error";
}

static enum port_result make_directory(void *context, const char *path)
{
    (void)context;
    (void)path;
    return PORT_OK;
}

static enum port_result open_append(void *context, const char *path, port_file *file, uint64_t *size_bytes)
{
    (void)context;
    (void)path;
    *file = FILE_LOG;
    *size_bytes = 0;
    fuzz_port_counts.open_count++;
    return PORT_OK;
}

/* Whatever strangers say, a log is lines of text. With FUZZ_LOG in the environment they are shown. */
static enum port_result append(void *context, port_file file, const void *data, size_t bytes, size_t *written_bytes)
{
    (void)context;
    struct span text = span_of(data, bytes);
    CHECK(file == FILE_LOG && bytes > 0 && text.data[bytes - 1] == '\n');
    for (size_t i = 0; i < bytes; i++) {
        CHECK(text.data[i] == '\n' || (text.data[i] >= ' ' && text.data[i] != 0x7F));
    }
    CHECK(fuzz_utf8(text) == FUZZ_UTF8_WHOLE);
    if (getenv("FUZZ_LOG") != NULL) {
        (void)fwrite(data, 1, bytes, stderr);
    }
    *written_bytes = bytes;
    return PORT_OK;
}

/* ---- storage ---- */

/* The number in a segment's name; FUZZ_FILES for any other name. */
static size_t file_of(const char *path)
{
    const char *name = strrchr(path, '/');
    name = name == NULL ? path : name + 1;
    size_t number = 0;
    for (size_t i = 0; i < 5; i++) {
        if (name[i] < '0' || name[i] > '9') {
            return FUZZ_FILES;
        }
        number = number * 10 + (size_t)(name[i] - '0');
    }
    return number < FUZZ_FILES && strcmp(name + 5, ".segment") == 0 ? number : FUZZ_FILES;
}

static struct fuzz_file *opened(port_file file)
{
    CHECK(file >= 0 && file < FUZZ_FILES);
    return &fuzz_files[file];
}

static enum port_result open_file(void *context, const char *path, bool create, port_file *file, uint64_t *size_bytes)
{
    (void)context;
    size_t number = file_of(path);
    if (number == FUZZ_FILES) {
        return create ? PORT_FAILED : PORT_CLOSED;
    }
    if (!fuzz_files[number].is_there) {
        if (!create) {
            return PORT_CLOSED;
        }
        fuzz_files[number].is_there = true;
        fuzz_files[number].bytes = 0;
    }
    *file = (port_file)number;
    *size_bytes = fuzz_files[number].bytes;
    fuzz_port_counts.open_count++;
    return PORT_OK;
}

static void close_file(void *context, port_file file)
{
    (void)context;
    CHECK(file >= 0 && file <= FILE_LOG && fuzz_port_counts.open_count > 0);
    fuzz_port_counts.open_count--;
}

static enum port_result preallocate(void *context, port_file file, uint64_t size_bytes)
{
    (void)context;
    struct fuzz_file *to = opened(file);
    if (size_bytes > sizeof to->data) {
        return PORT_FAILED;
    }
    if (to->bytes < size_bytes) {
        memset(to->data + to->bytes, 0, (size_t)size_bytes - to->bytes);
        to->bytes = (size_t)size_bytes;
    }
    return PORT_OK;
}

static enum port_result read_at(void *context, port_file file, uint64_t offset, void *buffer, size_t bytes)
{
    (void)context;
    const struct fuzz_file *from = opened(file);
    if (offset > from->bytes || bytes > from->bytes - offset) {
        return PORT_CLOSED;
    }
    memcpy(buffer, from->data + offset, bytes);
    return PORT_OK;
}

static enum port_result write_at(void *context, port_file file, uint64_t offset, const void *data, size_t bytes)
{
    (void)context;
    struct fuzz_file *to = opened(file);
    CHECK(offset <= to->bytes && bytes <= to->bytes - offset); /* no file grows while it is written */
    memcpy(to->data + offset, data, bytes);
    fuzz_port_counts.write_count++;
    return PORT_OK;
}

static enum port_result sync_file(void *context, port_file file)
{
    (void)context;
    (void)opened(file);
    return PORT_OK;
}

static enum port_result remove_file(void *context, const char *path)
{
    (void)context;
    size_t number = file_of(path);
    if (number == FUZZ_FILES || !fuzz_files[number].is_there) {
        return PORT_FAILED;
    }
    memset(&fuzz_files[number], 0, sizeof fuzz_files[number]);
    return PORT_OK;
}

/* A log that has grown is given another name; nothing else is. */
static enum port_result rename_file(void *context, const char *from, const char *to)
{
    (void)context;
    CHECK(file_of(from) == FUZZ_FILES && file_of(to) == FUZZ_FILES);
    return PORT_OK;
}

static enum port_result list_directory(void *context, const char *path,
                                       void (*on_name)(void *argument, const char *name), void *argument)
{
    (void)context;
    (void)path;
    char name[] = "00000.segment";
    for (size_t i = 0; i < FUZZ_FILES; i++) {
        name[3] = (char)('0' + i / 10);
        name[4] = (char)('0' + i % 10);
        if (fuzz_files[i].is_there) {
            on_name(argument, name);
        }
    }
    return PORT_OK;
}

static enum port_result lock_file(void *context, const char *path, port_file *file)
{
    (void)context;
    (void)path;
    *file = FILE_LOCK;
    fuzz_port_counts.open_count++;
    return PORT_OK;
}

/* ---- jobs ---- */

static bool submit_job(void *context, struct port_job *job)
{
    (void)context;
    if (finished_count == PORT_JOBS_MAX) {
        return false;
    }
    job->run(job);
    finished[finished_count++] = job;
    return true;
}

static struct port_job *finished_job(void *context)
{
    (void)context;
    if (finished_count == 0) {
        return NULL;
    }
    struct port_job *job = finished[0];
    finished_count--;
    for (size_t i = 0; i < finished_count; i++) {
        finished[i] = finished[i + 1];
    }
    return job;
}

struct port fuzz_port(void)
{
    finished_count = 0;
    fuzz_port_counts = (struct fuzz_port_counts){0, 0};
    return (struct port){.now_ns = now_ns,
                         .wall_ms = wall_ms,
                         .random = random_bytes,
                         .error_text = error_text,
                         .make_directory = make_directory,
                         .open_append = open_append,
                         .append = append,
                         .close_file = close_file,
                         .open_file = open_file,
                         .preallocate = preallocate,
                         .read_at = read_at,
                         .write_at = write_at,
                         .sync_file = sync_file,
                         .sync_directory = make_directory,
                         .remove_file = remove_file,
                         .rename = rename_file,
                         .list_directory = list_directory,
                         .lock_file = lock_file,
                         .submit_job = submit_job,
                         .finished_job = finished_job};
}
