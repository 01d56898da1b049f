/* Levels of the samplers that keep x = x_0 + sigma epsilon: of the files euler.c and euler_a.c. */
#ifndef DRAFT_SAMPLER_EULER_H
#define DRAFT_SAMPLER_EULER_H

#include "sampler/sampler.h"

bool draft_euler_levels(const struct draft_sampler *sampler, const struct draft_scheduler *scheduler, int T,
                        struct draft_sampler_plan *plan, struct draft_error *err);

#endif
