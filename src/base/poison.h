/* SPDX-License-Identifier: MIT */
/* Calls that do not compile in our own code: unbounded string writers, hidden state, and the heap (all memory comes
 * from the arena): the functions of C, POSIX and glibc that give memory to be freed. Not on the list are scandir and
 * get_current_dir_name, whose headers the port includes later, and what has a call of its own to give its memory back,
 * as opendir and getaddrinfo, which the port uses. The build puts this header before every file of ours; the headers
 * that declare these names come first, because a poisoned name may not be seen again. */
#ifndef POSTERN_BASE_POISON_H
#define POSTERN_BASE_POISON_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

/* A library's header that names them too, for the one file that uses it (its CMakeLists.txt says so). */
#ifdef POSTERN_BEFORE_POISON
#include POSTERN_BEFORE_POISON
#endif

/* Macros where GNU's extensions are on. */
#undef alloca
#undef strdupa
#undef strndupa
#pragma GCC poison strcpy strcat sprintf vsprintf strtok strncpy strncat gets alloca
#pragma GCC poison malloc calloc realloc reallocarray free cfree strdup strndup strdupa strndupa wcsdup
#pragma GCC poison aligned_alloc posix_memalign memalign valloc pvalloc
#pragma GCC poison asprintf vasprintf getline getdelim open_memstream open_wmemstream fmemopen
#pragma GCC poison tempnam canonicalize_file_name

#endif
