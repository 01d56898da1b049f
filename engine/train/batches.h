/*
 * Which prompts and which noise a training step gets. Both depend on seed, step and place in the global batch alone, so
 * a resumed job and another micro-batch size see the same. Samples run through the dataset epoch by epoch, each epoch
 * in an order of its own; a step may span two epochs.
 */
#ifndef DRAFT_TRAIN_BATCHES_H
#define DRAFT_TRAIN_BATCHES_H

#include "train/draft_plus.h"
#include "train/job_config.h"

struct draft_batches;

/* The config's prompts are borrowed. numbers: of one sample's latents, c * h * w. calls: of the network in a run. */
struct draft_batches *draft_batches_create(const struct draft_job_config *config, size_t numbers, int calls,
                                           struct draft_error *err);
void draft_batches_destroy(struct draft_batches *batches); /* NULL is fine */

/* The batch of `step` (0: the first). Valid until the next call. */
const struct draft_plus_batch *draft_batches_take(struct draft_batches *batches, int64_t step);

#endif
