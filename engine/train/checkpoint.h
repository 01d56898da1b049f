/*
 * Checkpoints: one safetensors file that holds all a job needs to go on bit for bit.
 *
 *   lora/<module>.down, .up                       the adapter, or
 *   unet/<key>                                    the UNet's weights; convolutions channels last, [out, kh, kw, in]
 *   adam/<name>.m, .v                             the optimizer's moments of each (<module>.down, ..., or <key>)
 *   ema/<name>                                    the average of each, where the job keeps one
 *   metadata: draftd.format, draftd.step, draftd.updates, draftd.bad_steps, draftd.config (a digest of everything that
 *             decides the numbers), draftd.rank, draftd.alpha (both 0: all of the UNet), draftd.architecture,
 *             draftd.prediction, draftd.checksum (XXH3-128 over the other metadata and all tensors)
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
#include "train/ema.h"

struct draft_checkpoint_info {
    int64_t step, updates;
    int bad_steps; /* skipped in a row, up to here */
    int rank;      /* 0: no adapter, the UNet itself was trained */
    double alpha;
    char config[DRAFT_CHECKSUM_SIZE]; /* digest */
    char architecture[48];            /* "stable-diffusion-v1": for exports */
    char prediction[16];              /* "epsilon", "v" */
};

/* What of a job goes into a checkpoint and comes out of it. */
struct draft_checkpoint_state {
    const struct draft_trained *trained;
    struct draft_adamw *opt; /* NULL, for taking alone: the moments are left in the file */
    struct draft_ema *ema;   /* NULL: none */
};

/* Refuses non-finite values. Written atomically, then opened and verified again. */
bool draft_checkpoint_save(const char *path, const struct draft_checkpoint_info *info,
                           const struct draft_checkpoint_state *state, struct draft_saved *saved,
                           struct draft_error *err);

/* A checkpoint that was read once and verified. A full one is larger than memory should hold: its tensors are read
 * again from the same open file, which nothing writes to (files are replaced whole). */
struct draft_checkpoint {
    struct draft_checkpoint_info info;
    struct draft_safetensors *file; /* tensors sorted by name, all F32 */
};

/* Verifies format, checksum, metadata and that every value is finite. */
bool draft_checkpoint_open(struct draft_checkpoint *checkpoint, const char *path, struct draft_error *err);
void draft_checkpoint_close(struct draft_checkpoint *checkpoint); /* zeroed is fine */

/* Fails when there are no averages in it: the job was submitted without ema_decay. */
bool draft_checkpoint_has_average(const struct draft_checkpoint *checkpoint, struct draft_error *err);

/* Takes parameters, averages, moments and opt->updates; the tensors must be exactly the state's, else nothing is
 * changed. A disk that fails in the middle leaves the state undefined. */
bool draft_checkpoint_take(const struct draft_checkpoint *checkpoint, const struct draft_checkpoint_state *state,
                           struct draft_error *err);

#endif
