/*
 * Fingerprints: XXH3-128 in its canonical (big-endian) hex form, as xxh128sum prints it. They find damage and changed
 * files; they are no defence against somebody who forges one.
 * Thread: pure functions.
 */
#ifndef DRAFT_BASE_CHECKSUM_H
#define DRAFT_BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { DRAFT_CHECKSUM_SIZE = 33 }; /* 32 hex digits and the NUL */

void draft_checksum_buffer(const void *data, size_t bytes, char hex[DRAFT_CHECKSUM_SIZE]);
/* Reads the file in pieces. *bytes (may be NULL) receives its size. Folders, sockets and the like are refused. */
bool draft_checksum_file(const char *path, char hex[DRAFT_CHECKSUM_SIZE], uint64_t *bytes, struct draft_error *err);

/* One fingerprint of many things: start, add each, finish. Free with finish; hex may be NULL to throw it away. */
struct draft_checksum;
struct draft_checksum *draft_checksum_start(void); /* NULL when memory is out */
void draft_checksum_add(struct draft_checksum *sum, const void *data, size_t bytes);
void draft_checksum_finish(struct draft_checksum *sum, char *hex);

#endif
