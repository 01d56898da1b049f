/*
 * The checks of a JobSpec that need no file: text is UTF-8, paths are absolute, numbers are finite and in range. What
 * the files say about it is checked by an inspecting worker. Thread: pure.
 */
#ifndef DRAFTD_SPEC_H
#define DRAFTD_SPEC_H

#include "base/error.h"
#include "draftd/v1/jobs.pb-c.h"

enum { DRAFTD_SPEC_BYTES = 256 << 10 };

/* Of the engine's samplers; "" is one: the default. The sentence lists them. */
bool draftd_sampler_check(const char *name, const char *field, struct draft_error *err);

/* How many of a job's checkpoints stay: what it says, else 3, or 2 large ones of train "full". */
size_t draftd_spec_checkpoints_kept(const Draftd__V1__JobSpec *spec);
/* Of one checkpoint: the trained weights, both of Adam's moments, and the average where there is one. */
double draftd_spec_checkpoint_bytes(const Draftd__V1__JobSpec *spec, uint64_t trained_parameters);

/* err->field is the path in CreateJobRequest: "spec.optimizer.learning_rate". */
bool draftd_spec_check(const Draftd__V1__JobSpec *spec, struct draft_error *err);

#endif
