/* diffusers' resnet.py: ResnetBlock2D, shared by UNet and VAE. Internal to models/. */
#ifndef DRAFT_MODELS_RESNET_H
#define DRAFT_MODELS_RESNET_H

#include "models/layers.h"

struct draft_resnet {
    struct draft_norm_layer norm1, norm2;
    struct draft_conv_layer conv1, conv2;
    struct draft_linear_layer time_emb_proj; /* weight NULL: no time embedding (VAE) */
    struct draft_linear_layer conv_shortcut; /* weight NULL: in == out */
};

/* temb: width of the time embedding, 0 for none. */
void draft_load_resnet(struct draft_loader *loader, struct draft_resnet *block, int64_t in, int64_t out, int64_t temb,
                       int groups, float eps, const char *path, ...) DRAFT_PATH_FORMAT(8);
/* All pictures are at one time, so what the time embedding adds behind conv1 is part of conv1's bias: this layer of the
 * embedding, which has been through SiLU, [1, temb]. */
struct draft_row_layer draft_resnet_time_layer(const struct draft_resnet *block);
/* bias: what that layer gave, [out]; NULL: conv1's own. */
struct draft_tensor *draft_resnet_forward(struct draft_graph *g, const struct draft_resnet *block,
                                          struct draft_tensor *x, struct draft_tensor *bias);

#endif
