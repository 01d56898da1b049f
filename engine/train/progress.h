/*
 * The heartbeat of long work: a phase, how far it is, and the question whether to go on. The graph asks the same
 * question between blocks, so that a single denoising step of a big model can be stopped too.
 */
#ifndef DRAFT_TRAIN_PROGRESS_H
#define DRAFT_TRAIN_PROGRESS_H

#include "engine.h"

struct draft_progress {
    const struct draft_watch *watch; /* NULL, or without a function: nobody watches */
    enum draft_phase phase;
    int64_t done, total;
};

/* Each tells the watcher and returns false when the work is to stop. NULL progress: true. */
bool draft_progress_set(struct draft_progress *progress, enum draft_phase phase, int64_t done, int64_t total);
bool draft_progress_advance(struct draft_progress *progress);
/* For draft_graph.keep_going; context is a struct draft_progress. */
bool draft_progress_keep_going(void *context);

double draft_clock_seconds(void); /* monotonic */

#endif
