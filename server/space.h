/*
 * Room on the state folder's disk: the check before a job needs it, and a reserve of a few MiB that is given up when
 * the disk is full all the same, so that what happened can still be recorded.
 */
#ifndef DRAFTD_SPACE_H
#define DRAFTD_SPACE_H

#include "state.h"

enum { DRAFTD_RESERVE_BYTES = 2 << 20, DRAFTD_SPACE_MARGIN = 8 << 20 };

/* DRAFT_DISK_FULL when the checkpoints a job will hold do not fit: what is needed, what is free, what to do. `there`
 * checkpoints are written already. A disk that cannot be asked is no reason to refuse. */
bool draftd_space_check(const struct draftd *d, const Draftd__V1__JobSpec *spec, uint64_t trained_parameters,
                        size_t there, struct draft_error *err);

/* state_dir/reserve is allocated unless it is there or the disk has hardly more room than it takes. */
void draftd_reserve_keep(struct draftd *d, int64_t now_ms, int64_t *next_ms);
/* Gives it up for a write that met a full disk; true: try that write again. */
bool draftd_reserve_give(struct draftd *d, const struct draft_error *why);

#endif
