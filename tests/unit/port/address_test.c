/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "port_fixture.h"

static void test_addresses_to_text_and_back(void **state)
{
    struct port *port = *state;
    static const struct {
        const char *host;
        uint16_t port;
        const char *text;
    } known[] = {
        {"127.0.0.1", 8000, "127.0.0.1:8000"},
        {"0.0.0.0", 0, "0.0.0.0:0"},
        {"255.255.255.255", 65535, "255.255.255.255:65535"},
        {"::1", 8000, "[::1]:8000"},
        {"::", 1, "[::]:1"},
        {"2001:db8:1111:2222:3333:4444:5555:6666", 65535, "[2001:db8:1111:2222:3333:4444:5555:6666]:65535"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct port_address address;
        char text[PORT_ADDRESS_TEXT_BYTES];
        assert_true(port->parse_address(port->context, known[i].host, known[i].port, &address));
        port->format_address(port->context, &address, text);
        assert_string_equal(text, known[i].text);
    }
}

static void test_bytes_are_in_network_order(void **state)
{
    struct port *port = *state;
    struct port_address address;
    assert_true(port->parse_address(port->context, "192.0.2.1", 0x1234, &address));
    assert_memory_equal(address.bytes, "\xC0\x00\x02\x01", 4);
    assert_int_equal(address.port, 0x1234);
    assert_false(address.v6);
    assert_true(port->parse_address(port->context, "102:304::f", 1, &address));
    assert_memory_equal(address.bytes, "\x01\x02\x03\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0F", 16);
    assert_true(address.v6);
}

static void test_only_numbers_are_addresses(void **state)
{
    struct port *port = *state;
    static const char *const wrong[] = {"",    "localhost",  "127.0.0.1:80", "[::1]", "1.2.3",     "1.2.3.256",
                                        "::g", " 127.0.0.1", "127.0.0.1 ",   ":::",   "01.2.3.4.5"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct port_address address = {.port = 4711};
        assert_false(port->parse_address(port->context, wrong[i], 1, &address));
        assert_int_equal(address.port, 4711);
    }
}

#define with_port(test) cmocka_unit_test_setup_teardown(test, open_port, close_port)

int main(void)
{
    const struct CMUnitTest tests[] = {
        with_port(test_addresses_to_text_and_back),
        with_port(test_bytes_are_in_network_order),
        with_port(test_only_numbers_are_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
