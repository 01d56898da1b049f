/*
 * One part of a model (UNet, VAE, text encoder), from its folder of a diffusers pipeline or out of a single-file
 * checkpoint with the original names. A single file has no configuration: it is inferred from the tensors' shapes, as
 * diffusers' from_single_file does (which compares a few shapes and takes a published model's configuration): eight
 * heads and 1x1 convolutions are SD 1.x, heads of 64 and linear projections SD 2.x; 32 groups in every norm.
 */
#ifndef DRAFT_MODELS_PART_H
#define DRAFT_MODELS_PART_H

#include "tensor/weights.h"

bool draft_is_single_file(const char *path); /* a file, whatever is in it */

struct draft_weights *draft_part_weights(const char *path, const char *stem, enum draft_ldm_part part,
                                         struct draft_arena *arena, struct draft_error *err);
/* How a part's configuration is read, from config.json of its folder or from the text inferred of a single file. */
struct draft_part {
    enum draft_ldm_part part;
    const char *stem;  /* of the folder's weight files */
    const char *title; /* "the UNet" */
    bool (*read)(void *config, const char *path, struct draft_error *err);
    bool (*parse)(void *config, const char *text, const char *shown, struct draft_error *err);
};
/* Configuration, then weights. NULL with a sentence; draft_weights_close() otherwise. */
struct draft_weights *draft_part_open(const char *path, const struct draft_part *part, void *config,
                                      struct draft_arena *arena, struct draft_error *err);
/* The configuration of a part of a single file, as the JSON of diffusers' or transformers' config.json; the caller
 * frees. NULL with a sentence when tensors are missing that every such model has. */
char *draft_part_config(const struct draft_weights *weights, enum draft_ldm_part part, struct draft_error *err);
/* scheduler_config.json of a single file: the schedule of every SD 1.x and 2.x. The caller frees; NULL: no memory. */
char *draft_single_file_scheduler(const struct draft_safetensors *file);

#endif
