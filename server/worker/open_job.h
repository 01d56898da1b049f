/*
 * A job opened for work: its spec as a config, its own copy of the dataset, an engine, and a checkpoint restored.
 * Ownership: close it; the Train message must outlive it. Thread: the engine's.
 */
#ifndef DRAFTD_WORKER_OPEN_JOB_H
#define DRAFTD_WORKER_OPEN_JOB_H

#include "worker/work.h"

struct draftd_open_job {
    struct draft_job_config config;
    char **prompts;
    int prompt_count;
    struct draft_engine *engine;
};

/* Only the prompts of a copy: one JSON string a line. Adds to a zeroed job. */
bool draftd_open_prompts(struct draftd_open_job *job, const char *path, struct draft_error *err);
/* Refuses weights that have changed since the job was submitted: FAILED_PRECONDITION, field "fingerprint".
 * `sample_only`: nothing will be trained. */
bool draftd_open_job(struct draftd_open_job *job, struct draftd_work *work, const Draftd__Worker__Train *task,
                     bool sample_only, struct draft_error *err);
void draftd_open_job_close(struct draftd_open_job *job); /* zeroed is fine */

#endif
