/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "guard_page.h"
#include "text.h"

enum { ROOM_BYTES = 1024 };

static char room[ROOM_BYTES];

static void assert_text(const struct text *text, const char *expected)
{
    assert_int_equal(text->used_bytes, strlen(expected));
    assert_memory_equal(text->data, expected, text->used_bytes);
}

static void test_appends_pieces(void **state)
{
    (void)state;
    struct text text = text_in(room, sizeof room);
    text_string(&text, "ab");
    text_char(&text, 'c');
    text_bytes(&text, span_of("d\0e", 3));
    text_bytes(&text, span_of(NULL, 0));
    text_u64(&text, 7);
    assert_int_equal(text.used_bytes, 7);
    assert_memory_equal(text.data, "abcd\0e7", 7);
    assert_false(text.truncated);
    assert_true(span_equal(text_span(&text), span_of("abcd\0e7", 7)));
}

static void test_a_piece_that_does_not_fit_is_left_out_whole(void **state)
{
    (void)state;
    struct text text = text_in(room, 4);
    memset(room, '#', sizeof room);
    text_string(&text, "abc");
    text_string(&text, "de");
    assert_true(text.truncated);
    assert_text(&text, "abc");
    text_u64(&text, 10);
    text_i64(&text, -1);
    text_rfc3339(&text, 0);
    text_json_string(&text, span_text(""));
    assert_text(&text, "abc");
    text_char(&text, 'f');
    text_char(&text, 'g');
    assert_text(&text, "abcf");
    assert_true(text.truncated);
    assert_int_equal(room[4], '#');
}

static void test_a_piece_that_just_fits_is_taken(void **state)
{
    (void)state;
    struct text text = text_in(room, 6);
    text_string(&text, "abc");
    text_u64(&text, 123);
    assert_text(&text, "abc123");
    text_bytes(&text, span_of(NULL, 0));
    assert_false(text.truncated);
}

static void assert_u64(uint64_t value)
{
    char expected[32];
    struct text text = text_in(room, sizeof room);
    snprintf(expected, sizeof expected, "%" PRIu64, value);
    text_u64(&text, value);
    assert_text(&text, expected);
}

static void assert_i64(int64_t value)
{
    char expected[32];
    struct text text = text_in(room, sizeof room);
    snprintf(expected, sizeof expected, "%" PRId64, value);
    text_i64(&text, value);
    assert_text(&text, expected);
}

static void test_numbers(void **state)
{
    (void)state;
    for (uint64_t value = 0; value < 20000; value++) {
        assert_u64(value);
    }
    for (uint64_t power = 1; power <= UINT64_MAX / 10; power *= 10) {
        assert_u64(power - 1);
        assert_u64(power);
        assert_u64(power * 9 + 1);
        assert_i64((int64_t)power);
        assert_i64(-(int64_t)power);
    }
    assert_u64(UINT64_MAX);
    assert_i64(0);
    assert_i64(INT64_MAX);
    assert_i64(INT64_MIN);
}

static void assert_time(int64_t unix_ms, const char *expected)
{
    struct text text = text_in(room, sizeof room);
    text_rfc3339(&text, unix_ms);
    assert_text(&text, expected);
}

static void test_times(void **state)
{
    (void)state;
    assert_time(0, "1970-01-01T00:00:00.000Z");
    assert_time(1, "1970-01-01T00:00:00.001Z");
    assert_time(951782400000, "2000-02-29T00:00:00.000Z");
    assert_time(1795418471839, "2026-11-23T07:21:11.839Z");
    assert_time(2147483648000, "2038-01-19T03:14:08.000Z");
    assert_time(4107542399999, "2100-02-28T23:59:59.999Z");
    assert_time(4107542400000, "2100-03-01T00:00:00.000Z");
    assert_time(253402300799999, "9999-12-31T23:59:59.999Z");
    /* Out of range: the nearest that can be written. */
    assert_time(-1, "1970-01-01T00:00:00.000Z");
    assert_time(INT64_MIN, "1970-01-01T00:00:00.000Z");
    assert_time(253402300800000, "9999-12-31T23:59:59.999Z");
    assert_time(INT64_MAX, "9999-12-31T23:59:59.999Z");
}

/* Counts days as a wall calendar does, over more than one whole cycle of leap years. */
static void test_every_day_of_five_centuries(void **state)
{
    (void)state;
    static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int64_t day = 0;
    for (int year = 1970; year < 2470; year++) {
        bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        for (int month = 0; month < 12; month++) {
            int length = lengths[month] + (leap && month == 1);
            for (int date = 1; date <= length; date++, day++) {
                char expected[64];
                int second = (int)(day * 7919 % 86400);
                snprintf(expected, sizeof expected, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", year, month + 1, date,
                         second / 3600, second / 60 % 60, second % 60, (int)(day % 1000));
                assert_time(day * 86400000 + second * 1000 + day % 1000, expected);
            }
        }
    }
}

static void assert_json(struct span bytes, const char *expected)
{
    struct text text = text_in(room, sizeof room);
    text_json_string(&text, bytes);
    assert_text(&text, expected);
    assert_false(text.truncated);
    /* Exactly this much room is enough, and one byte less is not. */
    size_t needed = text.used_bytes;
    text = text_in(room, needed);
    text_json_string(&text, bytes);
    assert_text(&text, expected);
    memset(room, '#', sizeof room);
    text = text_in(room, needed - 1);
    text_json_string(&text, bytes);
    assert_true(text.truncated);
    assert_int_equal(text.used_bytes, 0);
    assert_int_equal(room[needed - 1], '#');
}

#define assert_json_text(text, expected) assert_json(span_of(text, sizeof(text) - 1), expected)

static void test_json_strings(void **state)
{
    (void)state;
    assert_json(span_of(NULL, 0), "\"\"");
    assert_json_text("plain", "\"plain\"");
    assert_json_text("exactly8", "\"exactly8\"");
    assert_json_text("a\"b\\c/d", "\"a\\\"b\\\\c/d\"");
    assert_json_text("\b\f\n\r\t\v", "\"\\b\\f\\n\\r\\t\\u000b\"");
    assert_json_text("\0\x01\x1f\x7f", "\"\\u0000\\u0001\\u001f\x7f\"");
    assert_json_text("gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x98\x80.",
                     "\"gr\xC3\xBC\xC3\x9F \xE2\x82\xAC \xF0\x9F\x98\x80.\"");
}

static void test_json_replaces_what_is_not_utf8(void **state)
{
    (void)state;
    assert_json_text("a\xFFz", "\"a\xEF\xBF\xBDz\"");
    assert_json_text("\xC0\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\"");
    assert_json_text("\xED\xA0\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");
    assert_json_text("\xE2\x82", "\"\xEF\xBF\xBD\xEF\xBF\xBD\"");
    assert_json_text("\xE2\x82"
                     "abcdefgh\xC3\xBC\xFF\xC3\xBC",
                     "\"\xEF\xBF\xBD\xEF\xBF\xBD"
                     "abcdefgh\xC3\xBC\xEF\xBF\xBD\xC3\xBC\"");
}

/* Every byte at every place of a run, so that no word of eight hides one. */
static void test_json_escapes_at_every_place(void **state)
{
    (void)state;
    struct guard_page guard;
    guard_page_open(&guard, 64);
    for (unsigned byte = 0; byte < 0x80; byte++) {
        char piece[8] = {(char)byte, '\0'};
        switch (byte) {
        case '"':
            strcpy(piece, "\\\"");
            break;
        case '\\':
            strcpy(piece, "\\\\");
            break;
        case '\b':
            strcpy(piece, "\\b");
            break;
        case '\f':
            strcpy(piece, "\\f");
            break;
        case '\n':
            strcpy(piece, "\\n");
            break;
        case '\r':
            strcpy(piece, "\\r");
            break;
        case '\t':
            strcpy(piece, "\\t");
            break;
        default:
            if (byte < 0x20) {
                snprintf(piece, sizeof piece, "\\u%04x", byte);
            }
        }
        for (size_t bytes = 1; bytes <= 20; bytes++) {
            for (size_t place = 0; place < bytes; place++) {
                char in[20];
                memset(in, 'x', sizeof in);
                in[place] = (char)byte;
                char expected[64] = "\"";
                memset(expected + 1, 'x', place);
                memcpy(expected + 1 + place, piece, strlen(piece));
                memset(expected + 1 + place + strlen(piece), 'x', bytes - place - 1);
                strcat(expected, "\"");
                assert_json(span_of(guard_page_put(&guard, in, bytes), bytes), expected);
            }
        }
    }
    guard_page_close(&guard);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_appends_pieces),
        cmocka_unit_test(test_a_piece_that_does_not_fit_is_left_out_whole),
        cmocka_unit_test(test_a_piece_that_just_fits_is_taken),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_every_day_of_five_centuries),
        cmocka_unit_test(test_json_strings),
        cmocka_unit_test(test_json_replaces_what_is_not_utf8),
        cmocka_unit_test(test_json_escapes_at_every_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
