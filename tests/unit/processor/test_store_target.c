/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "port.h"
#include "store_target.h"

/* A worker that knows two names. */
static size_t fake_resolve(void *context, const char *host, uint16_t port, struct port_address *addresses,
                           size_t address_max)
{
    (void)context;
    assert_true(address_max >= 2);
    if (strcmp(host, "one") == 0) {
        addresses[0] = (struct port_address){.bytes = {127, 0, 0, 1}, .port = port};
        return 1;
    }
    if (strcmp(host, "two") == 0) {
        addresses[0] = (struct port_address){.bytes = {[15] = 1}, .port = port, .v6 = true};
        addresses[1] = (struct port_address){.bytes = {127, 0, 0, 2}, .port = port};
        return 2;
    }
    return 0;
}

static const char *fake_error_text(void *context)
{
    (void)context;
    return "no such host";
}

static void fake_format(void *context, const struct port_address *address, char text[PORT_ADDRESS_TEXT_BYTES])
{
    (void)context;
    if (address->v6) {
        (void)snprintf(text, PORT_ADDRESS_TEXT_BYTES, "[::%d]:%d", address->bytes[15], address->port);
    } else {
        (void)snprintf(text, PORT_ADDRESS_TEXT_BYTES, "127.0.0.%d:%d", address->bytes[3], address->port);
    }
}

static const struct port port = {.resolve = fake_resolve, .error_text = fake_error_text, .format_address = fake_format};

static void assert_address(const struct store_target *target, const char *expected)
{
    char text[PORT_ADDRESS_TEXT_BYTES];
    store_target_address(target, &port, text);
    assert_string_equal(text, expected);
}

static void hosts_and_addresses_are_tried_in_order(void **state)
{
    (void)state;
    struct store_target target;
    assert_true(store_target_init(&target, "two,unknown,one", NULL, "1,2,3"));
    store_target_rewind(&target);
    store_target_resolve(&target, &port);
    assert_int_equal(target.address_count, 2);
    assert_address(&target, "::1");
    assert_true(store_target_next(&target));
    assert_address(&target, "127.0.0.2");
    assert_int_equal(store_target_host(&target)->port, 1);
    assert_false(store_target_next(&target));
    store_target_resolve(&target, &port);
    assert_int_equal(target.address_count, 0);
    assert_string_equal(target.error, "no such host");
    assert_false(store_target_next(&target));
    assert_string_equal(store_target_host(&target)->name, "one");
    assert_int_equal(store_target_host(&target)->port, 3);
    store_target_resolve(&target, &port);
    assert_address(&target, "127.0.0.1");
    assert_false(store_target_next(&target));
    assert_null(store_target_host(&target));
    store_target_rewind(&target);
    assert_string_equal(store_target_host(&target)->name, "two");
}

static void what_is_no_name_is_left_to_libpq(void **state)
{
    (void)state;
    struct store_target target;
    assert_true(store_target_init(&target, NULL, NULL, NULL));
    assert_int_equal(target.host_count, 1);
    assert_true(target.hosts[0].by_libpq);
    assert_true(store_target_init(&target, "/var/run/postgresql,one,@abstract", NULL, "5433"));
    assert_int_equal(target.host_count, 3);
    assert_true(target.hosts[0].by_libpq);
    assert_false(target.hosts[1].by_libpq);
    assert_true(target.hosts[2].by_libpq);
    assert_int_equal(target.hosts[2].port, 5433);
}

/* With several, libpq would walk on only when the kernel gives up the first. */
static void addresses_of_the_url_are_tried_one_by_one(void **state)
{
    (void)state;
    struct store_target target;
    assert_true(store_target_init(&target, NULL, "10.0.0.1,fe80::1%eth0", "1,2"));
    store_target_rewind(&target);
    assert_string_equal(store_target_host(&target)->name, "");
    assert_string_equal(store_target_host(&target)->address, "10.0.0.1");
    assert_int_equal(store_target_host(&target)->port, 1);
    assert_true(store_target_host(&target)->by_libpq);
    store_target_resolve(&target, &port);
    assert_int_equal(target.address_count, 1);
    assert_false(store_target_next(&target));
    assert_string_equal(store_target_host(&target)->address, "fe80::1%eth0");
    assert_int_equal(store_target_host(&target)->port, 2);
    store_target_resolve(&target, &port);
    assert_false(store_target_next(&target));
    assert_null(store_target_host(&target));
    /* Beside names: the name goes with its address; one without an address is resolved. */
    assert_true(store_target_init(&target, "a,one", "10.0.0.1,", "5433"));
    assert_int_equal(target.host_count, 2);
    assert_string_equal(target.hosts[0].name, "a");
    assert_string_equal(target.hosts[0].address, "10.0.0.1");
    assert_true(target.hosts[0].by_libpq);
    assert_string_equal(target.hosts[1].name, "one");
    assert_string_equal(target.hosts[1].address, "");
    assert_false(target.hosts[1].by_libpq);
    assert_int_equal(target.hosts[1].port, 5433);
}

static void lists_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    struct store_target target;
    assert_true(store_target_init(&target, "a", NULL, ""));
    assert_int_equal(target.hosts[0].port, 5432);
    assert_true(store_target_init(&target, "a,b", NULL, "1,"));
    assert_int_equal(target.hosts[1].port, 5432);
    assert_false(store_target_init(&target, "a,b", NULL, "1,2,3"));
    assert_false(store_target_init(&target, "a,b,c", NULL, "1,2"));
    assert_false(store_target_init(&target, "a", NULL, "0"));
    assert_false(store_target_init(&target, "a", NULL, "65536"));
    assert_false(store_target_init(&target, "a", NULL, "x"));
    assert_true(store_target_init(&target, "1,2,3,4,5,6,7,8", NULL, NULL));
    assert_false(store_target_init(&target, "1,2,3,4,5,6,7,8,9", NULL, NULL));
    assert_false(store_target_init(&target, "end-of-a-password@host", NULL, NULL));
    assert_false(store_target_init(&target, "a", "1,2", NULL));
    assert_false(store_target_init(&target, "a,b", "1", NULL));
    assert_false(store_target_init(&target, NULL, "1,2", "1,2,3"));
    assert_false(store_target_init(&target, NULL, "1,2,3,4,5,6,7,8,9", NULL));
    assert_false(store_target_init(&target, NULL, "1234567890123456789012345678901234567890123456789012345.", NULL));
    char name[STORE_HOST_BYTES_MAX + 2];
    memset(name, 'x', sizeof name);
    name[STORE_HOST_BYTES_MAX + 1] = '\0';
    assert_false(store_target_init(&target, name, NULL, NULL));
    name[STORE_HOST_BYTES_MAX] = '\0';
    assert_true(store_target_init(&target, name, NULL, NULL));
    assert_string_equal(target.hosts[0].name, name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_and_addresses_are_tried_in_order),
        cmocka_unit_test(what_is_no_name_is_left_to_libpq),
        cmocka_unit_test(addresses_of_the_url_are_tried_one_by_one),
        cmocka_unit_test(lists_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
