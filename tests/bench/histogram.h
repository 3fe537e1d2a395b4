/* SPDX-License-Identifier: MIT */
/* Counts of latencies in buckets of constant relative width (1.6 %), from 1 ns to centuries, like an HDR histogram.
 *
 * Invariant: total_count is the sum of all counts. Memory: 15 KiB, the owner's. Thread: its owner's. */
#ifndef POSTERN_BENCH_HISTOGRAM_H
#define POSTERN_BENCH_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

enum { HISTOGRAM_FINE_BITS = 6, HISTOGRAM_BUCKETS = (64 - HISTOGRAM_FINE_BITS + 1) << HISTOGRAM_FINE_BITS };

struct histogram {
    uint64_t total_count;
    uint64_t max_ns;
    uint32_t counts[HISTOGRAM_BUCKETS];
};

void histogram_reset(struct histogram *histogram);
void histogram_add(struct histogram *histogram, uint64_t value_ns);

/* The value in ns that `fraction` (0 to 1) of all values do not exceed, to the bucket's upper edge; 0 when empty. */
uint64_t histogram_quantile_ns(const struct histogram *histogram, double fraction);

/* Writes {"count":…,"p50":…,"p90":…,"p99":…,"p999":…,"max":…} in microseconds. */
void histogram_print(const struct histogram *histogram, FILE *out);

#endif
