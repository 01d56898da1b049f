/* Checkpoint files and their rows. The worker writes the files; the daemon records, chooses and removes them. */
#ifndef DRAFTD_CHECKPOINTS_H
#define DRAFTD_CHECKPOINTS_H

#include "state.h"

struct draftd_checkpoint {
    int64_t step; /* 0 and path NULL: there is none, a start from the base model */
    char *path;   /* malloc'd */
};

/* The newest checkpoint (step < 0) or the one of a step. Those whose file is missing or has another size are passed
 * over; with `verify` their content is read and compared too, and damaged ones are forgotten with a notice: the lock is
 * released meanwhile. Where one cannot be looked at for want of descriptors, memory or permission, this fails: it may
 * be whole. */
bool draftd_checkpoint_choose(struct draftd *d, int64_t job, int64_t step, bool verify,
                              struct draftd_checkpoint *checkpoint, struct draft_error *err);

/* A worker said it saved: checks the file, records it, then removes those past checkpoint_keep. *fault: the report
 * itself made no sense (else err is ours: the database). */
bool draftd_checkpoint_record(struct draftd *d, struct draftd_live_job *job, const Draftd__Worker__Saved *saved,
                              bool *fault, struct draft_error *err);

/* How many are recorded. */
size_t draftd_checkpoint_count(struct draftd *d, int64_t job);

/* At start: removes files of a job's folder that no row names (a crash in between, temporary files). */
void draftd_checkpoint_sweep(struct draftd *d, int64_t job);

#endif
