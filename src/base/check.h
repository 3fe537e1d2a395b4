/* SPDX-License-Identifier: MIT */
/* An assertion that stays on in release builds: a programmer's mistake ends the program at once, with its place.
 * An operating error (a full disk, a lost link, a client's bad byte) is never a CHECK; it is a value.
 *
 * Memory: none. Thread: any. */
#ifndef POSTERN_BASE_CHECK_H
#define POSTERN_BASE_CHECK_H

_Noreturn void check_failed(const char *condition, const char *file, int line);

#define CHECK(condition) ((condition) ? (void)0 : check_failed(#condition, __FILE__, __LINE__))

#endif
