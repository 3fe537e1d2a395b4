/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base64.h"
#include "digest.h"

static void assert_sha1(struct span bytes, const char *hex)
{
    uint8_t digest[DIGEST_SHA1_BYTES];
    char text[2 * DIGEST_SHA1_BYTES + 1];
    digest_sha1(bytes, digest);
    for (size_t at = 0; at < sizeof digest; at++) {
        static const char digits[] = "0123456789abcdef";
        text[2 * at] = digits[digest[at] >> 4];
        text[2 * at + 1] = digits[digest[at] & 15];
    }
    text[sizeof text - 1] = '\0';
    assert_string_equal(text, hex);
}

/* FIPS 180-4's examples. */
static void test_known_digests(void **state)
{
    (void)state;
    static uint8_t million[1000000];
    memset(million, 'a', sizeof million);
    assert_sha1(span_of(NULL, 0), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    assert_sha1(span_text("abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
    assert_sha1(span_text("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
                "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
    assert_sha1(span_of(million, sizeof million), "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
}

/* RFC 6455 section 1.3. */
static void test_the_handshake_of_the_rfc(void **state)
{
    (void)state;
    uint8_t digest[DIGEST_SHA1_BYTES];
    char text[BASE64_TEXT_BYTES(DIGEST_SHA1_BYTES)];
    digest_sha1(span_text("dGhlIHNhbXBsZSBub25jZQ==258EAFA5-E914-47DA-95CA-C5AB0DC85B11"), digest);
    base64_encode(span_of(digest, sizeof digest), text);
    assert_memory_equal(text, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", sizeof text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_digests),
        cmocka_unit_test(test_the_handshake_of_the_rfc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
