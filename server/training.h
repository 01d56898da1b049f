/* Training workers: what their reports do to a job, and what their end means. */
#ifndef DRAFTD_TRAINING_H
#define DRAFTD_TRAINING_H

#include "worker.h"

/* scheduler.c: starts the next job that a device is free for; lowers *next_ms to its next time. Only the daemon's
 * thread. */
void draftd_schedule(struct draftd *d, int64_t now_ms, int64_t *next_ms);
/* Waits for the thread that reads a checkpoint before a start, if there is one. Without the lock, which it takes. */
void draftd_schedule_end(struct draftd *d);

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
