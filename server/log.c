#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/utf8.h"

static struct {
    bool json;
    enum draftd_log_level least;
} setup = {.json = false, .least = DRAFTD_INFO};

void draftd_log_setup(bool json, bool verbose)
{
    setup.json = json;
    setup.least = verbose ? DRAFTD_DEBUG : DRAFTD_INFO;
}

/* JSON's escapes serve logfmt too. Bytes that are no UTF-8 never come here: sentences are checked where they enter. */
static size_t quote(char *out, size_t capacity, const char *text)
{
    size_t n = 0;
    out[n++] = '"';
    for (const char *p = text; *p && n + 8 < capacity; p++) {
        unsigned char c = (unsigned char)*p;
        if (c == '"' || c == '\\') {
            out[n++] = '\\';
            out[n++] = (char)c;
        } else if (c == '\n') {
            out[n++] = '\\';
            out[n++] = 'n';
        } else if (c < 0x20 || c == 0x7f) {
            n += (size_t)snprintf(out + n, 7, "\\u%04x", c);
        } else {
            out[n++] = (char)c;
        }
    }
    out[n++] = '"';
    return n;
}

void draftd_log(enum draftd_log_level level, const char *about, const char *format, ...)
{
    static const char *const names[] = {"debug", "info", "warning", "error"};
    if (level < setup.least)
        return;
    char message[1536];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    size_t bad;
    if (length >= (int)sizeof message && !draft_utf8_valid(message, sizeof message - 1, &bad))
        message[bad] = '\0'; /* a character cut by the limit */

    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm utc;
    gmtime_r(&now.tv_sec, &utc);
    char time[40];
    size_t used = strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(time + used, sizeof time - used, ".%03ldZ", now.tv_nsec / 1000000);

    char line[4096];
    size_t n = 0;
    if (setup.json) {
        n += (size_t)snprintf(line, 256, "{\"time\":\"%s\",\"level\":\"%s\",", time, names[level]);
        if (about)
            n += (size_t)snprintf(line + n, 128, "\"job\":\"%.60s\",", about);
        n += (size_t)snprintf(line + n, 16, "\"msg\":");
        n += quote(line + n, sizeof line - n - 4, message);
        line[n++] = '}';
    } else {
        n += (size_t)snprintf(line, 256, "time=%s level=%s ", time, names[level]);
        if (about)
            n += (size_t)snprintf(line + n, 128, "job=%.60s ", about);
        n += (size_t)snprintf(line + n, 16, "msg=");
        n += quote(line + n, sizeof line - n - 4, message);
    }
    line[n++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, n); /* one write, so that lines of threads do not mix */
    (void)written;                                   /* a log that cannot be written must stop nothing */
}
