/* SPDX-License-Identifier: MIT */
/* What recovery read may not be on the disk: the gateway that wrote it ended before its sync, or the sync failed, and
 * the system still has it in memory. It was never accepted, but what comes after it must not outlive it or a part of
 * it, or messages would be out of order. Only the last batch of each segment is in doubt, because no message is written
 * behind one that was not synced (a mark is, which does no harm where it is lost). So as much as a batch can be, and
 * the header, are written again as they are, and synced. */
#include "log.h"
#include "number.h"
#include "spool_inside.h"

/* As far as the file goes. */
static bool write_again(struct spool *spool, const struct spool_file *opened, uint64_t offset, uint64_t end_offset)
{
    const struct port *port = spool->port;
    uint64_t end = number_smaller(end_offset, opened->bytes);
    while (offset < end) {
        size_t unreadable_bytes;
        size_t bytes = (size_t)number_smaller(end - offset, spool->read.buffer_bytes_max);
        spool_read_piece(port, opened, (uint32_t)offset, spool->read.buffer, bytes, &unreadable_bytes);
        if (unreadable_bytes > 0 ||
            port->write_at(port->context, opened->file, offset, spool->read.buffer, bytes) != PORT_OK) {
            return false;
        }
        offset += bytes;
    }
    return true;
}

static bool secure(struct spool *spool, uint32_t index)
{
    const struct port *port = spool->port;
    char path[SPOOL_PATH_BYTES];
    struct spool_file opened;
    size_t end_offset = spool->segments[index].end_offset;
    size_t batch_bytes =
        (size_t)number_larger(SPOOL_BATCH_BYTES, spool->stage.record_bytes_max) + SPOOL_RECORD_HEADER_BYTES;
    size_t offset = end_offset > batch_bytes ? end_offset - batch_bytes : 0;
    spool_segment_path(spool, index, path);
    bool is_open = port->open_file(port->context, path, false, &opened.file, &opened.bytes) == PORT_OK;
    bool is_secure =
        is_open &&
        write_again(spool, &opened, 0, offset < SPOOL_SEGMENT_HEADER_BYTES ? offset : SPOOL_SEGMENT_HEADER_BYTES) &&
        write_again(spool, &opened, offset, end_offset) && port->sync_file(port->context, opened.file) == PORT_OK;
    if (!is_secure) {
        log_event(spool->log, LOG_WARN, "spool_unsynced", LOG_TEXT("path", path),
                  LOG_TEXT("reason", port->error_text(port->context)));
    }
    if (is_open) {
        port->close_file(port->context, opened.file);
    }
    return is_secure;
}

void spool_secure_segments(struct spool *spool)
{
    for (uint32_t index = 0; index < spool->segment_end; index++) {
        const struct spool_segment *segment = &spool->segments[index];
        enum spool_segment_state state = segment->state;
        /* A write that failed before the restart began it. Its header says which of its records count no more. */
        bool is_superseded =
            state == SPOOL_SEGMENT_FREE && segment->number > 0 && segment->first_sequence > spool->released_sequence;
        if (is_superseded) {
            (void)secure(spool, index);
        }
        if ((state == SPOOL_SEGMENT_KEPT || state == SPOOL_SEGMENT_WRITTEN) && !secure(spool, index) &&
            state == SPOOL_SEGMENT_WRITTEN) {
            spool_set_state(spool, index, SPOOL_SEGMENT_KEPT);
            spool->written_index = SPOOL_NO_SEGMENT;
        }
    }
}
