/*
 * A strict check of UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF, no NUL inside.
 * Thread: pure.
 */
#ifndef DRAFT_BASE_UTF8_H
#define DRAFT_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* True when all `length` bytes are valid UTF-8 without NUL. Otherwise *bad (may be NULL) is the offset of the first
 * byte at fault. */
bool draft_utf8_valid(const char *text, size_t length, size_t *bad);

#endif
