/*
 * Checkpoints: one safetensors file that holds all a job needs to go on bit for bit.
 *
 *   lora/<module>.down, .up                       the adapter
 *   adam/<module>.down.m, .down.v, .up.m, .up.v   the optimizer's moments
 *   metadata: draftd.format, draftd.step, draftd.updates, draftd.bad_steps, draftd.config (a digest of everything that
 *             decides the numbers), draftd.rank, draftd.alpha, draftd.architecture, draftd.prediction, draftd.checksum
 *             (XXH3-128 over the other metadata and all tensors)
 *
 * There is no random state to keep: every random number is a function of seed, purpose, step and place. No time stamps:
 * equal states give equal bytes. A file is checked whole before anything is taken from it.
 */
#ifndef DRAFT_TRAIN_CHECKPOINT_H
#define DRAFT_TRAIN_CHECKPOINT_H

#include "base/checksum.h"
#include "engine.h"
#include "tensor/safetensors.h"
#include "train/adamw.h"

struct draft_checkpoint_info {
    int64_t step, updates;
    int bad_steps; /* skipped in a row, up to here */
    int rank;
    double alpha;
    char config[DRAFT_CHECKSUM_SIZE]; /* digest */
    char architecture[48];            /* "stable-diffusion-v1": for exports */
    char prediction[16];              /* "epsilon", "v" */
};

/* Refuses non-finite values. Written atomically, then opened and verified again. */
bool draft_checkpoint_save(const char *path, const struct draft_checkpoint_info *info,
                           const struct draft_adapter *adapter, const struct draft_adamw *opt,
                           struct draft_saved *saved, struct draft_error *err);

/* A checkpoint in memory: read once, verified, and used as it was verified. */
struct draft_checkpoint_tensor {
    const char *name;
    int rank;
    int64_t dim[DRAFT_MAX_RANK];
    float *data;
};
struct draft_checkpoint {
    struct draft_checkpoint_info info;
    int count;
    struct draft_checkpoint_tensor *tensor; /* sorted by name */
    struct draft_safetensors *file;         /* owner of the names */
};

/* Verifies format, checksum, metadata and that every value is finite. */
bool draft_checkpoint_open(struct draft_checkpoint *checkpoint, const char *path, struct draft_error *err);
void draft_checkpoint_close(struct draft_checkpoint *checkpoint); /* zeroed is fine */

/* Takes adapter, moments and opt->updates; the tensors must be exactly the adapter's, else nothing is changed. */
bool draft_checkpoint_take(const struct draft_checkpoint *checkpoint, struct draft_adapter *adapter,
                           struct draft_adamw *opt, struct draft_error *err);

#endif
