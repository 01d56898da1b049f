/*
 * What became of something the client tried: a call to the daemon or a thing done here. The codes are gRPC's numbers,
 * so that a server's refusal and our own look alike, and each maps to one documented exit code.
 *
 * The first failure wins, as with struct draft_error. Thread: belongs to its caller.
 */
#ifndef DRAFT_CLIENT_STATUS_H
#define DRAFT_CLIENT_STATUS_H

#include <stdbool.h>

#include "base/error.h"

enum draft_status_code {
    DRAFT_STATUS_OK = 0,
    DRAFT_STATUS_CANCELLED = 1,
    DRAFT_STATUS_UNKNOWN = 2,
    DRAFT_STATUS_INVALID_ARGUMENT = 3,
    DRAFT_STATUS_DEADLINE_EXCEEDED = 4,
    DRAFT_STATUS_NOT_FOUND = 5,
    DRAFT_STATUS_ALREADY_EXISTS = 6,
    DRAFT_STATUS_PERMISSION_DENIED = 7,
    DRAFT_STATUS_RESOURCE_EXHAUSTED = 8,
    DRAFT_STATUS_FAILED_PRECONDITION = 9,
    DRAFT_STATUS_ABORTED = 10,
    DRAFT_STATUS_OUT_OF_RANGE = 11,
    DRAFT_STATUS_UNIMPLEMENTED = 12,
    DRAFT_STATUS_INTERNAL = 13,
    DRAFT_STATUS_UNAVAILABLE = 14,
    DRAFT_STATUS_DATA_LOSS = 15,
    DRAFT_STATUS_UNAUTHENTICATED = 16,
};

/* The program's exit codes; `draft help exit-codes` prints this table. */
enum draft_exit {
    DRAFT_EXIT_OK = 0,
    DRAFT_EXIT_FAILED = 1,
    DRAFT_EXIT_USAGE = 2,
    DRAFT_EXIT_NOT_FOUND = 3,
    DRAFT_EXIT_DENIED = 4,
    DRAFT_EXIT_PRECONDITION = 5,
    DRAFT_EXIT_EXHAUSTED = 6,
    DRAFT_EXIT_UNREACHABLE = 7,
    DRAFT_EXIT_DEADLINE = 8,
    DRAFT_EXIT_JOB_CANCELLED = 9,
    DRAFT_EXIT_INTERRUPTED = 130,
};

struct draft_status {
    enum draft_status_code code;
    char message[1100]; /* one sentence for the user, UTF-8 */
    char field[128];    /* the request's field at fault ("spec.length.steps"), or "" */
    char reason[64];    /* the server's machine-readable reason (google.rpc.ErrorInfo), or "" */
};

/* Sets st unless it is set already; always returns false. */
bool draft_status_fail(struct draft_status *st, enum draft_status_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Takes over a set draft_error; always returns false. */
bool draft_status_take(struct draft_status *st, const struct draft_error *err);

enum draft_exit draft_status_exit(const struct draft_status *st);

#endif
