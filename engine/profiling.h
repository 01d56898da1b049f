/*
 * Where an engine's steps spend their time, op by op: `draft bench --profile`, and the report of tests/gpu. Beside the
 * narrow door of engine.h, for who wants to look inside. Thread: the engine's.
 */
#ifndef DRAFT_PROFILING_H
#define DRAFT_PROFILING_H

#include <jansson.h>

#include "engine.h"

/*
 * Measures what the engine's device reaches, trains `steps` steps with every op timed (on a GPU nothing is replayed
 * then) and tells, all of it of one step:
 *
 *   precision, steps, step_seconds, phases {sample, forward, backward, optimizer} in seconds
 *   replayed_seconds                                        of a step that is not timed so, where its launches are
 * recorded flops_per_second, bytes_per_second, launch_seconds      what is reached: a large product, a large copy, one
 * launch by_phase, by_op, rows, left_out                         lists, the longest first; `most` of the rows at most
 * (0: all), left_out: how many are not told
 *
 * A row is {op, backward, phase, calls, launches, seconds, flops, bytes, bound, share}; of by_phase, op is the phase:
 * one of "sampling", "last steps", "frozen prediction", "decoding", "reward", "backward". The optimizer is no op: see
 * phases. NULL: err says why.
 */
json_t *draft_engine_profile(struct draft_engine *engine, int64_t steps, int most, struct draft_error *err);

#endif
