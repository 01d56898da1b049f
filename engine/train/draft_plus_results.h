/*
 * The results of a DRaFT+ step (struct draft_plus_results), for draft_plus.c alone. A micro-batch, which may be a
 * recording that is launched again, writes its numbers always to the same place, its own results; from there they are
 * copied to where they belong in the step's. Everything stays where the backend computes; failures are the graph's.
 */
#ifndef DRAFT_TRAIN_DRAFT_PLUS_RESULTS_H
#define DRAFT_TRAIN_DRAFT_PLUS_RESULTS_H

#include "train/draft_plus.h"

/* Room for the results of n pictures in micro-batches, and their copies, in the step arena. */
bool draft_plus_results_make(const struct draft_plus *dp, int64_t n, int64_t micro_batch, int64_t copies,
                             struct draft_plus_results *r);
/* Starts the clock; and: what was put to work since it was last read is of this phase. */
bool draft_plus_results_start(struct draft_graph *g, const struct draft_plus_results *r);
bool draft_plus_results_lap(struct draft_graph *g, const struct draft_plus_results *r, enum draft_plus_phase phase);
/* loss, kl: [1]; kl NULL: none. rewards and each term: [n]. image: [n, h, w, 3], kept if something is measured in it.
 */
void draft_plus_results_keep(struct draft_graph *g, const struct draft_plus_results *own,
                             const struct draft_tensor *loss, const struct draft_tensor *kl,
                             const struct draft_tensor *rewards, struct draft_tensor *const *term,
                             const struct draft_tensor *image);
/* Those of pictures first .. first+n-1, or of one of their copies, into all. */
bool draft_plus_results_file(const struct draft_plus *dp, const struct draft_plus_results *own, int64_t first,
                             int64_t copy, const struct draft_plus_results *all);

#endif
