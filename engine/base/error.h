/*
 * One error value for every layer.
 *
 * A function that can fail returns bool (or a pointer) and takes `struct draft_error *err` last. On success err is
 * untouched. The first failure wins: draft_fail() on an error that is already set changes nothing. Layers above add
 * where they were: draft_error_prefix(err, "step %d: ", step). Messages say fact first, in lower case, without a full
 * stop: what, why, and what to do. A programmer's mistake is an assert, never an error value.
 *
 * Thread: an error value belongs to its caller; no global state.
 */
#ifndef DRAFT_BASE_ERROR_H
#define DRAFT_BASE_ERROR_H

#include <stdbool.h>

enum draft_code {
    DRAFT_OK = 0,
    DRAFT_INVALID_ARGUMENT, /* the request or a file it names is wrong; the same call can never succeed */
    DRAFT_NOT_FOUND,        /* a file, job, checkpoint that is not there */
    DRAFT_ALREADY_EXISTS,
    DRAFT_FAILED_PRECONDITION, /* right in itself, wrong in this state */
    DRAFT_RESOURCE_EXHAUSTED,  /* queue full, limit reached */
    DRAFT_OUT_OF_MEMORY,
    DRAFT_DISK_FULL,
    DRAFT_IO,          /* any other failed read or write */
    DRAFT_NON_FINITE,  /* NaN or infinity where a number was needed */
    DRAFT_DATA_LOSS,   /* a checksum that does not match, a corrupt database */
    DRAFT_CANCELLED,   /* stopped on request */
    DRAFT_UNAVAILABLE, /* not now; the same call may succeed later */
    DRAFT_INTERNAL,    /* our own mistake */
    DRAFT_DEVICE_LOST, /* a GPU's work in this process is lost; another process may go on */
};

struct draft_error {
    enum draft_code code;
    char message[1024]; /* for the user, UTF-8 */
    char field[96];     /* the request's field at fault ("spec.optimizer.lr"), or "" */
};

/* Sets err (may be NULL) unless it is set already. Always returns false, so `return draft_fail(...)` reads well. */
bool draft_fail(struct draft_error *err, enum draft_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same, naming the field of the request at fault. */
bool draft_fail_field(struct draft_error *err, enum draft_code code, const char *field, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The same from errno: appends ": " and the system's words; ENOSPC and EDQUOT become DRAFT_DISK_FULL. */
bool draft_fail_errno(struct draft_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts words before the message of a set error. Nothing happens when err is NULL or not set. */
void draft_error_prefix(struct draft_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Names the request's field at fault where the layer below, which knows files and not requests, did not; not where
 * memory, a cancellation or the like is the reason. Always returns false. */
bool draft_error_blame(struct draft_error *err, const char *field);

/* "invalid argument", "disk full" ... for logs and reasons. */
const char *draft_code_name(enum draft_code code);

#endif
