/* SPDX-License-Identifier: MIT */
#define _XOPEN_SOURCE 700
#include "spool_rig.h"

#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "little_endian.h"
#include "port_posix.h"
#include "text.h"

enum { MEMORY_BYTES = 4 * 1024 * 1024, TURNS_MAX = 20000, PAYLOAD_MIN = 16 };

static size_t payload_bytes(const struct spool_rig *rig, uint64_t message)
{
    if (rig->payload_bytes > 0) {
        return rig->payload_bytes;
    }
    return PAYLOAD_MIN + (size_t)(message * 37 % 90) + (message % 41 == 0 ? 250 : 0);
}

static uint8_t payload_byte(uint64_t message, size_t at)
{
    return (uint8_t)('a' + (message * 7 + at * 3) % 26);
}

static void fill_payload(const struct spool_rig *rig, uint8_t *payload, uint64_t message)
{
    size_t bytes = payload_bytes(rig, message);
    store_u64(payload, message);
    for (size_t at = 8; at < bytes; at++) {
        payload[at] = payload_byte(message, at);
    }
}

uint64_t spool_rig_message_of(const struct spool_rig *rig, struct span payload)
{
    assert_true(payload.bytes >= PAYLOAD_MIN);
    uint64_t message = load_u64(payload.data);
    assert_true(message < rig->appended_count);
    assert_int_equal(payload.bytes, payload_bytes(rig, message));
    for (size_t at = 8; at < payload.bytes; at++) {
        assert_int_equal(payload.data[at], payload_byte(message, at));
    }
    return message;
}

static void on_found(void *context, struct span payload)
{
    struct spool_rig *rig = context;
    (void)spool_rig_message_of(rig, payload);
    rig->found_count++;
}

static void on_synced(void *context, uint64_t sequence, struct span payload)
{
    struct spool_rig *rig = context;
    uint64_t message = spool_rig_message_of(rig, payload);
    assert_true(sequence > rig->synced_sequence);
    assert_int_equal(rig->sequences[message], sequence);
    assert_false(rig->is_synced[message]);
    rig->is_synced[message] = true;
    rig->synced_sequence = sequence;
    rig->synced_count++;
}

static const struct spool_handler handler = {.on_found = on_found, .on_synced = on_synced};

void spool_rig_open(struct spool_rig *rig, uint32_t segment_bytes, uint32_t segment_count, uint64_t seed)
{
    memset(rig, 0, sizeof *rig);
    const struct port_posix_options options = {.poller = PORT_POSIX_POLL, .watch_max = 1};
    assert_true(port_posix_open(&rig->real, &options));
    faulty_files_open(&rig->faulty, &rig->real, seed);
    (void)snprintf(rig->folder, sizeof rig->folder, "/tmp/postern-spool-XXXXXX");
    assert_non_null(mkdtemp(rig->folder));
    (void)snprintf(rig->directory, sizeof rig->directory, "%s/spool", rig->folder);
    rig->memory = rig->real.memory(rig->real.context, MEMORY_BYTES);
    assert_non_null(rig->memory);
    rig->options = (struct spool_options){.directory = rig->directory,
                                          .bytes_max = (uint64_t)segment_bytes * segment_count,
                                          .segment_bytes = segment_bytes,
                                          .payload_bytes_max = RIG_PAYLOAD_MAX,
                                          .stage_bytes = 4096};
    rig->now_ms = 1000;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *position)
{
    (void)status;
    (void)kind;
    (void)position;
    return remove(path);
}

void spool_rig_close(struct spool_rig *rig)
{
    if (rig->spool != NULL) {
        spool_rig_stop(rig);
    }
    faulty_files_close(&rig->faulty);
    (void)nftw(rig->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    port_posix_close(&rig->real);
}

bool spool_rig_start(struct spool_rig *rig)
{
    char log_path[128];
    struct arena measure;
    memset(rig->memory, 0, rig->arena.used_bytes); /* of the start before */
    arena_begin(&rig->arena, rig->memory, MEMORY_BYTES);
    (void)snprintf(log_path, sizeof log_path, "%s/log", rig->folder);
    const struct log_options log = {
        .path = log_path, .level = LOG_DEBUG, .file_bytes_max = 64 * 1024 * 1024, .file_count = 2};
    log_open(&rig->log, &rig->faulty.port, &rig->arena, &log);
    arena_measure(&measure);
    assert_null(spool_init(&measure, &rig->faulty.port, &rig->log, &rig->options, &handler, rig));
    size_t before = rig->arena.used_bytes;
    rig->spool = spool_init(&rig->arena, &rig->faulty.port, &rig->log, &rig->options, &handler, rig);
    assert_int_equal(rig->arena.used_bytes - before, measure.used_bytes);
    rig->found_count = 0;
    struct text error = text_in(rig->error, sizeof rig->error - 1);
    bool is_open = spool_open(rig->spool, &error);
    rig->error[error.used_bytes] = '\0';
    assert_int_equal(is_open, error.used_bytes == 0);
    rig->synced_sequence = is_open ? spool_own_sequence(rig->spool) - 1 : 0;
    if (!is_open) {
        rig->spool = NULL;
        log_close(&rig->log);
    }
    return is_open;
}

void spool_rig_kill(struct spool_rig *rig)
{
    /* The end of a process: its files are closed, and the lock with them. */
    log_close(&rig->log);
    rig->spool = NULL;
    faulty_cut_power(&rig->faulty, FAULTY_CUT_KEEPS);
}

void spool_rig_cut_power(struct spool_rig *rig, enum faulty_cut cut)
{
    log_close(&rig->log);
    rig->spool = NULL;
    faulty_cut_power(&rig->faulty, cut);
}

void spool_rig_stop(struct spool_rig *rig)
{
    spool_close(rig->spool);
    spool_rig_settle(rig);
    assert_true(spool_is_closed(rig->spool));
    spool_release_files(rig->spool);
    log_close(&rig->log);
    rig->spool = NULL;
}

bool spool_rig_append(struct spool_rig *rig)
{
    uint64_t message = rig->appended_count;
    assert_true(message < RIG_MESSAGES_MAX);
    size_t bytes = payload_bytes(rig, message);
    size_t more_bytes = rig->payload_bytes > 0 ? 0 : message % 5; /* than are used in the end */
    uint8_t *payload = spool_reserve(rig->spool, bytes + more_bytes);
    if (payload == NULL) {
        return false;
    }
    fill_payload(rig, payload, message);
    uint64_t sequence = spool_append(rig->spool, bytes);
    assert_true(sequence < RIG_MESSAGES_MAX);
    rig->sequences[message] = sequence;
    rig->messages_by_sequence[sequence] = message + 1;
    rig->appended_count++;
    return true;
}

void spool_rig_append_many(struct spool_rig *rig, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!spool_rig_append(rig)) {
            spool_rig_settle(rig);
            assert_true(spool_rig_append(rig));
        }
    }
}

void spool_rig_turn(struct spool_rig *rig)
{
    (void)spool_turn(rig->spool, rig->now_ms);
    faulty_work(&rig->faulty);
    const struct port_job *job;
    while ((job = rig->faulty.port.finished_job(rig->faulty.port.context)) != NULL) {
        assert_true(spool_on_job(rig->spool, job, rig->now_ms));
    }
    log_flush(&rig->log);
}

void spool_rig_settle(struct spool_rig *rig)
{
    uint64_t before;
    do {
        before = rig->faulty.counts[FAULTY_WRITE] + rig->faulty.counts[FAULTY_READ] + rig->faulty.counts[FAULTY_OPEN];
        spool_rig_turn(rig);
    } while (before !=
             rig->faulty.counts[FAULTY_WRITE] + rig->faulty.counts[FAULTY_READ] + rig->faulty.counts[FAULTY_OPEN]);
}

bool spool_rig_read(struct spool_rig *rig, uint64_t *message, uint64_t *sequence)
{
    for (size_t turn = 0; turn < TURNS_MAX; turn++) {
        struct span payload;
        switch (spool_peek(rig->spool, sequence, &payload)) {
        case SPOOL_NEXT_MESSAGE:
            *message = spool_rig_message_of(rig, payload);
            assert_int_equal(*sequence, rig->sequences[*message]);
            spool_pass(rig->spool);
            return true;
        case SPOOL_NEXT_NONE:
            return false;
        case SPOOL_NEXT_LATER:
            spool_rig_turn(rig);
            rig->now_ms += 10; /* a read that failed waits */
            break;
        }
    }
    fail_msg("a message that never comes");
    return false;
}

void spool_rig_release(struct spool_rig *rig, uint64_t message)
{
    spool_release(rig->spool, rig->sequences[message]);
    rig->done_count = message + 1 > rig->done_count ? message + 1 : rig->done_count;
}

void spool_rig_drain(struct spool_rig *rig)
{
    uint64_t message;
    uint64_t sequence;
    while (spool_rig_read(rig, &message, &sequence)) {
        spool_rig_release(rig, message);
    }
}

void spool_rig_expect(struct spool_rig *rig, uint64_t first, uint64_t last)
{
    uint64_t message;
    uint64_t sequence;
    for (uint64_t expected = first; expected <= last; expected++) {
        assert_true(spool_rig_read(rig, &message, &sequence));
        assert_int_equal(message, expected);
        spool_rig_release(rig, message);
    }
    assert_false(spool_rig_read(rig, &message, &sequence));
}

void spool_rig_forget_log(struct spool_rig *rig)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/log", rig->folder);
    assert_int_equal(truncate(path, 0), 0);
}

size_t spool_rig_log_count(struct spool_rig *rig, const char *text)
{
    static char buffer[4 * 1024 * 1024];
    char path[128];
    size_t bytes = 0;
    size_t count = 0;
    log_flush(&rig->log);
    (void)snprintf(path, sizeof path, "%s/log", rig->folder);
    assert_int_equal(rig->real.read_file(rig->real.context, path, buffer, sizeof buffer - 1, &bytes), PORT_OK);
    buffer[bytes] = '\0';
    for (const char *at = strstr(buffer, text); at != NULL; at = strstr(at + 1, text)) {
        count++;
    }
    return count;
}

void spool_rig_path(const struct spool_rig *rig, uint32_t index, char path[160])
{
    (void)snprintf(path, 160, "%s/%05u.segment", rig->directory, index);
}

size_t spool_rig_load(const struct spool_rig *rig, uint32_t index, uint8_t *bytes, size_t bytes_max)
{
    char path[160];
    size_t read_bytes = 0;
    spool_rig_path(rig, index, path);
    assert_int_equal(rig->real.read_file(rig->real.context, path, bytes, bytes_max, &read_bytes), PORT_OK);
    return read_bytes;
}

void spool_rig_save(const struct spool_rig *rig, uint32_t index, const uint8_t *bytes, size_t bytes_count)
{
    char path[160];
    spool_rig_path(rig, index, path);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, bytes_count), bytes_count);
    assert_int_equal(ftruncate(fd, (off_t)bytes_count), 0);
    assert_int_equal(close(fd), 0);
}
