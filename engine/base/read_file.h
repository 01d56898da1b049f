/*
 * The whole of a small file at once. Only regular files: a FIFO or a device in the place of one is refused, never
 * waited for. Thread: pure.
 */
#ifndef DRAFT_BASE_READ_FILE_H
#define DRAFT_BASE_READ_FILE_H

#include <stddef.h>

#include "base/error.h"

/* malloc'd, with a NUL behind its *length bytes; NULL with a sentence when it is longer than `limit` bytes or cannot be
 * read. */
char *draft_read_file(const char *path, size_t limit, size_t *length, struct draft_error *err);

#endif
