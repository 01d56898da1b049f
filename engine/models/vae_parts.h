/* What vae_config.c, vae_coder.c and vae.c share. Internal to models/. */
#ifndef DRAFT_MODELS_VAE_PARTS_H
#define DRAFT_MODELS_VAE_PARTS_H

#include "models/resnet.h"
#include "models/vae.h"

enum { VAE_MAX_LEVELS = 8, VAE_MAX_LAYERS = 16 };

/* config.json, with diffusers' class defaults for absent keys. Index 0 is the highest resolution. */
struct vae_config {
    int64_t in_channels, out_channels, latent_channels;
    int levels;
    int64_t channels[VAE_MAX_LEVELS];
    int layers; /* resnets of an encoder block; one more in a decoder block */
    int groups;
    double scaling_factor;
    bool use_quant_conv, use_post_quant_conv, middle_attends;
};

bool draft_vae_config_read(struct vae_config *config, const char *path, struct draft_error *err);
/* The same from text; sentences name `shown`. */
bool draft_vae_config_parse(struct vae_config *config, const char *text, const char *shown, struct draft_error *err);

struct vae_attention {
    struct draft_norm_layer group_norm;
    struct draft_linear_layer to_q, to_k, to_v, to_out; /* to_q.weight NULL: none */
};

struct vae_block {
    int layers;
    struct draft_resnet *resnet;
    struct draft_conv_layer sampler; /* weight NULL: none */
};

/* Encoder and decoder have the same parts in another order. */
struct vae_coder {
    struct draft_conv_layer conv_in, conv_out;
    struct draft_resnet middle[2];
    struct vae_attention attention;
    struct vae_block block[VAE_MAX_LEVELS];
    int levels;
    struct draft_norm_layer conv_norm_out;
};

void draft_vae_load_decoder(struct draft_loader *loader, struct vae_coder *decoder, const struct vae_config *config);
void draft_vae_load_encoder(struct draft_loader *loader, struct vae_coder *encoder, const struct vae_config *config);
struct draft_tensor *draft_vae_decoder_forward(struct draft_graph *g, const struct vae_coder *decoder,
                                               struct draft_tensor *x, bool recompute);
struct draft_tensor *draft_vae_encoder_forward(struct draft_graph *g, const struct vae_coder *encoder,
                                               struct draft_tensor *x, bool recompute);

#endif
