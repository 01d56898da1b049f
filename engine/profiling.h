/*
 * Where an engine's steps spend their time, op by op: `draft bench --profile`. Beside the narrow door of engine.h, for
 * who wants to look inside. Thread: the engine's.
 */
#ifndef DRAFT_PROFILING_H
#define DRAFT_PROFILING_H

#include "autograd/profile.h"
#include "engine.h"

/* From now on every op is timed. Steps then take longer: on a GPU nothing is replayed. */
bool draft_engine_profile(struct draft_engine *engine, struct draft_error *err);
/* What was timed so far, the longest first; the phases are "sampling", "last steps", "frozen prediction", "decoding",
 * "reward" and "backward". The optimizer is no op: its time is the step's "seconds/optimizer". */
bool draft_engine_profile_rows(struct draft_engine *engine, const struct draft_profile_row **rows, int *count,
                               struct draft_error *err);
/* What the engine's device reaches at its precision. */
bool draft_engine_roofline(struct draft_engine *engine, struct draft_roofline *reached, struct draft_error *err);

#endif
