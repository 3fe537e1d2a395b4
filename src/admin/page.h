/* SPDX-License-Identifier: MIT */
/* The live page (page.html), made into an array by the build (embed.cmake). Memory: static. Thread: any. */
#ifndef POSTERN_ADMIN_PAGE_H
#define POSTERN_ADMIN_PAGE_H

#include <stddef.h>
#include <stdint.h>

extern const uint8_t page_html[];
extern const size_t page_html_bytes;

/* SHA-256 in base64 of its one style and its one script, so that its Content-Security-Policy lets these two run and
 * nothing else. */
extern const char page_style_hash[];
extern const char page_script_hash[];

#endif
