/*
 * CLIP as open_clip names its tensors (visual.transformer.resblocks.0.attn.in_proj_weight ...): the same network as
 * transformers' CLIPModel, whose forward pass it shares, in another layout: queries, keys and values in one matrix,
 * projections transposed, text pooled at the largest id.
 */
#ifndef DRAFT_MODELS_OPEN_CLIP_H
#define DRAFT_MODELS_OPEN_CLIP_H

#include "models/clip.h"

/* `stem`.safetensors in `folder`. Shapes come from the tensors. open_clip_config.json, when it is there, must agree
 * with them and gives the heads and the activation; without it heads are those of open_clip's own configurations (64
 * numbers each, at most 16 in the image tower: ViT-H has 16 of 80) and the activation is GELU. */
struct draft_clip *draft_open_clip_open(const char *folder, const char *stem, struct draft_arena *arena,
                                        struct draft_error *err);

#endif
