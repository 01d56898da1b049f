/* diffusers' autoencoder_kl.py: AutoencoderKL. */
#include "models/vae.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "models/part.h"
#include "models/vae_parts.h"

struct draft_vae {
    struct vae_config config;
    struct draft_arena *arena;
    const char *path;                   /* its folder, or the single file it is in */
    struct vae_coder decoder, *encoder; /* encoder NULL until asked for */
    struct draft_linear_layer quant_conv, post_quant_conv;
    bool recompute;
};

static const char STEM[] = "diffusion_pytorch_model";
static const char *const INERT[] = {NULL};

static bool pass_on(const struct draft_error *error, struct draft_error *err)
{
    return error->code == DRAFT_OK || draft_fail(err, error->code, "%s", error->message);
}

static bool read_config(void *config, const char *path, struct draft_error *err)
{
    return draft_vae_config_read(config, path, err);
}

static bool parse_config(void *config, const char *text, const char *shown, struct draft_error *err)
{
    return draft_vae_config_parse(config, text, shown, err);
}

static const struct draft_part PART = {
    .part = DRAFT_LDM_VAE, .stem = STEM, .title = "the VAE", .read = read_config, .parse = parse_config};

struct draft_vae *draft_vae_open(const char *path, struct draft_arena *arena, struct draft_error *err)
{
    struct vae_config config;
    struct draft_weights *weights = draft_part_open(path, &PART, &config, arena, err);
    if (weights == NULL)
        return NULL;
    struct draft_loader loader;
    draft_loader_init(&loader, weights, arena, NULL);
    struct draft_vae *vae = draft_load_alloc(&loader, sizeof *vae);
    if (vae != NULL) {
        vae->config = config;
        vae->arena = arena;
        vae->path = draft_arena_strdup(arena, path);
        draft_vae_load_decoder(&loader, &vae->decoder, &config);
        if (config.use_post_quant_conv)
            draft_load_pointwise(&loader, &vae->post_quant_conv, config.latent_channels, config.latent_channels,
                                 "post_quant_conv");
    }
    draft_weights_leave(weights, "encoder.");
    if (config.use_quant_conv)
        draft_weights_leave(weights, "quant_conv.");
    if (loader.error.code == DRAFT_OK)
        draft_weights_finish(weights, INERT, &loader.error);
    draft_weights_close(weights);
    return pass_on(&loader.error, err) ? vae : NULL;
}

bool draft_vae_open_encoder(struct draft_vae *vae, struct draft_error *err)
{
    if (vae->encoder != NULL)
        return true;
    struct draft_weights *weights = draft_part_weights(vae->path, STEM, DRAFT_LDM_VAE, vae->arena, err);
    if (weights == NULL)
        return false;
    struct draft_loader loader;
    draft_loader_init(&loader, weights, vae->arena, NULL);
    struct vae_coder *encoder = draft_load_alloc(&loader, sizeof *encoder);
    if (encoder != NULL) {
        draft_vae_load_encoder(&loader, encoder, &vae->config);
        if (vae->config.use_quant_conv)
            draft_load_pointwise(&loader, &vae->quant_conv, 2 * vae->config.latent_channels,
                                 2 * vae->config.latent_channels, "quant_conv");
    }
    draft_weights_close(weights);
    if (loader.error.code == DRAFT_OK)
        vae->encoder = encoder;
    return pass_on(&loader.error, err);
}

struct draft_vae_info draft_vae_info(const struct draft_vae *vae)
{
    return (struct draft_vae_info){vae->config.latent_channels, 1 << (vae->config.levels - 1),
                                   vae->config.scaling_factor};
}

void draft_vae_set_recompute(struct draft_vae *vae, bool on)
{
    vae->recompute = on;
}

static bool check_input(struct draft_graph *g, const struct draft_tensor *x, const char *what, int64_t channels,
                        int64_t multiple)
{
    char shape[96];
    if (!draft_graph_ok(g))
        return false;
    if (x->rank != 4 || x->dim[3] != channels || x->dim[1] % multiple != 0 || x->dim[2] % multiple != 0)
        return draft_fail(&g->error, DRAFT_INVALID_ARGUMENT,
                          "the VAE takes %s [n, h, w, %d] with h and w multiples of %d, not %s", what, (int)channels,
                          (int)multiple, draft_shape_text(x->rank, x->dim, shape, sizeof shape));
    return true;
}

struct draft_tensor *draft_vae_decode(struct draft_graph *g, const struct draft_vae *vae, struct draft_tensor *latents)
{
    if (!check_input(g, latents, "latents", vae->config.latent_channels, 1))
        return NULL;
    struct draft_mark mark = draft_scope_begin(g);
    struct draft_tensor *x = enter(g, latents); /* [n, h, w, c] */
    if (vae->config.use_post_quant_conv)
        x = linear(g, x, &vae->post_quant_conv);                        /* [n, h, w, c] */
    x = draft_vae_decoder_forward(g, &vae->decoder, x, vae->recompute); /* [n, f*h, f*w, 3] */
    return draft_scope_end(g, mark, leave(g, x));
}

struct draft_tensor *draft_vae_encode(struct draft_graph *g, const struct draft_vae *vae, struct draft_tensor *images,
                                      struct draft_tensor **logvar)
{
    assert(vae->encoder != NULL && "draft_vae_open_encoder comes first");
    const struct vae_config *c = &vae->config;
    if (!check_input(g, images, "images", c->in_channels, (int64_t)1 << (c->levels - 1)))
        return NULL;
    struct draft_mark mark = draft_scope_begin(g);
    struct draft_tensor *x = enter(g, images);                         /* [n, h, w, 3] */
    x = draft_vae_encoder_forward(g, vae->encoder, x, vae->recompute); /* [n, h/f, w/f, 2c] */
    if (c->use_quant_conv)
        x = linear(g, x, &vae->quant_conv); /* [n, h/f, w/f, 2c] */
    x = draft_scope_end(g, mark, leave(g, x));
    /* DiagonalGaussianDistribution */
    if (logvar != NULL)
        *logvar =
            draft_scale_clamp(g, draft_slice_channels(g, x, c->latent_channels, c->latent_channels), 1, 0, -30, 20);
    return draft_slice_channels(g, x, 0, c->latent_channels);
}
