/* diffusers' transformer_2d.py and attention.py: Transformer2DModel over BasicTransformerBlocks. Internal to models/.
 */
#ifndef DRAFT_MODELS_TRANSFORMER_2D_H
#define DRAFT_MODELS_TRANSFORMER_2D_H

#include "models/layers.h"

struct draft_attention_layer {
    struct draft_linear_layer to_q, to_k, to_v, to_out;
    int heads;
    int place; /* of a cross-attention among the model's, in load order: where its cached keys and values are */
};

struct draft_transformer_block {
    struct draft_norm_layer norm1, norm2, norm3;
    struct draft_attention_layer attn1, attn2; /* self, cross */
    struct draft_linear_layer ff_in, ff_out;   /* ff.net.0.proj (GEGLU), ff.net.2 */
};

struct draft_transformer_2d {
    struct draft_norm_layer norm;
    struct draft_linear_layer proj_in, proj_out; /* 1x1 convolutions or linear layers: the same thing here */
    int blocks;
    struct draft_transformer_block *block;
};

struct draft_transformer_shape {
    int64_t channels, context;
    int heads, groups, blocks;
    bool linear_projection;
};

/* Keys and values of one context for every cross-attention, by place. */
struct draft_unet_context {
    int count;
    struct draft_tensor **key, **value; /* [n, s, inner] */
};

/* *place counts the cross-attentions. */
void draft_load_transformer_2d(struct draft_loader *loader, struct draft_transformer_2d *model,
                               const struct draft_transformer_shape *shape, int *place, const char *path, ...)
    DRAFT_PATH_FORMAT(5);
/* x itself where it has n rows; where it has half as many, x followed by x: the guided pair begins as one. */
struct draft_tensor *draft_both_halves(struct draft_graph *g, struct draft_tensor *x, int64_t n);
/* x [n, h, w, c], or [n / 2, ..] of a guided pair that has met no context yet; context [n, s, width]; cached may be
 * NULL. -> [n, h, w, c] */
struct draft_tensor *draft_transformer_2d_forward(struct draft_graph *g, const struct draft_transformer_2d *model,
                                                  struct draft_tensor *x, struct draft_tensor *context,
                                                  const struct draft_unet_context *cached);
/* Fills the places of this model's cross-attentions. */
void draft_transformer_2d_precompute(struct draft_graph *g, const struct draft_transformer_2d *model,
                                     struct draft_tensor *context, struct draft_unet_context *cached);

#endif
