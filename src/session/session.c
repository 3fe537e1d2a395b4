/* SPDX-License-Identifier: MIT */
/* Records stand still in one array, so that a connection and a handle can name them by index; beside it an open
 * addressing table of indexes, at most half full, finds a record by its client id. Each record keeps its hash: probing
 * compares hashes first, and a removal can shift the followers back without hashing anything again. */
#include "session.h"

#include <string.h>

#include "check.h"
#include "number.h"

void session_table_init(struct session_table *table, struct arena *arena, uint32_t capacity, struct siphash_key key)
{
    CHECK(capacity > 0 && capacity < UINT32_MAX / 4);
    uint32_t slot_count = (uint32_t)number_power_of_two(capacity < 4 ? 8 : 2 * capacity);
    *table = (struct session_table){.capacity = capacity, .slot_mask = slot_count - 1, .key = key};
    table->sessions = arena_take(arena, "sessions", capacity, sizeof *table->sessions);
    table->slots = arena_take(arena, "session hash slots", slot_count, sizeof *table->slots);
    table->free_stack = arena_take(arena, "free session indexes", capacity, sizeof *table->free_stack);
    if (arena_measuring(arena)) {
        return;
    }
    memset(table->slots, 0xff, slot_count * sizeof *table->slots);
    for (uint32_t index = 0; index < capacity; index++) {
        table->free_stack[index] = capacity - 1 - index;
    }
}

static uint32_t hash_of(const struct session_table *table, struct span client_id)
{
    uint64_t hash = siphash(&table->key, client_id);
    return (uint32_t)(hash ^ hash >> 32);
}

/* The slot that holds the client's session, or the empty one where its search ends. */
static uint32_t find_slot(const struct session_table *table, struct span client_id, uint32_t hash)
{
    uint32_t slot = hash & table->slot_mask;
    while (table->slots[slot] != SESSION_NONE) {
        const struct session *session = &table->sessions[table->slots[slot]];
        if (session->hash == hash && span_equal(session_client_id(session), client_id)) {
            break;
        }
        slot = (slot + 1) & table->slot_mask;
    }
    return slot;
}

/* Empties a slot and moves those behind it forward that would no longer be found. */
static void clear_slot(struct session_table *table, uint32_t empty)
{
    uint32_t slot = empty;
    for (;;) {
        slot = (slot + 1) & table->slot_mask;
        uint32_t index = table->slots[slot];
        if (index == SESSION_NONE) {
            break;
        }
        uint32_t home = table->sessions[index].hash & table->slot_mask;
        // It may move to the empty slot unless its home lies behind that, cyclically.
        if (((slot - home) & table->slot_mask) >= ((slot - empty) & table->slot_mask)) {
            table->slots[empty] = index;
            empty = slot;
        }
    }
    table->slots[empty] = SESSION_NONE;
}

static void begin(struct session *session, struct span client_id, uint32_t hash)
{
    uint32_t generation = session->generation + 1;
    *session = (struct session){
        .hash = hash,
        .generation = generation == 0 ? 1 : generation,
        .client_id_bytes = (uint8_t)client_id.bytes,
        .link_previous = SESSION_NONE,
        .link_next = SESSION_NONE,
    };
    memcpy(session->client_id, client_id.data, client_id.bytes);
}

enum session_outcome session_admit(struct session_table *table, struct span client_id,
                                   enum settings_session_policy policy,
                                   bool (*older_silent)(void *context, const struct session *older), void *context,
                                   struct session **session, struct session *older)
{
    CHECK(client_id.bytes >= 1 && client_id.bytes <= CLIENT_ID_BYTES_MAX);
    uint32_t hash = hash_of(table, client_id);
    uint32_t slot = find_slot(table, client_id, hash);
    if (table->slots[slot] != SESSION_NONE) {
        struct session *present = &table->sessions[table->slots[slot]];
        bool ends = policy == SETTINGS_SESSION_TAKEOVER ||
                    (policy == SETTINGS_SESSION_TAKEOVER_STALE && older_silent(context, present));
        if (!ends) {
            return SESSION_REFUSED_CONNECTED;
        }
        // The record stays where it is and gets a new generation: to every handle the older session has ended.
        *older = *present;
        begin(present, client_id, hash);
        present->binding = older->binding;
        present->link_previous = older->link_previous;
        present->link_next = older->link_next;
        *session = present;
        return SESSION_TAKES_OVER;
    }
    if (table->count == table->capacity) {
        return SESSION_REFUSED_FULL;
    }
    uint32_t index = table->free_stack[table->capacity - 1 - table->count];
    table->count++;
    if (table->count > table->peak_count) {
        table->peak_count = table->count;
    }
    table->slots[slot] = index;
    *session = &table->sessions[index];
    begin(*session, client_id, hash);
    return SESSION_ADMITTED;
}

void session_end(struct session_table *table, struct session *session)
{
    CHECK(session_in_use(session));
    uint32_t slot = find_slot(table, session_client_id(session), session->hash);
    CHECK(table->slots[slot] == session_index(table, session));
    clear_slot(table, slot);
    session->client_id_bytes = 0;
    table->count--;
    table->free_stack[table->capacity - 1 - table->count] = session_index(table, session);
}

struct session *session_find(const struct session_table *table, struct span client_id)
{
    if (client_id.bytes == 0 || client_id.bytes > CLIENT_ID_BYTES_MAX) {
        return NULL;
    }
    uint32_t index = table->slots[find_slot(table, client_id, hash_of(table, client_id))];
    return index == SESSION_NONE ? NULL : &table->sessions[index];
}

struct session *session_by_handle(const struct session_table *table, struct session_handle handle)
{
    if (handle.index >= table->capacity) {
        return NULL;
    }
    struct session *session = &table->sessions[handle.index];
    return session_in_use(session) && session->generation == handle.generation ? session : NULL;
}

struct session *session_at(const struct session_table *table, uint32_t index)
{
    CHECK(index < table->capacity && session_in_use(&table->sessions[index]));
    return &table->sessions[index];
}

uint32_t session_index(const struct session_table *table, const struct session *session)
{
    return (uint32_t)(session - table->sessions);
}

struct session_handle session_handle_of(const struct session_table *table, const struct session *session)
{
    return (struct session_handle){session_index(table, session), session->generation};
}
