/* SPDX-License-Identifier: MIT */
/* What an error of PostgreSQL means for a batch, by its SQLSTATE (PostgreSQL manual, appendix A).
 * Pure. Memory: none. Thread: any one. */
#ifndef POSTERN_PROCESSOR_SQLSTATE_H
#define POSTERN_PROCESSOR_SQLSTATE_H

enum sqlstate_kind {
    SQLSTATE_DATA,       /* a value of a row cannot be stored: 22, 54 */
    SQLSTATE_CONSTRAINT, /* a rule of the database refuses a row: 23, 44, a trigger's RAISE (P0001) */
    SQLSTATE_CONTENTION, /* the same statement may pass in a moment: 40, 55P03 */
    SQLSTATE_TIMEOUT,    /* the same, or a smaller one: 57014 */
    SQLSTATE_SCHEMA,     /* tables, columns or keys are not what the migrations make: 42, 3F000, 0A000 */
    SQLSTATE_OTHER       /* the server or the connection: all else */
};

/* `sqlstate` is five characters; anything else, NULL too, is SQLSTATE_OTHER. */
enum sqlstate_kind sqlstate_kind(const char *sqlstate);

#endif
