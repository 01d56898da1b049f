#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Keeps a message valid UTF-8 when the buffer cut it inside a character. */
static void drop_cut_character(char *text, size_t capacity)
{
    size_t length = strlen(text);
    if (length + 1 < capacity)
        return;
    size_t start = length;
    while (start > 0 && ((unsigned char)text[start - 1] & 0xC0) == 0x80)
        start--;
    if (start == 0)
        return;
    unsigned char lead = (unsigned char)text[start - 1];
    size_t expected = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    if (length - (start - 1) < expected)
        text[start - 1] = '\0';
}

static bool set(struct draft_error *err, enum draft_code code, const char *field, const char *format, va_list arguments)
{
    if (err == NULL || err->code != DRAFT_OK)
        return false;
    err->code = code;
    snprintf(err->field, sizeof err->field, "%s", field);
    vsnprintf(err->message, sizeof err->message, format, arguments);
    drop_cut_character(err->message, sizeof err->message);
    return false;
}

bool draft_fail(struct draft_error *err, enum draft_code code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    set(err, code, "", format, arguments);
    va_end(arguments);
    return false;
}

bool draft_fail_field(struct draft_error *err, enum draft_code code, const char *field, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    set(err, code, field, format, arguments);
    va_end(arguments);
    return false;
}

static enum draft_code code_of_errno(int number)
{
    switch (number) {
    case ENOSPC:
    case EDQUOT:
        return DRAFT_DISK_FULL;
    case ENOENT:
    case ENOTDIR:
        return DRAFT_NOT_FOUND;
    case ENOMEM:
        return DRAFT_OUT_OF_MEMORY;
    default:
        return DRAFT_IO;
    }
}

bool draft_fail_errno(struct draft_error *err, const char *format, ...)
{
    int number = errno;
    if (err == NULL || err->code != DRAFT_OK)
        return false;
    va_list arguments;
    va_start(arguments, format);
    set(err, code_of_errno(number), "", format, arguments);
    va_end(arguments);
    size_t length = strlen(err->message);
    char words[128]; /* GNU strerror_r: thread-safe, may return a constant instead of the buffer */
    snprintf(err->message + length, sizeof err->message - length, ": %s", strerror_r(number, words, sizeof words));
    errno = number;
    return false;
}

void draft_error_prefix(struct draft_error *err, const char *format, ...)
{
    if (err == NULL || err->code == DRAFT_OK)
        return;
    char joined[sizeof err->message];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(joined, sizeof joined, format, arguments);
    va_end(arguments);
    if (length >= 0 && (size_t)length < sizeof joined)
        snprintf(joined + length, sizeof joined - (size_t)length, "%s", err->message);
    drop_cut_character(joined, sizeof joined);
    memcpy(err->message, joined, sizeof joined);
}

bool draft_error_blame(struct draft_error *err, const char *field)
{
    if (err == NULL || err->field[0] != '\0')
        return false;
    switch (err->code) {
    case DRAFT_INVALID_ARGUMENT:
    case DRAFT_NOT_FOUND:
    case DRAFT_FAILED_PRECONDITION:
    case DRAFT_IO:
    case DRAFT_DATA_LOSS:
        snprintf(err->field, sizeof err->field, "%s", field);
        return false;
    default: /* the machine's fault, or nobody's */
        return false;
    }
}

const char *draft_code_name(enum draft_code code)
{
    static const char *const names[] = {
        [DRAFT_OK] = "ok",
        [DRAFT_INVALID_ARGUMENT] = "invalid argument",
        [DRAFT_NOT_FOUND] = "not found",
        [DRAFT_ALREADY_EXISTS] = "already exists",
        [DRAFT_FAILED_PRECONDITION] = "failed precondition",
        [DRAFT_RESOURCE_EXHAUSTED] = "resource exhausted",
        [DRAFT_OUT_OF_MEMORY] = "out of memory",
        [DRAFT_DISK_FULL] = "disk full",
        [DRAFT_IO] = "read or write failed",
        [DRAFT_NON_FINITE] = "not finite",
        [DRAFT_DATA_LOSS] = "data loss",
        [DRAFT_CANCELLED] = "cancelled",
        [DRAFT_UNAVAILABLE] = "unavailable",
        [DRAFT_INTERNAL] = "internal error",
        [DRAFT_DEVICE_LOST] = "device lost",
    };
    if ((int)code < 0 || code > DRAFT_DEVICE_LOST)
        return "unknown";
    return names[code];
}
