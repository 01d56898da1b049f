/* AutoencoderKL: encoder (mean, logvar) and decoder, shapes from config.json; the old attention names are accepted. */
#ifndef DRAFT_MODELS_VAE_H
#define DRAFT_MODELS_VAE_H

#include "autograd/graph.h"
#include "tensor/weights.h"

struct draft_vae;

struct draft_vae_info {
    int64_t latent_channels;
    int factor; /* pixels per latent: 2^(blocks-1) */
    double scaling_factor;
};

struct draft_vae *draft_vae_open(const char *path, struct draft_arena *arena, struct draft_error *err);
struct draft_vae_info draft_vae_info(const struct draft_vae *vae);
void draft_vae_set_recompute(struct draft_vae *vae, bool on);
/* latents [n, h, w, c] (already divided by the scaling factor) -> [n, f*h, f*w, 3], about [-1, 1] */
struct draft_tensor *draft_vae_decode(struct draft_graph *g, const struct draft_vae *vae, struct draft_tensor *latents);
/* Loads the encoder's weights, which sampling and training never need. Must come before draft_vae_encode. */
bool draft_vae_open_encoder(struct draft_vae *vae, struct draft_error *err);
/* images [n, h, w, 3] in [-1, 1] -> mean [n, h/f, w/f, c]; *logvar clamped to [-30, 20] as diffusers does */
struct draft_tensor *draft_vae_encode(struct draft_graph *g, const struct draft_vae *vae, struct draft_tensor *images,
                                      struct draft_tensor **logvar);

#endif
