/* SPDX-License-Identifier: MIT */
/* Method: a hash stands for the failure. That two share one is harmless: a line is told later than it should. */
#include "repeats.h"

/* FNV-1a. */
static uint32_t mix(uint32_t hash, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    for (size_t i = 0; i < bytes; i++) {
        hash = (hash ^ at[i]) * 16777619U;
    }
    return hash;
}

uint32_t repeats_due(struct repeats *repeats, const char *what, uint64_t number, struct span detail)
{
    uint32_t hash = mix(mix(mix(2166136261U, what, strlen(what)), &number, sizeof number), detail.data, detail.bytes);
    size_t place = 0;
    while (place < REPEATS_MAX && (repeats->counts[place] == 0 || repeats->hashes[place] != hash)) {
        place++;
    }
    if (place == REPEATS_MAX) {
        place = repeats->next;
        repeats->next = (repeats->next + 1) % REPEATS_MAX;
        repeats->hashes[place] = hash;
        repeats->counts[place] = 0;
    }
    uint32_t count = ++repeats->counts[place];
    return (count & (count - 1)) == 0 ? count : 0;
}
