/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sqlstate.h"

static void each_error_has_its_kind(void **state)
{
    (void)state;
    static const struct {
        const char *sqlstate;
        enum sqlstate_kind kind;
    } rows[] = {
        {"22P02", SQLSTATE_DATA},       /* invalid_text_representation */
        {"22P05", SQLSTATE_DATA},       /* untranslatable_character */
        {"22021", SQLSTATE_DATA},       /* character_not_in_repertoire */
        {"22003", SQLSTATE_DATA},       /* numeric_value_out_of_range */
        {"54000", SQLSTATE_DATA},       /* program_limit_exceeded */
        {"2200H", SQLSTATE_OTHER},      /* sequence_generator_limit_exceeded: no row's fault */
        {"23502", SQLSTATE_CONSTRAINT}, /* not_null_violation */
        {"23503", SQLSTATE_CONSTRAINT}, /* foreign_key_violation */
        {"23505", SQLSTATE_CONSTRAINT}, /* unique_violation */
        {"23514", SQLSTATE_CONSTRAINT}, /* check_violation */
        {"44000", SQLSTATE_CONSTRAINT}, /* with_check_option_violation */
        {"P0001", SQLSTATE_CONSTRAINT}, /* raise_exception */
        {"P0002", SQLSTATE_OTHER},      {"40001", SQLSTATE_CONTENTION}, /* serialization_failure */
        {"40P01", SQLSTATE_CONTENTION},                                 /* deadlock_detected */
        {"55P03", SQLSTATE_CONTENTION},                                 /* lock_not_available */
        {"57014", SQLSTATE_TIMEOUT},                                    /* query_canceled */
        {"42P01", SQLSTATE_SCHEMA},                                     /* undefined_table */
        {"42703", SQLSTATE_SCHEMA},                                     /* undefined_column */
        {"42P10", SQLSTATE_SCHEMA},                                     /* no unique constraint for ON CONFLICT */
        {"3F000", SQLSTATE_SCHEMA},                                     /* invalid_schema_name */
        {"0A000", SQLSTATE_SCHEMA},                                     /* cached plan must not change result type */
        {"42501", SQLSTATE_OTHER},                                      /* insufficient_privilege */
        {"08006", SQLSTATE_OTHER},                                      /* connection_failure */
        {"25006", SQLSTATE_OTHER},                                      /* read_only_sql_transaction */
        {"28P01", SQLSTATE_OTHER},                                      /* invalid_password */
        {"3D000", SQLSTATE_OTHER},                                      /* invalid_catalog_name: no such database */
        {"53100", SQLSTATE_OTHER},                                      /* disk_full */
        {"53200", SQLSTATE_OTHER},                                      /* out_of_memory */
        {"53300", SQLSTATE_OTHER},                                      /* too_many_connections */
        {"57P01", SQLSTATE_OTHER},                                      /* admin_shutdown */
        {"57P03", SQLSTATE_OTHER},                                      /* cannot_connect_now */
        {"58030", SQLSTATE_OTHER},                                      /* io_error */
        {"XX000", SQLSTATE_OTHER},                                      /* internal_error */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (sqlstate_kind(rows[i].sqlstate) != rows[i].kind) {
            fail_msg("%s is %d, not %d", rows[i].sqlstate, sqlstate_kind(rows[i].sqlstate), rows[i].kind);
        }
    }
}

static void what_is_no_sqlstate_is_nobodys_fault(void **state)
{
    (void)state;
    assert_int_equal(sqlstate_kind(NULL), SQLSTATE_OTHER);
    assert_int_equal(sqlstate_kind(""), SQLSTATE_OTHER);
    assert_int_equal(sqlstate_kind("22"), SQLSTATE_OTHER);
    assert_int_equal(sqlstate_kind("22P021"), SQLSTATE_OTHER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_error_has_its_kind),
        cmocka_unit_test(what_is_no_sqlstate_is_nobodys_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
