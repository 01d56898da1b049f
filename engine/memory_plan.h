/* How a job spends memory, and whether it fits: planned when an engine is opened, by a step on a dry backend. */
#ifndef DRAFT_MEMORY_PLAN_H
#define DRAFT_MEMORY_PLAN_H

#include "state.h"

/* What a process takes of a GPU beside what it allocates: the driver's context, the code of kernels, cuBLAS and cuDNN.
 * By what is known of an H100; never measured by this program. */
#define DRAFT_GPU_CONTEXT ((size_t)600 << 20)

/* Decides how memory is spent (config.memory, config.recompute, what the backend keeps) and estimates the job's peak of
 * anonymous memory into engine->memory_bytes, by a step on a dry backend: an op without a gradient or a shape that does
 * not fit is found now as well. Takes milliseconds, changes nothing else. */
bool draft_memory_plan(struct draft_engine *engine, struct draft_error *err);
/* Refuses a job that cannot fit into this machine's memory, or its GPU's, with what would. */
bool draft_memory_check(struct draft_engine *engine, struct draft_error *err);

#endif
