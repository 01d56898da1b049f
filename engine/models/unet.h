/*
 * UNet2DConditionModel of Stable Diffusion 1.x and 2.x (Rombach et al. 2022), shapes from config.json.
 */
#ifndef DRAFT_MODELS_UNET_H
#define DRAFT_MODELS_UNET_H

#include "autograd/graph.h"
#include "models/lora.h"
#include "tensor/weights.h"

struct draft_unet;

struct draft_unet_info {
    int64_t in_channels, out_channels, context_width;
    int64_t sample_height, sample_width; /* config's sample_size, in latents */
    int side_multiple;                   /* h and w of the latents must be multiples: 2^(blocks - 1) */
};

/* `path`: its folder, or a single-file checkpoint (part.h). `adapter` NULL: no LoRA. Everything lives in `arena`. */
struct draft_unet *draft_unet_open(const char *path, struct draft_arena *arena, struct draft_adapter *adapter,
                                   struct draft_error *err);
struct draft_unet_info draft_unet_info(const struct draft_unet *unet);
/* Recompute: keep one tensor per resnet/transformer block and run the block again in the backward pass. */
void draft_unet_set_recompute(struct draft_unet *unet, bool on);
/* Marks every weight as needing a gradient, before recording; those that keep no values get them. */
bool draft_unet_train_weights(struct draft_unet *unet, bool on, struct draft_error *err);
/* Visits every weight by checkpoint key. */
void draft_unet_each_weight(struct draft_unet *unet, void (*visit)(void *context, struct draft_tensor *weight),
                            void *context);

/* Cross-attention keys and values of one context, computed once and used in every step of a no-gradient sampling run.
 */
struct draft_unet_context;
/* x [n, h, w, in], context [n, s, width] -> model output [n, h, w, out]. t is the timestep, [1]. h and w multiples of
 * 2^(blocks-1). A guided pair's x may be given once, [n / 2, h, w, in]: what comes before the first cross-attention is
 * then computed once for both halves. observe (may be NULL) is called with diffusers' block name and result, for tests.
 */
struct draft_unet_call {
    struct draft_tensor *t; /* [1] */
    struct draft_tensor *context;
    struct draft_unet_context *cached; /* NULL: keys and values are computed from context */
    void (*observe)(void *observer, const char *block, const struct draft_tensor *result);
    void *observer;
};
struct draft_tensor *draft_unet_forward(struct draft_graph *g, const struct draft_unet *unet, struct draft_tensor *x,
                                        const struct draft_unet_call *call);
struct draft_unet_context *draft_unet_precompute(struct draft_graph *g, const struct draft_unet *unet,
                                                 struct draft_tensor *context);

#endif
