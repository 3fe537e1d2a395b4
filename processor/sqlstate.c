/* SPDX-License-Identifier: MIT */
/* The class (two characters) decides, but for the codes that stand in the wrong class for our purpose. An error that
 * is taken for the rows' fault by mistake dead-letters good messages, one that is taken for the server's by mistake
 * stops the queue; where in doubt it is the server's, because nothing is lost then. */
#include "sqlstate.h"

#include <stddef.h>
#include <string.h>

struct row {
    const char *prefix;
    enum sqlstate_kind kind;
};

/* The first match counts. */
static const struct row rows[] = {
    {"2200H", SQLSTATE_OTHER},      /* the identity's sequence is used up */
    {"42501", SQLSTATE_OTHER},      /* no privilege */
    {"55P03", SQLSTATE_CONTENTION}, /* lock not available */
    {"57014", SQLSTATE_TIMEOUT},    /* statement_timeout, or an administrator's cancel */
    {"P0001", SQLSTATE_CONSTRAINT}, /* RAISE in a trigger */
    {"3F000", SQLSTATE_SCHEMA},     /* no such schema */
    {"0A000", SQLSTATE_SCHEMA},     /* a prepared statement's columns have changed */
    {"22", SQLSTATE_DATA},          {"54", SQLSTATE_DATA},       {"23", SQLSTATE_CONSTRAINT},
    {"44", SQLSTATE_CONSTRAINT},    {"40", SQLSTATE_CONTENTION}, {"42", SQLSTATE_SCHEMA},
};

enum sqlstate_kind sqlstate_kind(const char *sqlstate)
{
    if (sqlstate == NULL || strlen(sqlstate) != 5) {
        return SQLSTATE_OTHER;
    }
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strncmp(sqlstate, rows[i].prefix, strlen(rows[i].prefix)) == 0) {
            return rows[i].kind;
        }
    }
    return SQLSTATE_OTHER;
}
