/* The fake worker's end of the line: frames of proto/worker.proto on fd 3. Whatever fails here ends the process. */
#ifndef FAKE_LINE_H
#define FAKE_LINE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "worker.pb-c.h"

void write_all(const void *data, size_t size);
void send_report(const Draftd__Worker__Report *report);

#define SEND(which, CASE, value)                                                                                       \
    do {                                                                                                               \
        Draftd__Worker__Report report_ = DRAFTD__WORKER__REPORT__INIT;                                                 \
        report_.kind_case = DRAFTD__WORKER__REPORT__KIND_##CASE;                                                       \
        report_.which = (value);                                                                                       \
        send_report(&report_);                                                                                         \
    } while (0)

/* The next command; without `wait` NULL when there is none now. The end of the line ends us. */
Draftd__Worker__Command *next_command(bool wait);

/* The last report, and the end. */
_Noreturn void finish(enum draft_code code, const char *message, bool stopped);
_Noreturn void finish_field(enum draft_code code, const char *message, const char *field);

/* fake_frames.c: 60 reports of every kind with numbers and words that nobody sane sends, damaged where `seed` is odd.
 */
_Noreturn void fuzz(unsigned seed, const Draftd__Worker__Train *task);

#endif
