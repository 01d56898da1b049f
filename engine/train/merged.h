/*
 * The tuned model as a model of its own: the checkpoint's adapter and the job's base LoRAs summed into the base model's
 * weights, tensor by tensor (no model is opened; memory is that of the largest tensor). Thread: any.
 */
#ifndef DRAFT_TRAIN_MERGED_H
#define DRAFT_TRAIN_MERGED_H

#include "train/job_config.h"

struct draft_merged_options {
    const struct draft_job_config *config; /* model and base_lora */
    const char *checkpoint;
    bool f32; /* default F16 */
};

/* A diffusers folder at `path`, which must not exist yet: UNet (and what else the LoRAs change) rewritten, the other
 * parts copied. Whole or not at all. */
bool draft_export_merged_folder(const char *path, const struct draft_merged_options *options, struct draft_error *err);

#endif
