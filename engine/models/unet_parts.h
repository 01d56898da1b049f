/* What unet_config.c, unet_blocks.c and unet.c share. Internal to models/. */
#ifndef DRAFT_MODELS_UNET_PARTS_H
#define DRAFT_MODELS_UNET_PARTS_H

#include "models/resnet.h"
#include "models/transformer_2d.h"
#include "models/unet.h"

enum { UNET_MAX_LEVELS = 8, UNET_MAX_LAYERS = 16, UNET_MAX_SKIPS = UNET_MAX_LEVELS * (UNET_MAX_LAYERS + 1) + 1 };
enum { UNET_MAX_RESNETS = UNET_MAX_LEVELS * (2 * UNET_MAX_LAYERS + 1) + 2 };

/* config.json, with diffusers' class defaults for absent keys. Index 0 is the highest resolution. */
struct unet_config {
    int64_t in_channels, out_channels, context_width, sample_height, sample_width;
    int levels;
    int64_t channels[UNET_MAX_LEVELS];
    int layers[UNET_MAX_LEVELS];             /* resnets of the down block; one more in the up block */
    int heads[UNET_MAX_LEVELS];              /* config's attention_head_dim */
    int transformer_layers[UNET_MAX_LEVELS]; /* of each Transformer2DModel */
    bool down_attends[UNET_MAX_LEVELS];      /* CrossAttnDownBlock2D, else DownBlock2D */
    bool up_attends[UNET_MAX_LEVELS];        /* CrossAttnUpBlock2D, else UpBlock2D; same index as the down block */
    bool has_middle, middle_attends;         /* UNetMidBlock2DCrossAttn, UNetMidBlock2D or none */
    bool linear_projection, flip_sin_to_cos;
    double freq_shift;
    int64_t time_width;
    int groups, conv_in_kernel, conv_out_kernel;
    float eps;
};

bool draft_unet_config_read(struct unet_config *config, const char *path, struct draft_error *err);
/* The same from text; sentences name `shown`. */
bool draft_unet_config_parse(struct unet_config *config, const char *text, const char *shown, struct draft_error *err);

/* A down, middle or up block. */
struct unet_block {
    char name[24]; /* "down_blocks.0" */
    int layers;
    struct draft_resnet *resnet;
    struct draft_transformer_2d *attention; /* NULL: a block without */
    int attentions;                         /* layers, or layers - 1 in the middle */
    struct draft_conv_layer sampler;        /* downsamplers.0.conv or upsamplers.0.conv; weight NULL: none */
};

struct draft_unet {
    struct unet_config config;
    struct draft_conv_layer conv_in, conv_out;
    struct draft_linear_layer time_linear_1, time_linear_2;
    struct unet_block down[UNET_MAX_LEVELS], middle, up[UNET_MAX_LEVELS]; /* up[0] is the lowest resolution */
    struct draft_norm_layer conv_norm_out;
    int cross_attentions;
    struct draft_weight_link *weights;
    bool recompute;
};

void draft_unet_load_blocks(struct draft_loader *loader, struct draft_unet *unet);

/* One run of the network: what every block needs beside its input. */
struct unet_pass {
    struct draft_graph *g;
    const struct draft_unet *unet;
    const struct draft_unet_call *call;
    struct draft_tensor *bias[UNET_MAX_RESNETS]; /* of each ResNet block's conv1 at this time, in their order */
    int resnets;                                 /* that have run */
    struct draft_tensor *skip[UNET_MAX_SKIPS];
    int skips;
};
struct draft_tensor *draft_unet_down(struct unet_pass *pass, const struct unet_block *block, struct draft_tensor *x);
struct draft_tensor *draft_unet_middle(struct unet_pass *pass, const struct unet_block *block, struct draft_tensor *x);
struct draft_tensor *draft_unet_up(struct unet_pass *pass, const struct unet_block *block, struct draft_tensor *x);

#endif
