/* SPDX-License-Identifier: MIT */
/* A value below 64 is its own bucket. Above, the bucket is the position of the highest bit together with the six
 * bits that follow it, so that every power of two is cut into 64 equal parts. */
#include "histogram.h"

#include <string.h>

enum { FINE_COUNT = 1 << HISTOGRAM_FINE_BITS };

void histogram_reset(struct histogram *histogram)
{
    memset(histogram, 0, sizeof *histogram);
}

static size_t bucket_of(uint64_t value)
{
    if (value < FINE_COUNT) {
        return (size_t)value;
    }
    unsigned shift = 63U - (unsigned)__builtin_clzll(value) - HISTOGRAM_FINE_BITS;
    return ((size_t)(shift + 1) << HISTOGRAM_FINE_BITS) + (size_t)((value >> shift) - FINE_COUNT);
}

static uint64_t bucket_end(size_t bucket)
{
    if (bucket < FINE_COUNT) {
        return bucket;
    }
    unsigned shift = (unsigned)(bucket >> HISTOGRAM_FINE_BITS) - 1;
    uint64_t fine = (bucket & (FINE_COUNT - 1)) + FINE_COUNT;
    return ((fine + 1) << shift) - 1;
}

void histogram_add(struct histogram *histogram, uint64_t value_ns)
{
    histogram->counts[bucket_of(value_ns)]++;
    histogram->total_count++;
    if (value_ns > histogram->max_ns) {
        histogram->max_ns = value_ns;
    }
}

uint64_t histogram_quantile_ns(const struct histogram *histogram, double fraction)
{
    uint64_t wanted = (uint64_t)((double)histogram->total_count * fraction + 0.999999);
    uint64_t seen = 0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->counts[i];
        if (seen >= wanted && seen > 0) {
            uint64_t end = bucket_end(i);
            return end < histogram->max_ns ? end : histogram->max_ns;
        }
    }
    return 0;
}

void histogram_print(const struct histogram *histogram, FILE *out)
{
    static const struct {
        const char *name;
        double fraction;
    } points[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1.0}};

    (void)fprintf(out, "{\"count\":%llu", (unsigned long long)histogram->total_count);
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        double value_us = (double)histogram_quantile_ns(histogram, points[i].fraction) / 1000.0;
        (void)fprintf(out, ",\"%s\":%.1f", points[i].name, value_us);
    }
    (void)fputc('}', out);
}
