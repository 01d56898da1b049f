#include "status.h"

#include <stdarg.h>
#include <stdio.h>

bool draft_status_fail(struct draft_status *st, enum draft_status_code code, const char *format, ...)
{
    if (st->code != DRAFT_STATUS_OK)
        return false;
    st->code = code;
    va_list args;
    va_start(args, format);
    vsnprintf(st->message, sizeof st->message, format, args);
    va_end(args);
    return false;
}

static enum draft_status_code from_code(enum draft_code code)
{
    switch (code) {
    case DRAFT_OK:
        return DRAFT_STATUS_OK;
    case DRAFT_INVALID_ARGUMENT:
        return DRAFT_STATUS_INVALID_ARGUMENT;
    case DRAFT_NOT_FOUND:
        return DRAFT_STATUS_NOT_FOUND;
    case DRAFT_ALREADY_EXISTS:
        return DRAFT_STATUS_ALREADY_EXISTS;
    case DRAFT_FAILED_PRECONDITION:
        return DRAFT_STATUS_FAILED_PRECONDITION;
    case DRAFT_RESOURCE_EXHAUSTED:
    case DRAFT_OUT_OF_MEMORY:
    case DRAFT_DISK_FULL:
        return DRAFT_STATUS_RESOURCE_EXHAUSTED;
    case DRAFT_DATA_LOSS:
        return DRAFT_STATUS_DATA_LOSS;
    case DRAFT_CANCELLED:
        return DRAFT_STATUS_CANCELLED;
    case DRAFT_UNAVAILABLE:
        return DRAFT_STATUS_UNAVAILABLE;
    case DRAFT_IO:
    case DRAFT_NON_FINITE:
    case DRAFT_INTERNAL:
    case DRAFT_DEVICE_LOST:
        return DRAFT_STATUS_INTERNAL;
    }
    return DRAFT_STATUS_UNKNOWN;
}

bool draft_status_take(struct draft_status *st, const struct draft_error *err)
{
    if (st->code == DRAFT_STATUS_OK && err->code != DRAFT_OK) {
        snprintf(st->field, sizeof st->field, "%s", err->field);
        draft_status_fail(st, from_code(err->code), "%s", err->message);
    }
    return false;
}

enum draft_exit draft_status_exit(const struct draft_status *st)
{
    switch (st->code) {
    case DRAFT_STATUS_OK:
        return DRAFT_EXIT_OK;
    case DRAFT_STATUS_CANCELLED:
        return DRAFT_EXIT_INTERRUPTED;
    case DRAFT_STATUS_INVALID_ARGUMENT:
    case DRAFT_STATUS_OUT_OF_RANGE:
        return DRAFT_EXIT_USAGE;
    case DRAFT_STATUS_NOT_FOUND:
        return DRAFT_EXIT_NOT_FOUND;
    case DRAFT_STATUS_PERMISSION_DENIED:
    case DRAFT_STATUS_UNAUTHENTICATED:
        return DRAFT_EXIT_DENIED;
    case DRAFT_STATUS_ALREADY_EXISTS:
    case DRAFT_STATUS_FAILED_PRECONDITION:
    case DRAFT_STATUS_ABORTED:
        return DRAFT_EXIT_PRECONDITION;
    case DRAFT_STATUS_RESOURCE_EXHAUSTED:
        return DRAFT_EXIT_EXHAUSTED;
    case DRAFT_STATUS_UNAVAILABLE:
        return DRAFT_EXIT_UNREACHABLE;
    case DRAFT_STATUS_DEADLINE_EXCEEDED:
        return DRAFT_EXIT_DEADLINE;
    case DRAFT_STATUS_UNKNOWN:
    case DRAFT_STATUS_UNIMPLEMENTED:
    case DRAFT_STATUS_INTERNAL:
    case DRAFT_STATUS_DATA_LOSS:
        return DRAFT_EXIT_FAILED;
    }
    return DRAFT_EXIT_FAILED;
}
