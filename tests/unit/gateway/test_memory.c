/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "plan.h"
#include "table_top.h"

/* What the settings lead to: sizes, refusals, and the table of memory. */

static struct gateway gateway;
static struct settings settings;
static char error_buffer[1024];

static void defaults(void)
{
    memset(&settings, 0, sizeof settings);
    strcpy(settings.rabbitmq_url, "amqp://guest:secret@127.0.0.1:1");
    strcpy(settings.routes, "text -> messages");
    settings.max_connections = 1024;
    settings.max_message_bytes = 16384;
    settings.outbox_messages = 8192;
    settings.outbox_bytes = 8 * 1024 * 1024;
    settings.send_queue_bytes = 65536;
}

static bool configure(void)
{
    struct text error = text_in(error_buffer, sizeof error_buffer - 1);
    bool configured = gateway_configure(&gateway, &settings, &error);
    error_buffer[error.used_bytes] = '\0';
    assert_int_equal(configured, error.used_bytes == 0);
    return configured;
}

static void one_read_always_fits_the_outbox(void **state)
{
    (void)state;
    defaults();
    for (uint32_t messages = 16; messages <= 65536; messages *= 2) {
        for (uint64_t bytes = 65536; bytes <= (UINT64_C(1) << 26); bytes *= 2) {
            settings.outbox_messages = messages;
            settings.outbox_bytes = bytes;
            if (configure()) {
                assert_true(gateway.read_message_count <= messages);
                assert_true(gateway.read_content_bytes + gateway.read_message_count * OUTBOX_OVERHEAD_BYTES_MAX <=
                            bytes);
                assert_in_range(gateway.read_bytes, SERVER_PIECE_BYTES, GATEWAY_READ_BYTES_MAX);
            } else {
                assert_non_null(strstr(error_buffer, "OUTBOX_MESSAGES="));
                assert_true(messages < 64 || bytes < 256 * 1024);
            }
        }
    }
    defaults();
    assert_true(configure());
    assert_int_equal(gateway.read_bytes, GATEWAY_READ_BYTES_MAX);
}

static void wrong_settings_are_named_without_their_secrets(void **state)
{
    (void)state;
    defaults();
    strcpy(settings.rabbitmq_url, "http://guest:secret@127.0.0.1");
    assert_false(configure());
    assert_non_null(strstr(error_buffer, "RABBITMQ_URL="));
    assert_null(strstr(error_buffer, "secret"));
    defaults();
    strcpy(settings.routes, "text messages");
    assert_false(configure());
    assert_non_null(strstr(error_buffer, "ROUTES=text messages"));
    assert_null(strchr(error_buffer, '\n'));
}

static void a_backend_message_fits_both_bounds(void **state)
{
    (void)state;
    defaults();
    assert_true(configure());
    assert_int_equal(gateway.downlink_message_max, 16384);
    settings.send_queue_bytes = 4096;
    assert_true(configure());
    assert_true(gateway.downlink_message_max < 4096);
}

static void the_table_of_memory_adds_up(void **state)
{
    (void)state;
    struct table_top *table = table_top_open(NULL);
    size_t sum = 0;
    for (size_t index = 0; index < table->arena.row_count; index++) {
        sum += table->arena.rows[index].bytes;
    }
    assert_int_equal(sum, table->arena.used_bytes);
    char buffer[PLAN_BYTES_MAX + 1];
    struct text text = text_in(buffer, PLAN_BYTES_MAX);
    struct plan plan;
    plan_begin(&plan, &table->arena);
    plan_add(&plan, "one more", 1, 1000);
    plan_add(&plan, "and two", 2, 1000);
    assert_int_equal(plan_total_bytes(&plan), sum + 3000);
    plan_write(&plan, &text);
    assert_false(text.truncated);
    buffer[text.used_bytes] = '\0';
    // The last column of all rows, but the head and the total, is the total.
    size_t added = 0;
    size_t total = 0;
    for (const char *line = strchr(buffer, '\n') + 1; *line != '\0'; line = strchr(line, '\n') + 1) {
        const char *end = strchr(line, '\n');
        while (end[-1] != ' ') {
            end--;
        }
        total = strtoul(end, NULL, 10);
        added += total;
    }
    assert_int_equal(added, 2 * total);
    assert_int_equal(total, sum + 3000);
    assert_non_null(strstr(buffer, "\nsessions"));
    assert_non_null(strstr(buffer, "\nand two "));
    table_top_close(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_read_always_fits_the_outbox),
        cmocka_unit_test(wrong_settings_are_named_without_their_secrets),
        cmocka_unit_test(a_backend_message_fits_both_bounds),
        cmocka_unit_test(the_table_of_memory_adds_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
