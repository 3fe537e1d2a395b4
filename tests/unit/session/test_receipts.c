/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "receipts.h"

static void expect(const char *query, int mask)
{
    uint8_t got = 0xff;
    assert_true(receipts_parse(span_text(query), &got));
    assert_int_equal(got, mask);
}

static void reads_what_was_chosen(void **state)
{
    (void)state;
    expect("", RECEIPTS_DEFAULT);
    expect("token=x", RECEIPTS_DEFAULT);
    expect("receipt=stored", RECEIPTS_DEFAULT);
    expect("receipts=none", 0);
    expect("receipts=stored", RECEIPTS_STORED);
    expect("receipts=stored,queued", RECEIPTS_STORED | RECEIPTS_QUEUED);
    expect("a=b&receipts=accepted%2Cqueued%2cstored&c", RECEIPTS_ACCEPTED | RECEIPTS_QUEUED | RECEIPTS_STORED);
    expect("receipts=none&receipts=queued", RECEIPTS_QUEUED);
    expect("&&", RECEIPTS_DEFAULT);
}

static void refuses_what_it_does_not_know(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "receipts=",         "receipts=all",           "receipts=stored,",     "receipts=,stored",
        "receipts=Stored",   "receipts=none,queued",   "receipts=queued,none", "receipts=queued%2",
        "receipts=rejected", "receipts=stored queued",
    };
    for (size_t index = 0; index < sizeof wrong / sizeof wrong[0]; index++) {
        uint8_t mask;
        if (receipts_parse(span_text(wrong[index]), &mask)) {
            fail_msg("%s was taken", wrong[index]);
        }
    }
}

static void bad_news_always_comes(void **state)
{
    (void)state;
    assert_true(receipts_want(0, RECEIPT_REJECTED));
    assert_true(receipts_want(0, RECEIPT_DEAD));
    assert_false(receipts_want(0, RECEIPT_STORED));
    assert_false(receipts_want(RECEIPTS_QUEUED, RECEIPT_STORED));
    assert_true(receipts_want(RECEIPTS_QUEUED, RECEIPT_QUEUED));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_was_chosen),
        cmocka_unit_test(refuses_what_it_does_not_know),
        cmocka_unit_test(bad_news_always_comes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
