/* SPDX-License-Identifier: MIT */
/* Calls that do not compile in our own code: unbounded string writers, hidden state, and the heap (all memory comes
 * from the arena). The build puts this header before every file of ours; the headers that declare these names come
 * first, because a poisoned name may not be seen again. */
#ifndef POSTERN_BASE_POISON_H
#define POSTERN_BASE_POISON_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A library's header that names them too, for the one file that uses it (its CMakeLists.txt says so). */
#ifdef POSTERN_BEFORE_POISON
#include POSTERN_BEFORE_POISON
#endif

#undef alloca /* a macro where GNU's extensions are on */
#pragma GCC poison strcpy strcat sprintf vsprintf strtok strncpy strncat gets alloca
#pragma GCC poison malloc calloc realloc free strdup strndup

#endif
