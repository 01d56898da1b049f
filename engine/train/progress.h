/*
 * The heartbeat of long work: a phase, how far it is, and the question whether to go on. The graph asks the same
 * question between blocks, so that a single denoising step of a big model can be stopped too. Each beat also looks at
 * the process's memory, since the kernel keeps no peak of its anonymous part.
 */
#ifndef DRAFT_TRAIN_PROGRESS_H
#define DRAFT_TRAIN_PROGRESS_H

#include "engine.h"

struct draft_progress {
    const struct draft_watch *watch; /* NULL, or without a function: nobody watches */
    enum draft_phase phase;
    int64_t done, total;
    uint64_t peak_anonymous; /* bytes: the most that was seen */
    double looked;           /* when */
};

/* Each tells the watcher and returns false when the work is to stop. NULL progress: true. */
bool draft_progress_set(struct draft_progress *progress, enum draft_phase phase, int64_t done, int64_t total);
bool draft_progress_advance(struct draft_progress *progress);
/* For draft_graph.keep_going; context is a struct draft_progress. */
bool draft_progress_keep_going(void *context);

/* Looks now, whenever the last look was. Returns the peak in bytes. */
uint64_t draft_progress_peak_memory(struct draft_progress *progress);
/* Anonymous memory that this process holds now, in bytes: what no file backs (proc(5): RssAnon). 0: unknown. */
uint64_t draft_anonymous_memory(void);

double draft_clock_seconds(void); /* monotonic */

#endif
