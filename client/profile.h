/*
 * `draft bench --profile`: a job's steps with every op timed, by a draft-engine of our own that no daemon stands
 * between.
 */
#ifndef DRAFT_CLIENT_PROFILE_H
#define DRAFT_CLIENT_PROFILE_H

#include <jansson.h>

#include "status.h"
#include "draftd/v1/jobs.pb-c.h"

/* What the worker said: the object of engine/profiling.h, on the heap. NULL: st says why. */
json_t *draft_profile_fetch(const Draftd__V1__JobSpec *spec, struct draft_status *st);

#endif
