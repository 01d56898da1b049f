/*
 * BLIP's image tower (Li et al. 2022), vit.py: a pre-norm VisionTransformer with timm's tensor names. Internal to
 * models/.
 */
#ifndef DRAFT_MODELS_BLIP_VIT_H
#define DRAFT_MODELS_BLIP_VIT_H

#include "models/layers.h"

struct blip_vit_block {
    struct draft_norm_layer norm1, norm2;
    struct draft_linear_layer q, k, v, proj, fc1, fc2; /* attn.qkv in three parts */
};

struct blip_vit {
    int64_t width, wide, size, patch; /* size: pixels of a side */
    int layers, heads;
    struct draft_tensor *cls_token, *pos_embed; /* [width], [1 + patches, width] */
    struct draft_conv_layer patch_embed;
    struct blip_vit_block *block;
    struct draft_norm_layer norm;
};

/* Shapes come from the tensors; heads are of 64 numbers, as in both of BLIP's towers (base, large). "prefix" ends with
 * a dot. */
void draft_blip_vit_load(struct draft_loader *loader, struct blip_vit *vit, const char *prefix);
/* pixels, normalised, [n, size, size, 3] -> all tokens through the last norm [n, 1 + patches, width] */
struct draft_tensor *draft_blip_vit_forward(struct draft_graph *g, const struct blip_vit *vit,
                                            struct draft_tensor *pixels);

#endif
