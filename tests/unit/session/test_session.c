/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session.h"

enum { CAPACITY = 50, NAMES = 120 };

struct fixture {
    struct session_table table;
    void *memory;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct siphash_key key = {{1, 2}};
    struct arena arena;
    arena_measure(&arena);
    session_table_init(&fixture->table, &arena, CAPACITY, key);
    size_t bytes = arena.used_bytes;
    fixture->memory = aligned_alloc(ARENA_ALIGN_BYTES, bytes);
    memset(fixture->memory, 0, bytes);
    arena_begin(&arena, fixture->memory, bytes);
    session_table_init(&fixture->table, &arena, CAPACITY, key);
    assert_int_equal(arena.used_bytes, bytes);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    free(fixture->memory);
    free(fixture);
    return 0;
}

static bool silent(void *context, const struct session *older)
{
    (void)older;
    return *(bool *)context;
}

static enum session_outcome admit(struct session_table *table, const char *id, enum settings_session_policy policy,
                                  bool older_silent, struct session **session, struct session *older)
{
    return session_admit(table, span_text(id), policy, silent, &older_silent, session, older);
}

static void one_session_a_client(void **state)
{
    struct fixture *fixture = *state;
    struct session *a;
    struct session *b;
    struct session older;
    assert_int_equal(admit(&fixture->table, "a", SETTINGS_SESSION_REJECT, true, &a, &older), SESSION_ADMITTED);
    assert_int_equal(admit(&fixture->table, "a", SETTINGS_SESSION_REJECT, true, &b, &older), SESSION_REFUSED_CONNECTED);
    assert_int_equal(admit(&fixture->table, "A", SETTINGS_SESSION_REJECT, true, &b, &older), SESSION_ADMITTED);
    assert_int_equal(fixture->table.count, 2);
    assert_ptr_equal(session_find(&fixture->table, span_text("a")), a);
    session_end(&fixture->table, a);
    assert_null(session_find(&fixture->table, span_text("a")));
    assert_int_equal(admit(&fixture->table, "a", SETTINGS_SESSION_REJECT, true, &a, &older), SESSION_ADMITTED);
}

static void a_handle_never_names_a_later_session(void **state)
{
    struct fixture *fixture = *state;
    struct session *a;
    struct session older;
    admit(&fixture->table, "a", SETTINGS_SESSION_REJECT, false, &a, &older);
    struct session_handle first = session_handle_of(&fixture->table, a);
    assert_ptr_equal(session_by_handle(&fixture->table, first), a);
    session_end(&fixture->table, a);
    assert_null(session_by_handle(&fixture->table, first));
    admit(&fixture->table, "a", SETTINGS_SESSION_REJECT, false, &a, &older);
    struct session_handle second = session_handle_of(&fixture->table, a);
    assert_int_equal(first.index, second.index);
    assert_null(session_by_handle(&fixture->table, first));
    assert_ptr_equal(session_by_handle(&fixture->table, second), a);
    assert_null(session_by_handle(&fixture->table, (struct session_handle){CAPACITY, 1}));
    assert_null(session_by_handle(&fixture->table, (struct session_handle){UINT32_MAX, 0}));
}

static void takeover_ends_the_older_one(void **state)
{
    struct fixture *fixture = *state;
    struct session *a;
    struct session *b;
    struct session older;
    admit(&fixture->table, "a", SETTINGS_SESSION_TAKEOVER, false, &a, &older);
    a->connection_index = 7;
    a->message_count = 12;
    a->binding = SESSION_BINDING_SENT;
    struct session_handle first = session_handle_of(&fixture->table, a);
    assert_int_equal(admit(&fixture->table, "a", SETTINGS_SESSION_TAKEOVER, false, &b, &older), SESSION_TAKES_OVER);
    assert_int_equal(older.connection_index, 7);
    assert_int_equal(older.message_count, 12);
    assert_int_equal(b->message_count, 0);
    assert_int_equal(b->binding, SESSION_BINDING_SENT);
    assert_int_equal(fixture->table.count, 1);
    assert_null(session_by_handle(&fixture->table, first));
    assert_ptr_equal(session_find(&fixture->table, span_text("a")), b);
}

static void takeover_stale_asks_whether_it_is_silent(void **state)
{
    struct fixture *fixture = *state;
    struct session *a;
    struct session older;
    admit(&fixture->table, "a", SETTINGS_SESSION_TAKEOVER_STALE, false, &a, &older);
    assert_int_equal(admit(&fixture->table, "a", SETTINGS_SESSION_TAKEOVER_STALE, false, &a, &older),
                     SESSION_REFUSED_CONNECTED);
    assert_int_equal(admit(&fixture->table, "a", SETTINGS_SESSION_TAKEOVER_STALE, true, &a, &older),
                     SESSION_TAKES_OVER);
}

static void the_limit_is_the_table(void **state)
{
    struct fixture *fixture = *state;
    struct session *session;
    struct session older;
    char name[16];
    for (int index = 0; index < CAPACITY; index++) {
        (void)snprintf(name, sizeof name, "c%d", index);
        assert_int_equal(admit(&fixture->table, name, SETTINGS_SESSION_REJECT, false, &session, &older),
                         SESSION_ADMITTED);
    }
    assert_int_equal(admit(&fixture->table, "more", SETTINGS_SESSION_REJECT, false, &session, &older),
                     SESSION_REFUSED_FULL);
    // One who is connected is told so, and one who takes over needs no new place.
    assert_int_equal(admit(&fixture->table, "c3", SETTINGS_SESSION_REJECT, false, &session, &older),
                     SESSION_REFUSED_CONNECTED);
    assert_int_equal(admit(&fixture->table, "c3", SETTINGS_SESSION_TAKEOVER, false, &session, &older),
                     SESSION_TAKES_OVER);
    session_end(&fixture->table, session_find(&fixture->table, span_text("c7")));
    assert_int_equal(admit(&fixture->table, "more", SETTINGS_SESSION_REJECT, false, &session, &older),
                     SESSION_ADMITTED);
    assert_int_equal(fixture->table.peak_count, CAPACITY);
}

/* Against a plain model: which of NAMES names is present, over many random steps, with the hash table nearly at its
 * densest, so that probes run into each other and removals shift. */
static void agrees_with_a_model(void **state)
{
    struct fixture *fixture = *state;
    bool present[NAMES] = {false};
    uint32_t present_count = 0;
    uint32_t random = 12345;
    for (int step = 0; step < 40000; step++) {
        random = random * 1664525u + 1013904223u;
        uint32_t pick = (random >> 8) % NAMES;
        char name[CLIENT_ID_BYTES_MAX + 1];
        (void)snprintf(name, sizeof name, "client-%u%s", pick, pick % 7 == 0 ? "-with-a-long-tail-of-a-name" : "");
        struct session *session = session_find(&fixture->table, span_text(name));
        assert_int_equal(session != NULL, present[pick]);
        struct session older;
        if (session != NULL) {
            assert_true(span_is(session_client_id(session), name));
            assert_ptr_equal(session_at(&fixture->table, session_index(&fixture->table, session)), session);
            session_end(&fixture->table, session);
            present[pick] = false;
            present_count--;
        } else if (present_count == CAPACITY) {
            assert_int_equal(admit(&fixture->table, name, SETTINGS_SESSION_REJECT, false, &session, &older),
                             SESSION_REFUSED_FULL);
        } else {
            assert_int_equal(admit(&fixture->table, name, SETTINGS_SESSION_REJECT, false, &session, &older),
                             SESSION_ADMITTED);
            present[pick] = true;
            present_count++;
        }
        assert_int_equal(fixture->table.count, present_count);
    }
}

static void a_client_id_may_have_every_length(void **state)
{
    struct fixture *fixture = *state;
    char id[CLIENT_ID_BYTES_MAX + 2];
    memset(id, 'x', sizeof id);
    for (size_t bytes = 1; bytes <= CAPACITY; bytes++) {
        struct session *session;
        struct session older;
        assert_int_equal(
            session_admit(&fixture->table, span_of(id, bytes), SETTINGS_SESSION_REJECT, silent, NULL, &session, &older),
            SESSION_ADMITTED);
    }
    assert_null(session_find(&fixture->table, span_of(id, 0)));
    assert_null(session_find(&fixture->table, span_of(id, CLIENT_ID_BYTES_MAX + 1)));
    session_end(&fixture->table, session_find(&fixture->table, span_of(id, 20)));
    struct session *session;
    struct session older;
    assert_int_equal(session_admit(&fixture->table, span_of(id, CLIENT_ID_BYTES_MAX), SETTINGS_SESSION_REJECT, silent,
                                   NULL, &session, &older),
                     SESSION_ADMITTED);
    assert_int_equal(session_client_id(session).bytes, CLIENT_ID_BYTES_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_session_a_client, setup, teardown),
        cmocka_unit_test_setup_teardown(a_handle_never_names_a_later_session, setup, teardown),
        cmocka_unit_test_setup_teardown(takeover_ends_the_older_one, setup, teardown),
        cmocka_unit_test_setup_teardown(takeover_stale_asks_whether_it_is_silent, setup, teardown),
        cmocka_unit_test_setup_teardown(the_limit_is_the_table, setup, teardown),
        cmocka_unit_test_setup_teardown(agrees_with_a_model, setup, teardown),
        cmocka_unit_test_setup_teardown(a_client_id_may_have_every_length, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
