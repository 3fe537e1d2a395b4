/* SPDX-License-Identifier: MIT */
/* The admin server over the real port on loopback, turned by the test, which also says what time it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "admin.h"
#include "arena.h"
#include "log.h"
#include "port_posix.h"

enum { TOKEN = 7000, TURNS_MAX = 20000, ANSWER_BYTES_MAX = 4 << 20 };

static struct port port;
static struct port machine;
static struct log silent; /* level error: it writes nothing */
static struct admin admin;
static struct port_address address;
static uint64_t now_ms;
static bool accept_fails;
static size_t made_bytes; /* of the page /made */
static uint8_t *large;
static char answer[ANSWER_BYTES_MAX + 1];

static uint16_t write_made(void *context, struct text *page)
{
    assert_ptr_equal(context, &admin);
    for (size_t index = 0; index < made_bytes; index++) {
        text_char(page, 'm');
    }
    return 200;
}

static uint16_t write_away(void *context, struct text *page)
{
    (void)context;
    text_string(page, "away\n");
    return 503;
}

static enum port_result accept_or_fail(void *context, port_socket listener, port_socket *socket,
                                       struct port_address *peer)
{
    return accept_fails ? PORT_FAILED : machine.accept(context, listener, socket, peer);
}

static struct admin_page pages[] = {
    {.path = "/", .content_type = "text/html", .policy = "default-src 'self'", .constant = SPAN("<p>hello</p>")},
    {.path = "/made", .content_type = "text/plain", .write = write_made},
    {.path = "/away", .content_type = "text/plain", .write = write_away},
    {.path = "/large", .content_type = "text/plain"},
};

static int open_admin(void **state)
{
    (void)state;
    assert_true(port_posix_open(&machine, &(struct port_posix_options){.watch_max = ADMIN_WATCHES}));
    port = machine;
    port.accept = accept_or_fail;
    accept_fails = false;
    now_ms = 1000000;
    made_bytes = 10;
    large = malloc(ANSWER_BYTES_MAX - 1024);
    memset(large, 'l', ANSWER_BYTES_MAX - 1024);
    pages[3].constant = span_of(large, ANSWER_BYTES_MAX - 1024);
    const struct admin_options options = {
        .port = &port, .log = &silent, .pages = pages, .page_count = 4, .context = &admin, .token = TOKEN};
    struct arena arena;
    arena_measure(&arena);
    admin_init(&admin, &arena, &options, true);
    size_t bytes = arena.used_bytes;
    arena_begin(&arena, port.memory(port.context, bytes), bytes);
    admin_init(&admin, &arena, &options, true);
    assert_true(port.parse_address(port.context, "127.0.0.1", 0, &address));
    assert_true(admin_listen(&admin, &address));
    assert_true(admin_local_address(&admin, &address));
    return 0;
}

static int close_admin(void **state)
{
    (void)state;
    admin_close(&admin);
    assert_int_equal(admin_turn(&admin, now_ms), UINT64_MAX);
    port_posix_close(&port);
    free(large);
    return 0;
}

static uint64_t turn(void)
{
    struct port_event events[ADMIN_WATCHES];
    size_t count = port.wait(port.context, events, ADMIN_WATCHES, 1);
    for (size_t index = 0; index < count; index++) {
        assert_true(admin_owns(&admin, events[index].token));
        admin_on_event(&admin, events[index].token, now_ms);
    }
    return admin_turn(&admin, now_ms);
}

static void settle(void)
{
    for (int count = 0; count < 5; count++) {
        (void)turn();
    }
}

static void later(uint64_t ms)
{
    now_ms += ms;
    (void)turn();
}

static size_t used_count(void)
{
    size_t count = 0;
    for (size_t index = 0; index < ADMIN_CONNECTIONS; index++) {
        count += admin.connections[index].state != ADMIN_FREE;
    }
    return count;
}

static int connect_client(void)
{
    int client = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(client >= 0);
    struct sockaddr_in native = {
        .sin_family = AF_INET, .sin_port = htons(address.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(client, (struct sockaddr *)&native, sizeof native), 0);
    assert_int_equal(fcntl(client, F_SETFL, O_NONBLOCK), 0);
    return client;
}

static void say(int client, const char *text, size_t bytes)
{
    assert_int_equal(send(client, text, bytes, MSG_NOSIGNAL), (ssize_t)bytes);
}

/* Reads to the end of the stream into `answer`; returns its bytes. */
static size_t read_all(int client)
{
    size_t bytes = 0;
    for (size_t turns = 0; turns < TURNS_MAX; turns++) {
        ssize_t got = recv(client, answer + bytes, ANSWER_BYTES_MAX - bytes, 0);
        if (got == 0) {
            answer[bytes] = '\0';
            (void)close(client);
            settle();
            assert_int_equal(used_count(), 0);
            return bytes;
        }
        if (got > 0) {
            bytes += (size_t)got;
        } else {
            assert_int_equal(errno, EAGAIN);
            (void)turn();
        }
    }
    fail_msg("the answer never ended");
    return 0;
}

/* The whole answer to a request. */
static const char *ask(const char *request)
{
    int client = connect_client();
    say(client, request, strlen(request));
    (void)read_all(client);
    return answer;
}

static int status_of(const char *text)
{
    assert_memory_equal(text, "HTTP/1.1 ", 9);
    return atoi(text + 9);
}

static void pages_are_answered(void **state)
{
    (void)state;
    assert_string_equal(ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
                        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 12\r\n"
                        "Content-Security-Policy: default-src 'self'\r\nCache-Control: no-store\r\n"
                        "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n"
                        "<p>hello</p>");
    assert_non_null(strstr(ask("GET /made?x=/away HTTP/1.1\r\nHost: x\r\n\r\n"), "\r\n\r\nmmmmmmmmmm"));
    assert_non_null(strstr(answer, "Content-Security-Policy: default-src 'none';"));
    assert_non_null(strstr(ask("GET http://x:8081/made HTTP/1.1\r\nhost: x:8081\r\nX: y\r\n\r\n"), "mmm"));
    assert_non_null(strstr(ask("GET /made HTTP/1.0\r\n\r\n"), "mmm"));
    assert_int_equal(status_of(ask("GET /away HTTP/1.1\r\nHost: x\r\n\r\n")), 503);
    assert_non_null(strstr(answer, "Service Unavailable\r\n"));
    assert_non_null(strstr(answer, "\r\n\r\naway\n"));
    assert_int_equal(admin.answers[ADMIN_OK], 4);
    assert_int_equal(admin.answers[ADMIN_UNAVAILABLE], 1);
}

static void head_has_no_body(void **state)
{
    (void)state;
    assert_int_equal(status_of(ask("HEAD /made HTTP/1.1\r\nHost: x\r\n\r\n")), 200);
    assert_non_null(strstr(answer, "Content-Length: 10\r\n"));
    assert_string_equal(answer + strlen(answer) - 4, "\r\n\r\n");
    assert_null(strstr(answer, "mmm"));
    assert_null(strstr(ask("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"), "hello"));
    /* Nor when it is refused. */
    made_bytes = ADMIN_PAGE_BYTES_MAX + 1;
    static const struct {
        const char *request;
        int status;
        const char *length;
    } rows[] = {
        {"HEAD /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404, "Content-Length: 23\r\n"},
        {"HEAD / HTTP/1.1\r\n\r\n", 400, "Content-Length: 45\r\n"},
        {"HEAD /made HTTP/1.1\r\nHost: x\r\n\r\n", 500, "Content-Length: 37\r\n"},
    };
    for (size_t index = 0; index < sizeof rows / sizeof rows[0]; index++) {
        assert_int_equal(status_of(ask(rows[index].request)), rows[index].status);
        assert_non_null(strstr(answer, rows[index].length));
        assert_string_equal(answer + strlen(answer) - 4, "\r\n\r\n");
    }
}

static void what_is_wrong_is_said(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        int status;
    } rows[] = {
        {"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404},
        {"GET /made/ HTTP/1.1\r\nHost: x\r\n\r\n", 404},
        {"GET /MADE HTTP/1.1\r\nHost: x\r\n\r\n", 404},
        {"GET /../made HTTP/1.1\r\nHost: x\r\n\r\n", 404},
        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405},
        {"get / HTTP/1.1\r\nHost: x\r\n\r\n", 405},
        {"OPTIONS / HTTP/1.1\r\nHost: x\r\n\r\n", 405},
        {"GET / HTTP/1.1\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", 400},
        {"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 400},
        {"GET /\r\nHost: x\r\n\r\n", 400},
        {"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        {"GET made HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        {"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400},
        {"GET / HTTP/1.1\nHost: x\n\n", 400},
        {"\x16\x03\x01\x02\x00", 400}, /* TLS */
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
    };
    uint64_t counted = 0;
    for (size_t index = 0; index < sizeof rows / sizeof rows[0]; index++) {
        int status = status_of(ask(rows[index].request));
        if (status != rows[index].status) {
            fail_msg("%s was answered with %d", rows[index].request, status);
        }
        assert_non_null(strstr(answer, "Connection: close\r\n"));
        assert_int_equal(strstr(answer, "\r\nAllow: GET, HEAD\r\n") != NULL, status == 405);
    }
    for (size_t status = 0; status < ADMIN_STATUS_COUNT; status++) {
        counted += admin.answers[status];
    }
    assert_int_equal(counted, sizeof rows / sizeof rows[0]);
}

static void a_head_that_is_too_long_is_431(void **state)
{
    (void)state;
    static char request[ADMIN_REQUEST_BYTES_MAX + 100] = "GET / HTTP/1.1\r\nHost: x\r\nCookie: ";
    memset(request + strlen(request), 'c', sizeof request - strlen(request) - 1);
    int client = connect_client();
    say(client, request, sizeof request - 1);
    (void)read_all(client);
    assert_int_equal(status_of(answer), 431);
    /* One byte less than too long is answered. */
    memcpy(request + ADMIN_REQUEST_BYTES_MAX - 5, "\r\n\r\n", 5);
    assert_int_equal(status_of(ask(request)), 200);
}

static void a_request_may_come_in_pieces_and_with_more_behind_it(void **state)
{
    (void)state;
    static const char request[] =
        "GET /made HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbodyGET / HTTP/1.1\r\n\r\n";
    int client = connect_client();
    for (size_t at = 0; at + 1 < sizeof request; at++) {
        (void)send(client, request + at, 1, MSG_NOSIGNAL); /* the last bytes come after the answer */
        (void)turn();
    }
    (void)read_all(client);
    assert_int_equal(status_of(answer), 200);
    assert_null(strstr(answer + 10, "HTTP/1.1")); /* one answer */
}

static void the_slow_are_ended(void **state)
{
    (void)state;
    int silent_one = connect_client();
    int half = connect_client();
    say(half, "GET / HT", 8);
    settle();
    assert_int_equal(used_count(), 2);
    assert_int_equal(turn(), now_ms + ADMIN_REQUEST_MS);
    later(ADMIN_REQUEST_MS);
    assert_int_equal(recv(silent_one, answer, 10, 0), 0); /* nothing was asked, nothing is answered */
    assert_true(recv(half, answer, 100, 0) > 12);
    assert_int_equal(status_of(answer), 408);
    (void)close(silent_one);
    settle();
    assert_int_equal(used_count(), 1); /* the other one lingers */
    later(ADMIN_LINGER_MS);
    assert_int_equal(used_count(), 0);
    assert_int_equal(turn(), UINT64_MAX);
    (void)close(half);
}

static void who_does_not_read_is_ended(void **state)
{
    (void)state;
    int client = connect_client();
    static const char request[] = "GET /large HTTP/1.1\r\nHost: x\r\n\r\n";
    say(client, request, sizeof request - 1);
    settle();
    assert_int_equal(admin.connections[0].state, ADMIN_SENDING);
    later(ADMIN_ANSWER_MS);
    assert_int_equal(used_count(), 0);
    (void)close(client);
}

static void a_large_answer_arrives_whole(void **state)
{
    (void)state;
    int client = connect_client();
    static const char request[] = "GET /large HTTP/1.1\r\nHost: x\r\n\r\n";
    say(client, request, sizeof request - 1);
    size_t bytes = read_all(client);
    const char *body = strstr(answer, "\r\n\r\n") + 4;
    assert_int_equal(bytes - (size_t)(body - answer), pages[3].constant.bytes);
    assert_memory_equal(body, large, pages[3].constant.bytes);
}

static void a_page_that_does_not_fit_is_500(void **state)
{
    (void)state;
    made_bytes = ADMIN_PAGE_BYTES_MAX;
    assert_int_equal(status_of(ask("GET /made HTTP/1.1\r\nHost: x\r\n\r\n")), 200);
    made_bytes = ADMIN_PAGE_BYTES_MAX + 1;
    assert_int_equal(status_of(ask("GET /made HTTP/1.1\r\nHost: x\r\n\r\n")), 500);
    assert_int_equal(admin.answers[ADMIN_FAILED], 1);
}

static void a_newcomer_gets_the_oldest_place(void **state)
{
    (void)state;
    int clients[ADMIN_CONNECTIONS];
    for (size_t index = 0; index < ADMIN_CONNECTIONS; index++) {
        clients[index] = connect_client();
        settle();
        now_ms++;
    }
    assert_int_equal(used_count(), ADMIN_CONNECTIONS);
    int newcomer = connect_client();
    say(newcomer, "GET /made HTTP/1.1\r\nHost: x\r\n\r\n", 31);
    settle();
    assert_int_equal(recv(clients[0], answer, 10, 0), 0); /* it gave its place */
    assert_int_equal(recv(clients[1], answer, 10, 0), -1);
    assert_true(recv(newcomer, answer, 100, 0) > 12);
    assert_int_equal(status_of(answer), 200);
    assert_int_equal(admin.evicted_count, 1);
    for (size_t index = 0; index < ADMIN_CONNECTIONS; index++) {
        (void)close(clients[index]);
    }
    (void)close(newcomer);
    settle();
    assert_int_equal(used_count(), 0);
}

static void out_of_handles_it_waits_and_goes_on(void **state)
{
    (void)state;
    accept_fails = true;
    int client = connect_client();
    say(client, "GET /made HTTP/1.1\r\nHost: x\r\n\r\n", 31);
    settle();
    assert_int_equal(used_count(), 0);
    assert_int_equal(turn(), now_ms + ADMIN_ACCEPT_PAUSE_MS);
    accept_fails = false;
    later(ADMIN_ACCEPT_PAUSE_MS);
    (void)read_all(client);
    assert_int_equal(status_of(answer), 200);
}

static void who_goes_away_leaves_nothing(void **state)
{
    (void)state;
    static const char request[] = "GET /large HTTP/1.1\r\nHost: x\r\n\r\n";
    for (size_t bytes = 0; bytes < sizeof request; bytes += 8) {
        int client = connect_client();
        say(client, request, bytes);
        settle();
        /* With a reset, not with a good end. */
        assert_int_equal(setsockopt(client, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger)), 0);
        (void)close(client);
        settle();
        assert_int_equal(used_count(), 0);
    }
}

static void switched_off_it_takes_nothing(void **state)
{
    (void)state;
    static struct admin off;
    const struct admin_options options = {.port = &port, .log = &silent, .pages = pages, .page_count = 4};
    struct arena arena;
    arena_measure(&arena);
    admin_init(&off, &arena, &options, false);
    assert_int_equal(arena.used_bytes, 0);
    assert_int_equal(admin_turn(&off, now_ms), UINT64_MAX);
    assert_false(admin_local_address(&off, &address));
    admin_close(&off);
}

#define WITH_ADMIN(test) cmocka_unit_test_setup_teardown(test, open_admin, close_admin)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ADMIN(pages_are_answered),
        WITH_ADMIN(head_has_no_body),
        WITH_ADMIN(what_is_wrong_is_said),
        WITH_ADMIN(a_head_that_is_too_long_is_431),
        WITH_ADMIN(a_request_may_come_in_pieces_and_with_more_behind_it),
        WITH_ADMIN(the_slow_are_ended),
        WITH_ADMIN(who_does_not_read_is_ended),
        WITH_ADMIN(a_large_answer_arrives_whole),
        WITH_ADMIN(a_page_that_does_not_fit_is_500),
        WITH_ADMIN(a_newcomer_gets_the_oldest_place),
        WITH_ADMIN(out_of_handles_it_waits_and_goes_on),
        WITH_ADMIN(who_goes_away_leaves_nothing),
        WITH_ADMIN(switched_off_it_takes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
