/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "guard_page.h"
#include "handshake.h"
#include "http.h"

enum { HEADER_BYTES_MAX = 1024 };

#define LINE "GET /dev-7?receipts=none HTTP/1.1\r\n"
#define HOST "Host: server.example.com\r\n"
#define UPGRADE "Upgrade: websocket\r\nConnection: Upgrade\r\n"
#define KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define VERSION "Sec-WebSocket-Version: 13\r\n"
#define END "\r\n"
#define GOOD LINE HOST UPGRADE KEY VERSION END

static struct guard_page guard;

static int open_guard(void **state)
{
    (void)state;
    guard_page_open(&guard, 8192);
    return 0;
}

static int close_guard(void **state)
{
    (void)state;
    guard_page_close(&guard);
    return 0;
}

static struct span put(const char *text, size_t bytes)
{
    return span_of(guard_page_put(&guard, text, bytes), bytes);
}

/* Scans a text whole, in two pieces at every place, and byte by byte; all must come to the same. */
static enum http_progress scan(const char *text, size_t bytes, size_t *header_bytes)
{
    struct http_scan whole = {0, 0};
    enum http_progress expected = http_scan(&whole, put(text, bytes), HEADER_BYTES_MAX);
    for (size_t step = 1; step <= bytes; step++) {
        struct http_scan pieces = {0, 0};
        enum http_progress progress = HTTP_MORE;
        for (size_t at = step; progress == HTTP_MORE; at += step) {
            size_t arrived = at < bytes ? at : bytes;
            progress = http_scan(&pieces, put(text, arrived), HEADER_BYTES_MAX);
            if (arrived == bytes) {
                break;
            }
        }
        assert_int_equal(progress, expected);
        assert_int_equal(pieces.scanned_bytes, whole.scanned_bytes);
    }
    *header_bytes = whole.scanned_bytes;
    return expected;
}

/* The status a request is answered with. */
static uint16_t status_of(const char *text, struct handshake_request *request)
{
    size_t header_bytes;
    struct handshake_refusal refusal = {0, NULL};
    enum http_progress progress = scan(text, strlen(text), &header_bytes);
    if (progress == HTTP_GARBAGE) {
        return HANDSHAKE_STATUS_BAD_REQUEST;
    }
    assert_int_equal(progress, HTTP_WHOLE);
    if (handshake_parse(put(text, header_bytes), request, &refusal)) {
        return HANDSHAKE_STATUS_SWITCHING;
    }
    assert_non_null(refusal.reason);
    return refusal.status;
}

static void assert_span(struct span span, const char *text)
{
    assert_int_equal(span.bytes, strlen(text));
    assert_memory_equal(span.data, text, span.bytes);
}

static void test_request(void **state)
{
    (void)state;
    struct handshake_request request;
    assert_int_equal(status_of(GOOD, &request), 101);
    assert_span(request.path, "/dev-7");
    assert_span(request.query, "receipts=none");
    assert_span(request.key, "dGhlIHNhbXBsZSBub25jZQ==");
    assert_int_equal(status_of(LINE HOST UPGRADE KEY VERSION "Origin:  https://example.org \t\r\n" END, &request), 101);
}

static void test_targets(void **state)
{
    (void)state;
    static const struct {
        const char *target;
        uint16_t status;
        const char *path;
        const char *query;
    } rows[] = {
        {"/", 101, "/", ""},
        {"/a/b%2Fc", 101, "/a/b%2Fc", ""},
        {"/a?", 101, "/a", ""},
        {"/a?b?c", 101, "/a", "b?c"},
        {"ws://host:8000/a?b", 101, "/a", "b"},
        {"HTTP://host", 101, "/", ""},
        {"https://host?q", 101, "/", "q"},
        {"a", 400, "", ""},
        {"*", 400, "", ""},
        {"host:80", 400, "", ""},
        {"/a#b", 400, "", ""},
        {"/%", 400, "", ""},
        {"/%4", 400, "", ""},
        {"/%4g", 400, "", ""},
        {"ftp://host/a", 400, "", ""},
        {"/\xc3\xbc", 400, "", ""},
        {"/a b", 400, "", ""},
    };
    for (size_t index = 0; index < sizeof rows / sizeof rows[0]; index++) {
        char text[512];
        struct handshake_request request;
        (void)snprintf(text, sizeof text, "GET %s HTTP/1.1\r\n" HOST UPGRADE KEY VERSION END, rows[index].target);
        assert_int_equal(status_of(text, &request), rows[index].status);
        if (rows[index].status == 101) {
            assert_span(request.path, rows[index].path);
            assert_span(request.query, rows[index].query);
        }
    }
}

static void test_statuses(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint16_t status;
    } rows[] = {
        {LINE HOST "Upgrade: WebSocket\r\nConnection: keep-alive,upgrade\r\n" KEY VERSION END, 101},
        {LINE HOST
         "Upgrade: foo\r\nUpgrade: websocket\r\nConnection: ,\r\nConnection: x, Upgrade ,\r\n" KEY VERSION END,
         101},
        {LINE "hOST:x\r\n" UPGRADE KEY VERSION "Content-Length: 0\r\n" END, 101},
        {LINE "Host:\r\n" UPGRADE KEY VERSION END, 101},
        {LINE HOST UPGRADE KEY VERSION "X-Empty:\r\nX-Latin: \xe9\t\"quoted\"\r\n" END, 101},
        /* not a WebSocket */
        {"GET / HTTP/1.1\r\n" HOST END, 426},
        {"GET / HTTP/1.0\r\n" END, 426},
        {"DELETE / HTTP/1.1\r\n" HOST END, 426},
        {"OPTIONS * HTTP/1.1\r\n" HOST END, 426},
        {LINE HOST "Upgrade: websocket\r\n" KEY VERSION END, 426},
        {LINE HOST "Connection: upgrade\r\n" KEY VERSION END, 426},
        {LINE HOST "Upgrade: websockets\r\nConnection: upgrade\r\n" KEY VERSION END, 426},
        {LINE HOST UPGRADE KEY END, 426},
        {LINE HOST UPGRADE KEY "Sec-WebSocket-Version: 8\r\n" END, 426},
        {LINE HOST UPGRADE KEY "Sec-WebSocket-Version: 013\r\n" END, 426},
        /* not as it should be */
        {LINE UPGRADE KEY VERSION END, 400},
        {LINE HOST HOST UPGRADE KEY VERSION END, 400},
        {LINE "Host: a/b\r\n" UPGRADE KEY VERSION END, 400},
        {LINE HOST UPGRADE VERSION END, 400},
        {LINE HOST UPGRADE KEY KEY VERSION END, 400},
        {LINE HOST UPGRADE KEY VERSION VERSION END, 400},
        {LINE HOST UPGRADE KEY VERSION "Origin: a\r\nOrigin: b\r\n" END, 400},
        {LINE HOST UPGRADE "Sec-WebSocket-Key: \r\n" VERSION END, 400},
        {LINE HOST UPGRADE "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=\r\n" VERSION END, 400},
        {LINE HOST UPGRADE "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ===\r\n" VERSION END, 400},
        {LINE HOST UPGRADE "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ*==\r\n" VERSION END, 400},
        {LINE HOST UPGRADE KEY VERSION "Content-Length: 3\r\n" END, 400},
        {LINE HOST UPGRADE KEY VERSION "Transfer-Encoding: chunked\r\n" END, 400},
        {"POST / HTTP/1.1\r\n" HOST UPGRADE KEY VERSION END, 400},
        {"get / HTTP/1.1\r\n" HOST UPGRADE KEY VERSION END, 400},
        {"GET / HTTP/1.0\r\n" HOST UPGRADE KEY VERSION END, 400},
        {"GET / HTTP/2.0\r\n" HOST UPGRADE KEY VERSION END, 400},
        {"GET / HTTP/1.1x\r\n" HOST UPGRADE KEY VERSION END, 400},
        {"GET / HTTP/11\r\n" HOST UPGRADE KEY VERSION END, 400},
        {"GET / FTP/1.1\r\n" HOST UPGRADE KEY VERSION END, 400},
        {"GET /\r\n" HOST END, 400},
        {"GET \r\n" HOST END, 400},
        {"GET\r\n" HOST END, 400},
        {"GET  HTTP/1.1\r\n" HOST END, 400},
        {"G\"T / HTTP/1.1\r\n" HOST END, 400},
        {LINE HOST "No colon\r\n" END, 400},
        {LINE HOST "Blank : before\r\n" END, 400},
        {LINE HOST "(name): x\r\n" END, 400},
        /* garbage, seen as it comes */
        {" GET / HTTP/1.1\r\n", 400},
        {"\r\nGET / HTTP/1.1\r\n", 400},
        {"GET / HTTP/1.1\n", 400},
        {"GET /\tHTTP/1.1\r\n", 400},
        {LINE ": no name\r\n", 400},
        {LINE HOST " folded\r\n", 400},
        {LINE HOST "\tfolded\r\n", 400},
        {LINE "X: bare\rreturn\r\n", 400},
        {LINE "X: bare\nfeed\r\n", 400},
        {LINE "X: control\x01\r\n", 400},
        {LINE "X: delete\x7f\r\n", 400},
        {LINE HOST "\rx", 400},
        {"\x16\x03\x01", 400},
    };
    for (size_t index = 0; index < sizeof rows / sizeof rows[0]; index++) {
        struct handshake_request request;
        if (status_of(rows[index].text, &request) != rows[index].status) {
            fail_msg("not %u: %s", (unsigned)rows[index].status, rows[index].text);
        }
    }
}

static void test_scan_stops_at_the_header(void **state)
{
    (void)state;
    size_t header_bytes;
    assert_int_equal(scan(GOOD "\x81\x85", strlen(GOOD) + 2, &header_bytes), HTTP_WHOLE);
    assert_int_equal(header_bytes, strlen(GOOD));
    for (size_t bytes = 0; bytes < strlen(GOOD); bytes++) {
        assert_int_equal(scan(GOOD, bytes, &header_bytes), HTTP_MORE);
        assert_int_equal(header_bytes, bytes);
    }
    assert_int_equal(scan("GET / HTTP/1.1\r\n\0", 17, &header_bytes), HTTP_GARBAGE);
}

static void test_header_limit(void **state)
{
    (void)state;
    for (size_t bytes = HEADER_BYTES_MAX - 2; bytes <= HEADER_BYTES_MAX + 2; bytes++) {
        char text[HEADER_BYTES_MAX + 8];
        struct http_scan state_of_scan = {0, 0};
        memset(text, 'a', sizeof text);
        memcpy(text, LINE "X: ", strlen(LINE "X: "));
        memcpy(text + bytes - 4, "\r\n\r\n", 4);
        enum http_progress progress = http_scan(&state_of_scan, put(text, bytes), HEADER_BYTES_MAX);
        assert_int_equal(progress, bytes <= HEADER_BYTES_MAX ? HTTP_WHOLE : HTTP_TOO_LONG);
    }
}

static void test_accept(void **state)
{
    (void)state;
    char buffer[HANDSHAKE_RESPONSE_BYTES_MAX];
    struct text out = text_in(buffer, sizeof buffer);
    struct span key = SPAN("dGhlIHNhbXBsZSBub25jZQ=="); /* RFC 6455 section 1.3 */
    handshake_write_accept(&out, key);
    assert_false(out.truncated);
    assert_span(text_span(&out), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                 "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
}

static void test_refusals(void **state)
{
    (void)state;
    static const uint16_t statuses[] = {400, 408, 426, 431, 503, 599};
    char long_reason[500];
    memset(long_reason, 'r', sizeof long_reason);
    for (size_t index = 0; index < sizeof statuses / sizeof statuses[0]; index++) {
        char buffer[HANDSHAKE_RESPONSE_BYTES_MAX];
        struct text out = text_in(buffer, sizeof buffer);
        handshake_write_refusal(&out, statuses[index], span_of(long_reason, sizeof long_reason));
        assert_false(out.truncated);
    }
    char buffer[HANDSHAKE_RESPONSE_BYTES_MAX];
    struct text out = text_in(buffer, sizeof buffer);
    handshake_write_refusal(&out, 400, span_text("bad\r\nX-Injected: yes\x01!"));
    assert_span(text_span(&out), "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n"
                                 "Content-Length: 20\r\n\r\nbadX-Injected: yes!\n");
    out = text_in(buffer, sizeof buffer);
    handshake_write_refusal(&out, 426, span_of(NULL, 0));
    assert_span(
        text_span(&out),
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n"
        "Sec-WebSocket-Version: 13\r\nContent-Type: text/plain\r\nContent-Length: 17\r\n\r\nUpgrade Required\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request),      cmocka_unit_test(test_targets),
        cmocka_unit_test(test_statuses),     cmocka_unit_test(test_scan_stops_at_the_header),
        cmocka_unit_test(test_header_limit), cmocka_unit_test(test_accept),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, open_guard, close_guard);
}
