/*
 * The worker's end of the line to draftd: reports go out on the engine's thread, commands come in on a thread of their
 * own, so that a Stop sent in the middle of a training step is seen at the next denoising step, and the daemon's death
 * ends this process at once even while it computes.
 */
#ifndef DRAFTD_WORKER_LINE_H
#define DRAFTD_WORKER_LINE_H

#include "base/error.h"
#include "worker.pb-c.h"

struct draftd_line;

/* Stronger wishes have larger values; a wish never becomes weaker. */
enum draftd_stop { DRAFTD_STOP_NO, DRAFTD_STOP_SAVE, DRAFTD_STOP_NOW };

/* Takes `fd` over and starts the reading thread. */
struct draftd_line *draftd_line_open(int fd, struct draft_error *err);

/* The next command other than Stop, the caller's to free with draftd__worker__command__free_unpacked(command, NULL).
 * wait: blocks until there is one (or until a Stop: NULL). */
Draftd__Worker__Command *draftd_line_next(struct draftd_line *line, bool wait);
enum draftd_stop draftd_line_stop(struct draftd_line *line);

/* Sends one report. A daemon that is gone ends the process: there is nobody left to work for. */
void draftd_line_send(struct draftd_line *line, const Draftd__Worker__Report *report);

/* Last frame of every task: code and words of `err` (NULL: all is done). */
void draftd_line_finish(struct draftd_line *line, const struct draft_error *err, bool stopped);

#endif
