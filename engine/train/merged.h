/*
 * The tuned model as a model of its own: the checkpoint's adapter and the job's base LoRAs summed into the base model's
 * weights, or the UNet that was trained itself in the base model's place, tensor by tensor (no model is opened; memory
 * is that of the largest tensor). Thread: any.
 */
#ifndef DRAFT_TRAIN_MERGED_H
#define DRAFT_TRAIN_MERGED_H

#include "train/job_config.h"

struct draft_merged_options {
    const struct draft_job_config *config; /* model, base_lora and train */
    const char *checkpoint;
    bool f32; /* default F16 */
    bool ema; /* the average in place of the trained weights */
};

/* A diffusers folder at `path`, which must not exist yet: UNet (and what else the LoRAs change) rewritten, the other
 * parts copied. Whole or not at all. */
bool draft_export_merged_folder(const char *path, const struct draft_merged_options *options, struct draft_error *err);

/* One .safetensors at `path`, which must not exist yet, with the original names (tensor/ldm_names.h). Such a file has
 * no configuration: a model of another than readers will take it for is refused by what differs. Whole or not at all.
 */
bool draft_export_merged_single(const char *path, const struct draft_merged_options *options, struct draft_error *err);

#endif
