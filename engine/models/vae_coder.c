/* diffusers' vae.py: Encoder and Decoder, with their UNetMidBlock2D, DownEncoderBlock2D and UpDecoderBlock2D. */
#include <stdio.h>

#include "models/vae_parts.h"

/* No config sets it: every norm of the VAE has it. */
static const float NORM_EPS = 1e-6f;

static void load_attention(struct draft_loader *loader, struct vae_attention *a, int64_t c, int groups,
                           const char *coder)
{
    char name[64], old[64];
    static const char *const RENAMED[][2] = {
        {"to_q", "query"}, {"to_k", "key"}, {"to_v", "value"}, {"to_out.0", "proj_attn"}};
    for (size_t i = 0; i < sizeof RENAMED / sizeof *RENAMED; i++) { /* diffusers before 0.15 */
        snprintf(name, sizeof name, "%s.mid_block.attentions.0.%s.", coder, RENAMED[i][0]);
        snprintf(old, sizeof old, "%s.mid_block.attentions.0.%s.", coder, RENAMED[i][1]);
        draft_weights_alias(loader->weights, name, old);
    }
    snprintf(name, sizeof name, "%s.mid_block.attentions.0", coder);
    draft_load_group_norm(loader, &a->group_norm, c, groups, NORM_EPS, "%s.group_norm", name);
    draft_load_linear(loader, &a->to_q, c, c, true, "%s.to_q", name);
    draft_load_linear(loader, &a->to_k, c, c, true, "%s.to_k", name);
    draft_load_linear(loader, &a->to_v, c, c, true, "%s.to_v", name);
    draft_load_linear(loader, &a->to_out, c, c, true, "%s.to_out.0", name);
}

static void load_middle(struct draft_loader *loader, struct vae_coder *coder, const struct vae_config *config,
                        const char *name)
{
    int64_t c = config->channels[config->levels - 1];
    draft_load_resnet(loader, &coder->middle[0], c, c, 0, config->groups, NORM_EPS, "%s.mid_block.resnets.0", name);
    if (config->middle_attends)
        load_attention(loader, &coder->attention, c, config->groups, name);
    draft_load_resnet(loader, &coder->middle[1], c, c, 0, config->groups, NORM_EPS, "%s.mid_block.resnets.1", name);
}

static void load_block(struct draft_loader *loader, struct vae_block *block, int64_t in, int64_t out, int layers,
                       int groups, const char *name)
{
    block->layers = layers;
    block->resnet = draft_load_alloc(loader, (size_t)layers * sizeof *block->resnet);
    for (int i = 0; i < layers && block->resnet != NULL; i++)
        draft_load_resnet(loader, &block->resnet[i], i == 0 ? in : out, out, 0, groups, NORM_EPS, "%s.resnets.%d", name,
                          i);
}

void draft_vae_load_decoder(struct draft_loader *loader, struct vae_coder *decoder, const struct vae_config *config)
{
    char name[64];
    const int levels = config->levels, groups = config->groups;
    const int64_t *c = config->channels;
    decoder->levels = levels;
    draft_load_conv(loader, &decoder->conv_in, config->latent_channels, c[levels - 1], 3, 1, 1, "decoder.conv_in");
    load_middle(loader, decoder, config, "decoder");
    for (int i = 0; i < levels; i++) { /* from the lowest resolution up */
        int64_t out = c[levels - 1 - i], in = i > 0 ? c[levels - i] : out;
        snprintf(name, sizeof name, "decoder.up_blocks.%d", i);
        load_block(loader, &decoder->block[i], in, out, config->layers + 1, groups, name);
        if (i + 1 < levels)
            draft_load_conv(loader, &decoder->block[i].sampler, out, out, 3, 1, 1, "%s.upsamplers.0.conv", name);
    }
    draft_load_group_norm(loader, &decoder->conv_norm_out, c[0], groups, NORM_EPS, "decoder.conv_norm_out");
    draft_load_conv(loader, &decoder->conv_out, c[0], config->out_channels, 3, 1, 1, "decoder.conv_out");
}

void draft_vae_load_encoder(struct draft_loader *loader, struct vae_coder *encoder, const struct vae_config *config)
{
    char name[64];
    const int levels = config->levels, groups = config->groups;
    const int64_t *c = config->channels;
    encoder->levels = levels;
    draft_load_conv(loader, &encoder->conv_in, config->in_channels, c[0], 3, 1, 1, "encoder.conv_in");
    for (int i = 0; i < levels; i++) {
        snprintf(name, sizeof name, "encoder.down_blocks.%d", i);
        load_block(loader, &encoder->block[i], c[i > 0 ? i - 1 : 0], c[i], config->layers, groups, name);
        if (i + 1 < levels) {
            struct draft_conv_layer *down = &encoder->block[i].sampler;
            draft_load_conv(loader, down, c[i], c[i], 3, 2, 0, "%s.downsamplers.0.conv", name);
            down->args.pad_right = down->args.pad_bottom = 1; /* Downsample2D with padding 0 pads (0, 1, 0, 1) */
        }
    }
    load_middle(loader, encoder, config, "encoder");
    draft_load_group_norm(loader, &encoder->conv_norm_out, c[levels - 1], groups, NORM_EPS, "encoder.conv_norm_out");
    draft_load_conv(loader, &encoder->conv_out, c[levels - 1], 2 * config->latent_channels, 3, 1, 1,
                    "encoder.conv_out");
}

/* The units of recompute and of no-gradient scopes. */

static struct draft_tensor *resnet_unit(struct draft_graph *g, void *module, struct draft_tensor *const *in)
{
    return draft_resnet_forward(g, module, in[0], NULL);
}

static struct draft_tensor *attention_unit(struct draft_graph *g, void *module, struct draft_tensor *const *in)
{
    const struct vae_attention *a = module;
    struct draft_tensor *x = in[0];
    struct draft_tensor *h = draft_to_tokens(g, group_norm(g, x, &a->group_norm)); /* [n, h*w, c] */
    struct draft_tensor *q = linear(g, h, &a->to_q), *k = linear(g, h, &a->to_k), *v = linear(g, h, &a->to_v);
    h = draft_attention(g, q, k, v, 1, false);
    h = linear_onto(g, draft_to_tokens(g, x), h, &a->to_out); /* [n, h*w, c] */
    return draft_to_image(g, h, x->dim[1], x->dim[2]);
}

static struct draft_tensor *upsample_unit(struct draft_graph *g, void *module, struct draft_tensor *const *in)
{
    const struct draft_tensor *x = in[0];
    return conv(g, draft_upsample_nearest(g, in[0], 2 * x->dim[1], 2 * x->dim[2]), module);
}

static struct draft_tensor *downsample_unit(struct draft_graph *g, void *module, struct draft_tensor *const *in)
{
    return conv(g, in[0], module);
}

static struct draft_tensor *out_unit(struct draft_graph *g, void *module, struct draft_tensor *const *in)
{
    const struct vae_coder *coder = module;
    return conv(g, group_norm_silu(g, in[0], &coder->conv_norm_out), &coder->conv_out);
}

static struct draft_tensor *run(struct draft_graph *g, draft_block unit, const void *module, struct draft_tensor *x,
                                bool recompute)
{
    if (!draft_model_continue(g))
        return NULL;
    if (recompute && g->recording)
        return draft_recompute(g, unit, (void *)module, &x, 1);
    struct draft_mark mark = draft_scope_begin(g);
    return draft_scope_end(g, mark, unit(g, (void *)module, &x));
}

static struct draft_tensor *middle(struct draft_graph *g, const struct vae_coder *coder, struct draft_tensor *x,
                                   bool recompute)
{
    x = run(g, resnet_unit, &coder->middle[0], x, recompute);
    if (coder->attention.to_q.weight != NULL)
        x = run(g, attention_unit, &coder->attention, x, recompute);
    return run(g, resnet_unit, &coder->middle[1], x, recompute);
}

struct draft_tensor *draft_vae_decoder_forward(struct draft_graph *g, const struct vae_coder *decoder,
                                               struct draft_tensor *x, bool recompute)
{
    x = conv(g, x, &decoder->conv_in);    /* [n, h, w, c_last] */
    x = middle(g, decoder, x, recompute); /* [n, h, w, c_last] */
    for (int i = 0; i < decoder->levels; i++) {
        const struct vae_block *block = &decoder->block[i];
        for (int j = 0; j < block->layers; j++)
            x = run(g, resnet_unit, &block->resnet[j], x, recompute); /* [n, h, w, c] */
        if (block->sampler.weight != NULL)
            x = run(g, upsample_unit, &block->sampler, x, recompute); /* [n, 2h, 2w, c] */
    }
    return run(g, out_unit, decoder, x, recompute); /* [n, f*h, f*w, 3] */
}

struct draft_tensor *draft_vae_encoder_forward(struct draft_graph *g, const struct vae_coder *encoder,
                                               struct draft_tensor *x, bool recompute)
{
    x = conv(g, x, &encoder->conv_in); /* [n, h, w, c0] */
    for (int i = 0; i < encoder->levels; i++) {
        const struct vae_block *block = &encoder->block[i];
        for (int j = 0; j < block->layers; j++)
            x = run(g, resnet_unit, &block->resnet[j], x, recompute); /* [n, h, w, c] */
        if (block->sampler.weight != NULL)
            x = run(g, downsample_unit, &block->sampler, x, recompute); /* [n, h/2, w/2, c] */
    }
    x = middle(g, encoder, x, recompute);           /* [n, h/f, w/f, c_last] */
    return run(g, out_unit, encoder, x, recompute); /* [n, h/f, w/f, 2 latent] */
}
