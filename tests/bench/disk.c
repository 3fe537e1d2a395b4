/* SPDX-License-Identifier: MIT */
/* The disk's own limit for the spool: batches of equal records are written behind one another into files that were
 * preallocated, with one write and one fdatasync each, as the gateway does it, and nothing else is done. A file that is
 * full is closed and the next one begun at its start, so that a long run goes round over blocks that were written
 * before. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"
#include "histogram.h"

enum { SEGMENT_BYTES = 2 * 1024 * 1024, PATH_BYTES_MAX = 4096 };

struct disk {
    const char *folder;
    size_t batch_bytes;
    unsigned segment_count;
    unsigned segment; /* that is written */
    off_t offset;
    int file;
    uint8_t *batch;
};

static int open_segment(const struct disk *disk, unsigned segment)
{
    char path[PATH_BYTES_MAX];
    if (snprintf(path, sizeof path, "%s/%05u.bench", disk->folder, segment) >= (int)sizeof path) {
        bench_die("the folder's name is too long");
    }
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0) {
        bench_die("%s: %s", path, strerror(errno));
    }
    return file;
}

static void make_segments(const struct disk *disk)
{
    if (mkdir(disk->folder, 0700) != 0 && errno != EEXIST) {
        bench_die("%s: %s", disk->folder, strerror(errno));
    }
    for (unsigned segment = 0; segment < disk->segment_count; segment++) {
        int file = open_segment(disk, segment);
        int error = posix_fallocate(file, 0, SEGMENT_BYTES);
        if (error != 0 || fsync(file) != 0) {
            bench_die("%s: %s", disk->folder, strerror(error != 0 ? error : errno));
        }
        (void)close(file);
    }
}

static void write_batch(struct disk *disk)
{
    if (disk->offset + (off_t)disk->batch_bytes > SEGMENT_BYTES) {
        (void)close(disk->file);
        disk->segment = (disk->segment + 1) % disk->segment_count;
        disk->file = open_segment(disk, disk->segment);
        disk->offset = 0;
    }
    if (pwrite(disk->file, disk->batch, disk->batch_bytes, disk->offset) != (ssize_t)disk->batch_bytes ||
        fdatasync(disk->file) != 0) {
        bench_die("%s: %s", disk->folder, strerror(errno));
    }
    disk->offset += (off_t)disk->batch_bytes;
}

int main(int argc, char **argv)
{
    static struct disk disk;
    static struct histogram latency;
    double record_bytes = 400;
    double batch = 100;
    double segments = 32;
    double seconds = 3;
    const struct bench_option options[] = {
        {"folder", &disk.folder, NULL},        /* is made; its files are left to the caller */
        {"record-bytes", NULL, &record_bytes}, /* of one record */
        {"batch", NULL, &batch},               /* records in one write */
        {"segments", NULL, &segments},         /* files, of 2 MiB each */
        {"seconds", NULL, &seconds},
    };
    bench_options(argc, argv, options, sizeof options / sizeof options[0]);
    disk.batch_bytes = (size_t)(record_bytes * batch);
    disk.segment_count = (unsigned)segments;
    if (disk.folder == NULL || disk.segment_count == 0 || disk.batch_bytes == 0 || disk.batch_bytes > SEGMENT_BYTES) {
        bench_die("--folder is needed, and a batch of 1 byte to 2 MiB");
    }
    disk.batch = bench_memory(1, disk.batch_bytes);
    memset(disk.batch, 'x', disk.batch_bytes);
    make_segments(&disk);
    disk.file = open_segment(&disk, 0);

    uint64_t begin_ns = bench_now_ns();
    uint64_t end_ns = begin_ns + (uint64_t)(seconds * BENCH_SECOND_NS);
    uint64_t now_ns = begin_ns;
    uint64_t count = 0;
    while (now_ns < end_ns) {
        write_batch(&disk);
        uint64_t done_ns = bench_now_ns();
        histogram_add(&latency, done_ns - now_ns);
        now_ns = done_ns;
        count++;
    }
    (void)printf("{\"seconds\":%.6f,\"writes\":%llu,\"records_rate\":%.1f,\"bytes_rate\":%.1f,\"latency_us\":",
                 (double)(now_ns - begin_ns) / BENCH_SECOND_NS, (unsigned long long)count,
                 (double)count * batch / ((double)(now_ns - begin_ns) / BENCH_SECOND_NS),
                 (double)count * (double)disk.batch_bytes / ((double)(now_ns - begin_ns) / BENCH_SECOND_NS));
    histogram_print(&latency, stdout);
    (void)puts("}");
    return 0;
}
