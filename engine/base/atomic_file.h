/*
 * Files that are there whole or not at all: written under a temporary name beside the target, fsync, rename, fsync of
 * the folder. A failure at any point leaves the old file as it was and no temporary behind.
 *
 * Ownership: begin allocates; commit or abort frees. Thread: one file, one thread.
 */
#ifndef DRAFT_BASE_ATOMIC_FILE_H
#define DRAFT_BASE_ATOMIC_FILE_H

#include <stddef.h>

#include "base/error.h"

struct draft_atomic_file;

struct draft_atomic_file *draft_atomic_begin(const char *path, struct draft_error *err); /* mode 0644 less the umask */
/* Whether it could begin, before the work that would be lost: nothing is left behind. */
bool draft_atomic_possible(const char *path, struct draft_error *err);
/* After a failure later writes do nothing and commit fails with the first reason. */
void draft_atomic_write(struct draft_atomic_file *file, const void *data, size_t bytes);
bool draft_atomic_commit(struct draft_atomic_file *file, struct draft_error *err);
void draft_atomic_abort(struct draft_atomic_file *file); /* NULL is fine */

/* The whole of it for one buffer. */
bool draft_atomic_write_file(const char *path, const void *data, size_t bytes, struct draft_error *err);

#endif
