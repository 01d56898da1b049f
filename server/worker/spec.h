/*
 * A JobSpec as the engine's config. What only the daemon needs (names, retries) is checked, not translated.
 * Ownership: the config points into the spec and into `prompts`; both must outlive it.
 */
#ifndef DRAFTD_WORKER_SPEC_H
#define DRAFTD_WORKER_SPEC_H

#include "draftd/v1/jobs.pb-c.h"
#include "engine.h"

enum { DRAFTD_DEFAULT_CHECKPOINT_EVERY = 50 };

bool draftd_spec_to_config(const Draftd__V1__JobSpec *spec, char *const *prompts, int prompt_count,
                           struct draft_job_config *config, struct draft_error *err);
int64_t draftd_spec_checkpoint_every(const Draftd__V1__JobSpec *spec);
/* "clip:/path" or "0.5*clip:/path + 0.5*jpeg:...", for metadata; into a buffer, cut if need be. */
void draftd_spec_reward_text(const Draftd__V1__JobSpec *spec, char *out, size_t size);

#endif
