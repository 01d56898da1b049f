/*
 * The daemon's log: one line an event on stderr, logfmt (time=... level=info job=job-3 msg="...") or JSON. Prompts
 * appear at debug level only: a log may be read by people who must not see them. Thread: any; a line is written whole.
 */
#ifndef DRAFTD_LOG_H
#define DRAFTD_LOG_H

#include <stdbool.h>

enum draftd_log_level { DRAFTD_DEBUG, DRAFTD_INFO, DRAFTD_WARNING, DRAFTD_ERROR };

/* Once, before the first thread. Until then: logfmt from info on. */
void draftd_log_setup(bool json, bool verbose);

/* `about` is the job or preview the line is about ("job-3"), or NULL. Without a full stop or a line feed. */
void draftd_log(enum draftd_log_level level, const char *about, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
