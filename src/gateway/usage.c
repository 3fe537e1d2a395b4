/* SPDX-License-Identifier: MIT */
/* Reads the counters that each part keeps for itself. */
#include "usage.h"

#include "gateway.h"
#include "spool.h"

void usage_log(struct gateway *gateway)
{
    struct port_heap heap;
    gateway->port->heap(gateway->port->context, &heap);
    const struct pool *buffers = &gateway->server.buffers;
    const struct pool *chunks = &gateway->server.chunks;
    const struct outbox_counters *outbox = outbox_counters(gateway->outbox);
    const struct spool_counters none = {0};
    const struct spool_counters *has = outbox_spool_counters(gateway->outbox);
    const struct spool_counters *spool = has == NULL ? &none : has;
    log_event(
        &gateway->log, LOG_INFO, "memory_used", LOG_U64("malloc_bytes", heap.capacity_bytes),
        LOG_U64("malloc_used", heap.used_bytes), LOG_U64("malloc_peak", heap.peak_bytes),
        LOG_U64("malloc_refused", heap.refused_count), LOG_U64("buffers", buffers->block_count),
        LOG_U64("buffers_used", buffers->used_count), LOG_U64("buffers_peak", buffers->peak_count),
        LOG_U64("buffers_refused", buffers->refused_count), LOG_U64("chunks", chunks->block_count),
        LOG_U64("chunks_used", chunks->used_count), LOG_U64("chunks_peak", chunks->peak_count),
        LOG_U64("chunks_refused", chunks->refused_count), LOG_U64("sessions", gateway->sessions.capacity),
        LOG_U64("sessions_used", gateway->sessions.count), LOG_U64("sessions_peak", gateway->sessions.peak_count),
        LOG_U64("outbox", gateway->settings->outbox_messages), LOG_U64("outbox_used", outbox->depth_count),
        LOG_U64("outbox_peak", outbox->depth_peak_count), LOG_U64("outbox_refused", outbox->refused_count),
        LOG_U64("spool_messages", spool->message_count), LOG_U64("spool_bytes", spool->used_bytes),
        LOG_U64("spool_writes", spool->write_count), LOG_U64("spool_written_bytes", spool->written_bytes),
        LOG_U64("spool_write_failures", spool->write_failure_count), LOG_U64("spool_segments", spool->segment_count),
        LOG_U64("spool_segments_free", spool->segment_free_count), LOG_U64("spool_stage_used", spool->stage_used_bytes),
        LOG_U64("spool_stage_peak", spool->stage_peak_bytes));
}
