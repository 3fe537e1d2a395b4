/* SPDX-License-Identifier: MIT */
/* Whether a call ends the program, as a CHECK that does not hold must. */
#ifndef POSTERN_TESTS_ABORTS_H
#define POSTERN_TESTS_ABORTS_H

#include <stdbool.h>

/* Calls `mistake` in a child process, without its standard error; true when it died of abort(). */
bool aborts(void (*mistake)(void *argument), void *argument);

#endif
