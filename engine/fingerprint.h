/* What tells one job's files and settings from another's. */
#ifndef DRAFT_FINGERPRINT_H
#define DRAFT_FINGERPRINT_H

#include "state.h"

/* One hash over names and contents of every weight and configuration file of the model, the rewards and LPIPS. */
bool draft_fingerprint(const struct draft_job_config *config, struct draft_progress *progress,
                       char hex[DRAFT_CHECKSUM_SIZE], struct draft_error *err);

/* A hash of everything in the config that decides the numbers of training. */
bool draft_config_digest(const struct draft_engine *engine, char hex[DRAFT_CHECKSUM_SIZE], struct draft_error *err);

#endif
