#include "train/pipeline.h"

#include <stdio.h>
#include <stdlib.h>

#include "ops/ops.h"
#include "rewards/prompt_memory.h"
#include "train/model_files.h"

/* --- Opening ------------------------------------------------------------------------------------------------------ */

static bool open_tokenizer(struct draft_pipeline *p, const struct draft_model_files *files, struct draft_error *err)
{
    p->tokenizer = draft_tokenizer_open(files->tokenizer, err);
    return p->tokenizer && (!files->open_clip_padding || draft_tokenizer_pad_with(p->tokenizer, "!", err));
}

/* The parts of one folder may come from different models; what does not fit together is said here, not by an op. */
static bool parts_fit(const struct draft_pipeline *p, const char *folder, struct draft_error *err)
{
    long long width = draft_clip_text_width(p->text);
    if (p->unet_info.context_width != width)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "%s: the text encoder gives contexts of width %lld but the UNet expects %lld "
                          "(cross_attention_dim); the folder mixes parts of different models",
                          folder, width, (long long)p->unet_info.context_width);
    if (p->unet_info.in_channels != p->vae_info.latent_channels ||
        p->unet_info.out_channels != p->vae_info.latent_channels)
        return draft_fail(
            err, DRAFT_INVALID_ARGUMENT,
            "%s: the VAE's latents have %lld channels but the UNet takes %lld and gives %lld%s; only plain "
            "text-to-image models can be trained",
            folder, (long long)p->vae_info.latent_channels, (long long)p->unet_info.in_channels,
            (long long)p->unet_info.out_channels,
            p->unet_info.in_channels == 9   ? ", as for inpainting"
            : p->unet_info.in_channels == 8 ? ", as InstructPix2Pix does"
                                            : "");
    if (draft_tokenizer_vocabulary(p->tokenizer) > draft_clip_text_vocabulary(p->text))
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "%s: the tokenizer knows %d tokens but the text encoder %lld; the folder mixes parts of "
                          "different models",
                          folder, draft_tokenizer_vocabulary(p->tokenizer),
                          (long long)draft_clip_text_vocabulary(p->text));
    return true;
}

bool draft_pipeline_open(struct draft_pipeline *p, const char *model, struct draft_arena *arena,
                         struct draft_adapter *adapter, struct draft_error *err)
{
    *p = (struct draft_pipeline){.adapter = adapter};
    struct draft_model_files files;
    bool opened = draft_model_locate(&files, model, err) && open_tokenizer(p, &files, err) &&
                  (p->text = draft_clip_text_open(files.text, arena, err)) &&
                  (p->unet = draft_unet_open(files.unet, arena, adapter, err)) &&
                  (p->vae = draft_vae_open(files.vae, arena, err)) && draft_model_scheduler(&files, &p->scheduler, err);
    if (opened) {
        p->unet_info = draft_unet_info(p->unet);
        p->vae_info = draft_vae_info(p->vae);
        int64_t positions = draft_clip_text_max_positions(p->text);
        int limit = draft_tokenizer_max_length(p->tokenizer);
        p->context_tokens = limit < positions ? limit : (int)positions;
        opened = parts_fit(p, model, err);
    }
    if (opened)
        opened = (p->contexts = draft_prompt_memory_create(err)) != NULL;
    if (!opened)
        draft_pipeline_close(p);
    return opened;
}

bool draft_pipeline_open_base(struct draft_pipeline *p, const char *model, struct draft_arena *arena,
                              struct draft_error *err)
{
    struct draft_model_files files;
    return draft_model_locate(&files, model, err) && (p->base = draft_unet_open(files.unet, arena, NULL, err));
}

void draft_pipeline_close(struct draft_pipeline *p)
{
    draft_prompt_memory_destroy(p->contexts);
    draft_scheduler_close(&p->scheduler);
    draft_tokenizer_close(p->tokenizer);
    *p = (struct draft_pipeline){0};
}

/* --- Text in, pictures out ---------------------------------------------------------------------------------------- */

bool draft_prompt_length(const struct draft_pipeline *p, const char *prompt, int *length, struct draft_error *err)
{
    int32_t *ids = malloc((size_t)p->context_tokens * sizeof *ids);
    if (!ids)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the tokens of a prompt");
    bool ok = draft_tokenize(p->tokenizer, prompt, p->context_tokens, ids, length, err);
    free(ids);
    return ok;
}

/* Without a mark: the caller has a scope around it. */
static struct draft_tensor *encode(struct draft_graph *g, void *context, const char *prompt)
{
    const struct draft_pipeline *p = context;
    struct draft_tensor *ids = draft_new(g, DRAFT_I32, 2, (int64_t[]){1, p->context_tokens});
    bool ok = ids && draft_tokenize(p->tokenizer, prompt, p->context_tokens, ids->data, NULL, &g->error);
    return ok ? draft_clip_text_forward(g, p->text, ids) : NULL; /* [1, tokens, width] */
}

struct draft_tensor *draft_prompt_contexts(struct draft_graph *g, struct draft_pipeline *p, const char *const *prompts,
                                           int n)
{
    const int64_t dim[] = {p->context_tokens, p->unet_info.context_width};
    return draft_prompt_memory_embed(p->contexts, g, prompts, n, 2, dim, encode, p);
}

bool draft_latents_give(struct draft_graph *g, struct draft_tensor *x, const float *noise)
{
    float *out = draft_write(g, x);
    if (!out)
        return false;
    int64_t n = x->dim[0], pixels = x->dim[1] * x->dim[2], c = x->dim[3];
    for (int64_t b = 0; b < n; b++)
        for (int64_t i = 0; i < pixels; i++)
            for (int64_t k = 0; k < c; k++)
                out[(b * pixels + i) * c + k] = noise[(b * c + k) * pixels + i];
    return draft_written(g, x, out);
}

struct draft_tensor *draft_latents_from_nchw(struct draft_graph *g, const float *noise, int64_t n, int64_t h, int64_t w,
                                             int64_t c)
{
    struct draft_tensor *x = draft_new(g, DRAFT_F32, 4, (int64_t[]){n, h, w, c});
    return x && draft_latents_give(g, x, noise) ? x : NULL;
}

struct draft_tensor *draft_decode_image(struct draft_graph *g, const struct draft_pipeline *p,
                                        struct draft_tensor *latents, struct draft_tensor **decoded)
{
    float unscale = (float)(1 / p->vae_info.scaling_factor);
    struct draft_tensor *raw = draft_vae_decode(g, p->vae, draft_axpby(g, unscale, latents, 0, NULL));
    if (decoded)
        *decoded = raw;
    return draft_scale_clamp(g, raw, 0.5f, 0.5f, 0, 1);
}
