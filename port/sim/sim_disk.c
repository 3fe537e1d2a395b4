/* SPDX-License-Identifier: MIT */
/* The disk under the files: pages in a cache, and what of them has reached the disk.
 *
 * A write changes the cache and marks its sectors dirty. A good sync brings the dirty sectors of its file to the disk.
 * A failed one brings some, throws others away, as the cache of a system may: they are clean then and look written, but
 * the disk has not got them, and a later sync that is good does not bring them. A power cut leaves of each dirty sector
 * the old bytes, the new ones, or the new ones up to somewhere. */
#include <string.h>

#include "sim_inside.h"

void sim_disk_begin(struct sim *sim)
{
    sim->disk.file_count = 0;
    sim->disk.page_count = 0;
}

struct sim_file *sim_file_find(struct sim *sim, const char *path)
{
    for (uint32_t i = 0; i < sim->disk.file_count; i++) {
        if (sim->disk.files[i].is_there && strcmp(sim->disk.files[i].path, path) == 0) {
            return &sim->disk.files[i];
        }
    }
    return NULL;
}

static void empty(struct sim_file *file)
{
    file->bytes = 0;
    file->synced_bytes = 0;
    for (size_t i = 0; i < SIM_FILE_PAGES_MAX; i++) {
        file->pages[i] = SIM_NO_PAGE;
    }
}

struct sim_file *sim_file_make(struct sim *sim, const char *path)
{
    struct sim_disk *disk = &sim->disk;
    CHECK(strlen(path) < SIM_PATH_BYTES);
    for (uint32_t i = 0; i < disk->file_count; i++) {
        if (strcmp(disk->files[i].path, path) == 0) { /* it was removed */
            disk->files[i].is_there = true;
            empty(&disk->files[i]);
            return &disk->files[i];
        }
    }
    CHECK(disk->file_count < SIM_FILES_MAX);
    struct sim_file *file = &disk->files[disk->file_count++];
    memset(file, 0, sizeof *file);
    memcpy(file->path, path, strlen(path));
    empty(file);
    file->is_there = true;
    return file;
}

static struct sim_page *page_of(struct sim *sim, struct sim_file *file, uint64_t offset)
{
    struct sim_disk *disk = &sim->disk;
    uint64_t number = offset / SIM_PAGE_BYTES;
    CHECK(number < SIM_FILE_PAGES_MAX);
    if (file->pages[number] == SIM_NO_PAGE) {
        CHECK(disk->page_count < SIM_PAGES_MAX);
        file->pages[number] = (uint16_t)disk->page_count;
        memset(&disk->pages[disk->page_count++], 0, sizeof disk->pages[0]);
    }
    return &disk->pages[file->pages[number]];
}

void sim_file_write(struct sim *sim, struct sim_file *file, uint64_t offset, const uint8_t *data, size_t bytes)
{
    while (bytes > 0) {
        struct sim_page *page = page_of(sim, file, offset);
        size_t at = (size_t)(offset % SIM_PAGE_BYTES);
        size_t piece = bytes < SIM_PAGE_BYTES - at ? bytes : SIM_PAGE_BYTES - at;
        memcpy(page->cache + at, data, piece);
        for (size_t sector = at / SIM_SECTOR_BYTES; sector <= (at + piece - 1) / SIM_SECTOR_BYTES; sector++) {
            page->dirty |= (uint8_t)(1U << sector);
        }
        data += piece;
        offset += piece;
        bytes -= piece;
    }
    file->bytes = offset > file->bytes ? offset : file->bytes;
}

void sim_file_read(struct sim *sim, const struct sim_file *file, uint64_t offset, uint8_t *buffer, size_t bytes)
{
    while (bytes > 0) {
        size_t at = (size_t)(offset % SIM_PAGE_BYTES);
        size_t piece = bytes < SIM_PAGE_BYTES - at ? bytes : SIM_PAGE_BYTES - at;
        uint16_t page = file->pages[offset / SIM_PAGE_BYTES];
        if (page == SIM_NO_PAGE) {
            memset(buffer, 0, piece);
        } else {
            memcpy(buffer, sim->disk.pages[page].cache + at, piece);
        }
        buffer += piece;
        offset += piece;
        bytes -= piece;
    }
}

static void for_sectors(struct sim *sim, struct sim_file *file,
                        void (*settle)(struct sim *sim, struct sim_page *page, size_t sector))
{
    for (size_t i = 0; i < SIM_FILE_PAGES_MAX; i++) {
        struct sim_page *page = file->pages[i] == SIM_NO_PAGE ? NULL : &sim->disk.pages[file->pages[i]];
        for (size_t sector = 0; page != NULL && (page->dirty | page->stale) != 0 && sector < SIM_PAGE_SECTORS;
             sector++) {
            if (((page->dirty | page->stale) >> sector & 1) != 0) {
                settle(sim, page, sector);
            }
        }
    }
}

static void copy_sector(uint8_t *to, const uint8_t *from, size_t sector)
{
    memcpy(to + sector * SIM_SECTOR_BYTES, from + sector * SIM_SECTOR_BYTES, SIM_SECTOR_BYTES);
}

static void bring(struct sim *sim, struct sim_page *page, size_t sector)
{
    (void)sim;
    if ((page->dirty >> sector & 1) != 0) {
        copy_sector(page->disk, page->cache, sector);
        page->dirty &= (uint8_t) ~(1U << sector);
        page->stale &= (uint8_t) ~(1U << sector);
    }
}

void sim_file_sync(struct sim *sim, struct sim_file *file)
{
    for_sectors(sim, file, bring);
    file->synced_bytes = file->bytes;
}

static void throw_away(struct sim *sim, struct sim_page *page, size_t sector)
{
    switch (sim_between(sim, 0, 2)) {
    case 0:
        bring(sim, page, sector);
        break;
    case 1:
        page->dirty &= (uint8_t) ~(1U << sector);
        page->stale |= (uint8_t)(1U << sector);
        break;
    default:
        break;
    }
}

void sim_file_lose(struct sim *sim, struct sim_file *file)
{
    for_sectors(sim, file, throw_away);
}

/* The system may drop what is clean at any time; then it reads what the disk has. */
static void evict(struct sim *sim, struct sim_page *page, size_t sector)
{
    (void)sim;
    if ((page->stale >> sector & 1) != 0 && (page->dirty >> sector & 1) == 0) {
        copy_sector(page->cache, page->disk, sector);
        page->stale &= (uint8_t) ~(1U << sector);
    }
}

static void cut(struct sim *sim, struct sim_page *page, size_t sector)
{
    size_t kept = 0;
    if ((page->dirty >> sector & 1) != 0) {
        switch (sim_between(sim, 0, 4)) {
        case 0:
        case 1:
            kept = SIM_SECTOR_BYTES;
            break;
        case 2:
            kept = (size_t)sim_between(sim, 0, SIM_SECTOR_BYTES);
            break;
        default:
            break;
        }
    }
    memcpy(page->disk + sector * SIM_SECTOR_BYTES, page->cache + sector * SIM_SECTOR_BYTES, kept);
    copy_sector(page->cache, page->disk, sector);
    page->dirty &= (uint8_t) ~(1U << sector);
    page->stale &= (uint8_t) ~(1U << sector);
}

/* What lies behind the end of a file is zero when it grows again. */
static void clear_behind_end(struct sim *sim, struct sim_file *file)
{
    for (size_t i = 0; i < SIM_FILE_PAGES_MAX; i++) {
        uint64_t start = (uint64_t)i * SIM_PAGE_BYTES;
        if (file->pages[i] != SIM_NO_PAGE && start + SIM_PAGE_BYTES > file->bytes) {
            size_t kept = file->bytes > start ? (size_t)(file->bytes - start) : 0;
            memset(sim->disk.pages[file->pages[i]].cache + kept, 0, SIM_PAGE_BYTES - kept);
            memset(sim->disk.pages[file->pages[i]].disk + kept, 0, SIM_PAGE_BYTES - kept);
        }
    }
}

static void cut_name(struct sim *sim, struct sim_file *file)
{
    if (!file->is_name_synced && sim_chance(sim, SIM_ALWAYS / 2)) {
        file->is_there = !file->is_there;
        if (!file->is_there) {
            empty(file);
        }
    }
    file->is_name_synced = true;
    if (file->bytes != file->synced_bytes) {
        file->bytes = sim_chance(sim, SIM_ALWAYS / 2)
                          ? file->synced_bytes
                          : sim_between(sim, file->bytes < file->synced_bytes ? file->bytes : file->synced_bytes,
                                        file->bytes > file->synced_bytes ? file->bytes : file->synced_bytes);
        file->synced_bytes = file->bytes;
        clear_behind_end(sim, file);
    }
}

void sim_disk_end(struct sim *sim, enum sim_death death)
{
    struct sim_disk *disk = &sim->disk;
    for (uint32_t i = 0; i < disk->file_count; i++) {
        struct sim_file *file = &disk->files[i];
        file->is_locked = false;
        if (death == SIM_POWER_CUT) {
            for_sectors(sim, file, cut);
            cut_name(sim, file);
        } else if (sim_chance(sim, SIM_ALWAYS / 2)) {
            for_sectors(sim, file, evict);
        }
    }
}

uint64_t sim_folder_bytes(const struct sim *sim, const char *folder)
{
    uint64_t bytes = 0;
    size_t length = strlen(folder);
    for (uint32_t i = 0; i < sim->disk.file_count; i++) {
        const struct sim_file *file = &sim->disk.files[i];
        bool is_in = strncmp(file->path, folder, length) == 0 && file->path[length] == '/';
        bytes += is_in && file->is_there ? file->bytes : 0;
    }
    return bytes;
}
