/*
 * Previews: pictures on demand. A running job's worker makes them at its next step boundary; those of a paused or ended
 * job, or of a named checkpoint, a sampling worker of their own makes. Whatever happens to a preview, training goes on.
 */
#ifndef DRAFTD_PREVIEWS_H
#define DRAFTD_PREVIEWS_H

#include "worker.h"

enum { DRAFTD_PREVIEW_TRIES = 2, DRAFTD_PREVIEW_PICTURES = 256, DRAFTD_PREVIEWS_PENDING = 256 };

/* Hands the pending previews of a running job to its worker. */
void draftd_previews_offer(struct draftd *d, struct draftd_live_job *job);
/* Hands pending previews on: to their jobs' workers, or one of them to a sampling worker. Only the daemon's thread. */
void draftd_previews_schedule(struct draftd *d, int64_t now_ms, int64_t *next_ms);
bool draftd_preview_report(struct draftd *d, struct draftd_worker *worker, const Draftd__Worker__PreviewReport *report,
                           struct draft_error *err);
/* A worker is gone: its previews wait for another, or fail when they took it with them. NULL: it ended in order. */
void draftd_previews_orphaned(struct draftd *d, struct draftd_worker *worker, const char *crash);

/* What the events of a preview that waits for a worker say. */
#define DRAFTD_PREVIEW_WAITS "waits for the next step or a free worker"

/* A new one, recorded already. */
void draftd_preview_add(struct draftd *d, int64_t number, int64_t job, int total, const Draftd__V1__PreviewSpec *spec);
/* At start. */
bool draftd_previews_restore(struct draftd *d, struct draft_error *err);
/* At start: removes what no row of a job's previews names (a database put back from a copy) and half-written pictures.
 */
void draftd_previews_sweep(struct draftd *d, int64_t job);
/* With a job. Its sampling workers are killed. */
void draftd_previews_forget(struct draftd *d, int64_t job);

#endif
