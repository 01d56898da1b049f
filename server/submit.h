/* CreateJob: nothing is kept until everything is checked, and then all at once. Also the inspection that ResumeJob
 * repeats. */
#ifndef DRAFTD_SUBMIT_H
#define DRAFTD_SUBMIT_H

#include "dataset.h"
#include "state.h"

/* What a worker is to find out: whether all a spec names can be opened and what the job needs, or only the fingerprint
 * of the files, for a job that was inspected before. */
enum draftd_inspection { DRAFTD_INSPECT_ALL, DRAFTD_INSPECT_FILES };

/* Takes the lock itself; blocks. dataset may be NULL: its prompts are in `copy` only, the job's own copy. The caller
 * frees *inspected. */
bool draftd_inspect(struct draftd *d, enum draftd_inspection what, const Draftd__V1__JobSpec *spec,
                    const struct draftd_dataset *dataset, const char *copy, struct draftd_patience patience,
                    Draftd__Worker__Inspected **inspected, struct draft_error *err);

#endif
