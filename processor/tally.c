/* SPDX-License-Identifier: MIT */
/* Bounds of the histograms: rows up to the largest batch there can be; an insert from a millisecond on; lag up to an
 * hour, because a gateway's spool may hold messages for that long. */
#include "tally.h"

#include "check.h"
#include "metrics_program.h"
#include "span.h"

#define HISTOGRAM(bounds_of, unit_digits)                                                                              \
    ((struct metrics_histogram){                                                                                       \
        .bounds = (bounds_of), .bound_count = sizeof(bounds_of) / sizeof(bounds_of)[0], .digits = (unit_digits)})

void tally_init(struct tally *tally)
{
    static const uint64_t rows[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000};
    static const uint64_t insert_ns[] = {1000000,   2500000,   5000000,    10000000,   25000000,   50000000,
                                         100000000, 250000000, 1000000000, 2500000000, 10000000000};
    static const uint64_t lag_ms[] = {10, 25, 50, 100, 250, 500, 1000, 5000, 15000, 60000, 300000, 3600000};
    *tally = (struct tally){.batch_rows = HISTOGRAM(rows, METRICS_WHOLE),
                            .insert_ns = HISTOGRAM(insert_ns, METRICS_NS),
                            .lag_ms = HISTOGRAM(lag_ms, METRICS_MS),
                            .turn_ns = metrics_turns()};
}

const char *tally_reason(size_t index)
{
    static const char *const others[TALLY_OTHER_REASONS] = {"too_large", "number_out_of_range", "violates_constraint",
                                                            "bad_data"};
    CHECK(index < TALLY_REASONS);
    if (index < ENVELOPE_NUL_CONTENT) {
        return envelope_error_code((enum envelope_error)(index + 1)); /* the first one is no error */
    }
    return others[index - ENVELOPE_NUL_CONTENT];
}

void tally_dead(struct tally *tally, const char *code)
{
    size_t index = 0;
    while (!span_is(span_text(code), tally_reason(index))) {
        index++;
    }
    tally->dead[index]++;
}
