/* Training workers: what their reports do to a job, and what their end means. */
#ifndef DRAFTD_TRAINING_H
#define DRAFTD_TRAINING_H

#include "worker.h"

/* Starts the next job that a device is free for. Only the daemon's thread: it may release the lock on the way. */
void draftd_schedule(struct draftd *d, int64_t now_ms,
                     int64_t *next_ms); /* scheduler.c; lowers *next_ms to its next time */

/* worker->report and worker->end of a training worker. */
bool draftd_training_report(struct draftd *d, struct draftd_worker *worker, const Draftd__Worker__Report *report,
                            struct draft_error *err);
void draftd_training_end(struct draftd *d, struct draftd_worker *worker);

/* Its worker could not be started or ended badly: queued again while retries are left, else failed. */
void draftd_training_crashed(struct draftd *d, struct draftd_live_job *job, const char *sentence,
                             const char *reason_code);
/* Tells a job's worker to stop. */
void draftd_training_stop(struct draftd *d, struct draftd_live_job *job, enum draftd_stop why);

#endif
