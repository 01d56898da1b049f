/*
 * `draft bench --profile`: a job's steps with every op timed, by a draft-engine of our own that no daemon stands
 * between, and what it tells: phase by phase, op by op, beside what the machine could do at most.
 */
#ifndef DRAFT_CLIENT_PROFILE_H
#define DRAFT_CLIENT_PROFILE_H

#include <jansson.h>

#include "status.h"
#include "terminal.h"
#include "draftd/v1/jobs.pb-c.h"

/* What the worker said: an object on the heap with step_seconds, flops_per_second, bytes_per_second (what the machine
 * reaches, measured), phases {sample, forward, backward, optimizer} in seconds, and rows {phase, op, backward, calls,
 * launches, seconds, flops, bytes}, all of one step. NULL: st says why. */
json_t *draft_profile_fetch(const Draftd__V1__JobSpec *spec, struct draft_status *st);
/* As a page; the `most` longest rows, 0: all. */
void draft_profile_print(const json_t *profile, int most, const struct draft_terminal *terminal);

#endif
