/*
 * The tensor names of original Stable Diffusion checkpoints (CompVis's latent-diffusion and Stability's
 * stablediffusion, single files as shared on model sites) against diffusers' names, both ways:
 *
 *   model.diffusion_model.input_blocks.1.0.in_layers.0.weight      unet: down_blocks.0.resnets.0.norm1.weight
 *   first_stage_model.decoder.up.3.block.0.norm1.weight            vae: decoder.up_blocks.0.resnets.0.norm1.weight
 *   cond_stage_model.transformer.text_model.final_layer_norm.bias  text: text_model.final_layer_norm.bias (SD 1.x)
 *   cond_stage_model.model.transformer.resblocks.0.ln_1.weight     text: text_model.encoder.layers.0.layer_norm1.weight
 *                                                                  (SD 2.x: open_clip's names, q, k and v in one)
 * Thread: a map is read-only once made.
 */
#ifndef DRAFT_TENSOR_LDM_NAMES_H
#define DRAFT_TENSOR_LDM_NAMES_H

#include "tensor/safetensors.h"

enum draft_ldm_part { DRAFT_LDM_UNET, DRAFT_LDM_VAE, DRAFT_LDM_TEXT };
enum { DRAFT_LDM_NAME = 256, DRAFT_LDM_LEVELS = 8 };

/* What the names depend on. */
struct draft_ldm_shape {
    int levels, layers;                /* UNet: block_out_channels, layers_per_block */
    bool up_attends[DRAFT_LDM_LEVELS]; /* UNet: up_blocks.i has attentions */
    int vae_levels;
    int text_layers;
    bool open_clip; /* SD 2.x's text encoder */
};

struct draft_ldm_map;

/* NULL when memory is out. */
struct draft_ldm_map *draft_ldm_map(enum draft_ldm_part part, const struct draft_ldm_shape *shape);
void draft_ldm_map_free(struct draft_ldm_map *map);
/* False when the map does not know the name. */
bool draft_ldm_to_diffusers(const struct draft_ldm_map *map, const char *name, char out[DRAFT_LDM_NAME]);
bool draft_ldm_from_diffusers(const struct draft_ldm_map *map, const char *name, char out[DRAFT_LDM_NAME]);

/* Whether a file has original names at all, and what its names say of the model. */
bool draft_ldm_is(const struct draft_safetensors *file);
struct draft_ldm_shape draft_ldm_shape_of(const struct draft_safetensors *file);

/* What no shape says. A scheduler's "prediction_type", for its reader to judge: what modelspec says may be anything.
 * Borrowed from `file`. */
const char *draft_ldm_prediction(const struct draft_safetensors *file);
/* Whether it was trained on noise levels that end without signal (Lin et al. 2024), which the tensor "ztsnr" says. */
bool draft_ldm_zero_snr(const struct draft_safetensors *file);
/* Pixels a side: modelspec.resolution; else 768 for SD 2.x with v-prediction, 512. */
int draft_ldm_resolution(const struct draft_safetensors *file);

/* One part of a file as entries with diffusers' names, sorted; fused matrices as their slices, 1x1 convolutions as the
 * matrices diffusers has. Left out: what no inference uses (the EMA copy, the autoencoder's loss, position_ids, the
 * text tower's layers beyond the 23 that SD 2.x uses). Names that the map does not know stay as they are. The caller
 * frees with draft_ldm_entries_free. `file` must outlive the entries. */
bool draft_ldm_entries(const struct draft_safetensors *file, enum draft_ldm_part part,
                       struct draft_safetensors_entry **entries, int *count, struct draft_error *err);
void draft_ldm_entries_free(struct draft_safetensors_entry *entries, int count);

#endif
