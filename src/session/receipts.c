/* SPDX-License-Identifier: MIT */
/* Two nested cuts, at '&' and at the comma in both its spellings; nothing else in a query needs decoding here. */
#include "receipts.h"

#include <stddef.h>

/* Takes the next name off the list. */
static struct span next_name(struct span *list)
{
    for (size_t at = 0; at < list->bytes; at++) {
        const uint8_t *data = list->data + at;
        bool encoded = list->bytes - at >= 3 && data[0] == '%' && data[1] == '2' && (data[2] == 'C' || data[2] == 'c');
        if (data[0] == ',' || encoded) {
            struct span name = span_of(list->data, at);
            size_t after = at + (encoded ? 3 : 1);
            *list = span_of(list->data + after, list->bytes - after);
            return name;
        }
    }
    struct span name = *list;
    *list = span_of(NULL, 0);
    return name;
}

static bool parse_names(struct span list, uint8_t *mask)
{
    if (span_is(list, "none")) {
        *mask = 0;
        return true;
    }
    *mask = 0;
    do {
        struct span name = next_name(&list);
        if (span_is(name, "accepted")) {
            *mask |= RECEIPTS_ACCEPTED;
        } else if (span_is(name, "queued")) {
            *mask |= RECEIPTS_QUEUED;
        } else if (span_is(name, "stored")) {
            *mask |= RECEIPTS_STORED;
        } else {
            return false;
        }
    } while (list.data != NULL);
    return true;
}

bool receipts_parse(struct span query, uint8_t *mask)
{
    static const struct span key = SPAN("receipts=");
    *mask = RECEIPTS_DEFAULT;
    while (query.bytes > 0) {
        size_t at = 0;
        while (at < query.bytes && query.data[at] != '&') {
            at++;
        }
        struct span parameter = span_of(query.data, at);
        size_t after = at < query.bytes ? at + 1 : at;
        query = span_of(query.data + after, query.bytes - after);
        if (parameter.bytes < key.bytes || !span_equal(span_of(parameter.data, key.bytes), key)) {
            continue;
        }
        if (!parse_names(span_of(parameter.data + key.bytes, parameter.bytes - key.bytes), mask)) {
            return false;
        }
    }
    return true;
}
