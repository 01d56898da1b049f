/*
 * Previews inside a worker: pictures for one Preview message, each on disk before it is reported, the last report with
 * `done`. What goes wrong is said in that report and ends nothing else.
 */
#ifndef DRAFTD_WORKER_PREVIEWS_H
#define DRAFTD_WORKER_PREVIEWS_H

#include "worker/work.h"

/* `job` is the task's job id, for the pictures' metadata. */
void draftd_preview_run(struct draftd_work *work, struct draft_engine *engine, const char *job,
                        const Draftd__Worker__Preview *preview);
/* Says that a preview will not be made. */
void draftd_preview_refuse(struct draftd_work *work, const Draftd__Worker__Preview *preview,
                           const struct draft_error *err);

/* "draft", "base", "linear", "power_2", "step_0.6"; "" is draft. */
bool draftd_aig_parse(const char *text, enum draft_aig *aig, double *power);

#endif
