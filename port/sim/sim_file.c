/* SPDX-License-Identifier: MIT */
/* The port's files over the disk. A handle names a file by its place in the table, and several may name the same one.
 * There is one folder that matters, the spool's; log files are not kept, what is appended to them is told. */
#include <string.h>

#include "sim_inside.h"

/* Of what a start opens and reads less fails than of large reads, so that not every start is refused; but then in a
 * row. */
enum { START_FAILS_LESS = 8, START_FAILS_MAX = 32 };

static const char IO_ERROR[] = "Input/output error";
static const char NO_SPACE[] = "No space left on device";

static void enter_storage(struct sim *sim)
{
    sim_enter(sim);
    if (!sim->is_blocking_allowed && !sim->is_on_worker) {
        sim_misuse(sim, "storage is touched by the loop while it turns");
    }
}

static struct sim_file *file_of(struct sim *sim, port_file file)
{
    uint32_t index = (uint32_t)file - SIM_HANDLE_FILES;
    if (index >= sim->disk.file_count) {
        sim_misuse(sim, "a file is used that is not open");
    }
    return &sim->disk.files[index];
}

static port_file handle_of(const struct sim *sim, const struct sim_file *file)
{
    return (port_file)(SIM_HANDLE_FILES + (file - sim->disk.files));
}

/* ---- storage ---- */

/* While the program starts, and may block, any file and any page may be out of reach, and what comes behind it. */
static bool fails_at_start(struct sim *sim)
{
    if (!sim->is_blocking_allowed) {
        return false;
    }
    if (sim->unreadable_count == 0 && sim_chance(sim, sim->weather.read_fails_ppm / START_FAILS_LESS)) {
        sim->unreadable_count = sim_magnitude(sim, 1, START_FAILS_MAX);
    }
    if (sim->unreadable_count == 0) {
        return false;
    }
    sim->unreadable_count--;
    return true;
}

static enum port_result open_file(void *context, const char *path, bool create, port_file *file, uint64_t *size_bytes)
{
    struct sim *sim = context;
    enter_storage(sim);
    struct sim_file *found = sim_file_find(sim, path);
    if (found == NULL && !create) {
        return PORT_CLOSED;
    }
    if (found != NULL && fails_at_start(sim)) {
        return sim_fail(sim, IO_ERROR);
    }
    if (found == NULL) {
        if (sim_chance(sim, sim->weather.folder_fails_ppm)) {
            return sim_fail(sim, NO_SPACE);
        }
        found = sim_file_make(sim, path);
        found->is_name_synced = false;
    }
    *file = handle_of(sim, found);
    *size_bytes = found->bytes;
    return PORT_OK;
}

static enum port_result preallocate(void *context, port_file file, uint64_t size_bytes)
{
    struct sim *sim = context;
    enter_storage(sim);
    struct sim_file *found = file_of(sim, file);
    CHECK(size_bytes <= (uint64_t)SIM_FILE_PAGES_MAX * SIM_PAGE_BYTES);
    if (found->bytes < size_bytes) {
        if (sim_chance(sim, sim->weather.folder_fails_ppm)) {
            return sim_fail(sim, NO_SPACE);
        }
        found->bytes = size_bytes;
    }
    return PORT_OK;
}

static enum port_result read_at(void *context, port_file file, uint64_t offset, void *buffer, size_t bytes)
{
    struct sim *sim = context;
    enter_storage(sim);
    const struct sim_file *found = file_of(sim, file);
    if ((bytes > SIM_PAGE_BYTES && sim_chance(sim, sim->weather.read_fails_ppm)) || fails_at_start(sim)) {
        return sim_fail(sim, IO_ERROR);
    }
    if (offset + bytes > found->bytes) {
        return PORT_CLOSED;
    }
    sim_file_read(sim, found, offset, buffer, bytes);
    return PORT_OK;
}

static enum port_result write_at(void *context, port_file file, uint64_t offset, const void *data, size_t bytes)
{
    struct sim *sim = context;
    enter_storage(sim);
    struct sim_file *found = file_of(sim, file);
    if (sim_chance(sim, sim->weather.write_fails_ppm)) {
        sim_file_write(sim, found, offset, data, (size_t)sim_between(sim, 0, bytes));
        sim_note(sim, "disk: a write fails", offset, bytes);
        return sim_fail(sim, sim_chance(sim, SIM_ALWAYS / 2) ? IO_ERROR : NO_SPACE);
    }
    sim_file_write(sim, found, offset, data, bytes);
    return PORT_OK;
}

static enum port_result sync_file(void *context, port_file file)
{
    struct sim *sim = context;
    enter_storage(sim);
    struct sim_file *found = file_of(sim, file);
    if (sim_chance(sim, sim->weather.sync_fails_ppm)) {
        sim_file_lose(sim, found);
        sim_note(sim, "disk: a sync fails", 0, 0);
        return sim_fail(sim, IO_ERROR);
    }
    sim_file_sync(sim, found);
    return PORT_OK;
}

static bool is_of(const char *path, const char *folder)
{
    size_t length = strlen(folder);
    return strncmp(path, folder, length) == 0 && path[length] == '/';
}

static enum port_result sync_directory(void *context, const char *path)
{
    struct sim *sim = context;
    enter_storage(sim);
    if (sim_chance(sim, sim->weather.folder_fails_ppm)) {
        return sim_fail(sim, IO_ERROR);
    }
    for (uint32_t i = 0; i < sim->disk.file_count; i++) {
        if (is_of(sim->disk.files[i].path, path)) {
            sim->disk.files[i].is_name_synced = true;
        }
    }
    return PORT_OK;
}

static enum port_result remove_file(void *context, const char *path)
{
    struct sim *sim = context;
    enter_storage(sim);
    struct sim_file *found = sim_file_find(sim, path);
    if (found == NULL) {
        return sim_fail(sim, "No such file or directory");
    }
    found->is_there = false;
    found->is_name_synced = false;
    return PORT_OK;
}

static enum port_result list_directory(void *context, const char *path,
                                       void (*on_name)(void *argument, const char *name), void *argument)
{
    struct sim *sim = context;
    enter_storage(sim);
    if (sim_chance(sim, sim->weather.folder_fails_ppm)) {
        return sim_fail(sim, IO_ERROR);
    }
    uint32_t first = sim->disk.file_count > 0 ? (uint32_t)sim_between(sim, 0, sim->disk.file_count - 1) : 0;
    for (uint32_t i = 0; i < sim->disk.file_count; i++) {
        const struct sim_file *file = &sim->disk.files[(first + i) % sim->disk.file_count];
        if (file->is_there && is_of(file->path, path)) {
            on_name(argument, file->path + strlen(path) + 1);
        }
    }
    return PORT_OK;
}

static enum port_result make_directory(void *context, const char *path)
{
    struct sim *sim = context;
    sim_enter(sim);
    if (strcmp(path, "logs") == 0) {
        return PORT_OK;
    }
    enter_storage(sim);
    if (sim_chance(sim, sim->weather.folder_fails_ppm)) {
        return sim_fail(sim, NO_SPACE);
    }
    return PORT_OK;
}

static enum port_result lock_file(void *context, const char *path, port_file *file)
{
    struct sim *sim = context;
    enter_storage(sim);
    if (sim_chance(sim, sim->weather.folder_fails_ppm)) {
        return sim_fail(sim, IO_ERROR);
    }
    struct sim_file *found = sim_file_find(sim, path);
    if (found == NULL) {
        found = sim_file_make(sim, path);
        found->is_name_synced = false;
    }
    if (found->is_locked) {
        return PORT_AGAIN;
    }
    found->is_locked = true;
    *file = handle_of(sim, found);
    return PORT_OK;
}

static void close_file(void *context, port_file file)
{
    struct sim *sim = context;
    sim_enter(sim);
    if (file != SIM_HANDLE_LOG) {
        struct sim_file *found = file_of(sim, file);
        found->is_locked = false;
    }
}

/* ---- logs, and what else there is ---- */

static enum port_result open_append(void *context, const char *path, port_file *file, uint64_t *size_bytes)
{
    struct sim *sim = context;
    (void)path;
    sim_enter(sim);
    *file = SIM_HANDLE_LOG;
    *size_bytes = 0;
    return PORT_OK;
}

static enum port_result append(void *context, port_file file, const void *data, size_t bytes, size_t *written_bytes)
{
    struct sim *sim = context;
    sim_enter(sim);
    CHECK(file == SIM_HANDLE_LOG);
    sim->handler->on_log(sim->context, data, bytes);
    *written_bytes = bytes;
    return PORT_OK;
}

static enum port_result read_file(void *context, const char *path, void *buffer, size_t capacity_bytes,
                                  size_t *read_bytes)
{
    (void)context;
    (void)path;
    (void)buffer;
    (void)capacity_bytes;
    *read_bytes = 0;
    return PORT_CLOSED;
}

static enum port_result rename_file(void *context, const char *from, const char *to)
{
    struct sim *sim = context;
    (void)from;
    (void)to;
    sim_enter(sim);
    return PORT_OK;
}

void sim_file_functions(struct port *port)
{
    port->open_append = open_append;
    port->append = append;
    port->read_file = read_file;
    port->rename = rename_file;
    port->make_directory = make_directory;
    port->close_file = close_file;
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
