/*
 * A diffusers StableDiffusionPipeline folder, opened: tokenizer/, text_encoder/, unet/, vae/, scheduler/; or a
 * single-file checkpoint with the original names (model_files.h). The base model is here once; the adapter it was
 * opened with turns it into the tuned one and back. Only a job that trains the UNet's own weights has the UNet twice.
 *
 * Ownership: weights live in the arena given; draft_pipeline_close() frees the rest. Thread: one.
 */
#ifndef DRAFT_TRAIN_PIPELINE_H
#define DRAFT_TRAIN_PIPELINE_H

#include "models/clip.h"
#include "models/tokenizer.h"
#include "models/unet.h"
#include "models/vae.h"
#include "sampler/scheduler.h"

struct draft_prompt_memory;

struct draft_pipeline {
    struct draft_tokenizer *tokenizer;
    struct draft_clip_text *text;
    struct draft_unet *unet;
    struct draft_unet
        *base; /* the frozen network, where unet's own weights are trained; NULL: unet with its adapter off */
    struct draft_vae *vae;
    struct draft_scheduler scheduler;
    struct draft_adapter *adapter; /* borrowed; NULL: base model only */

    struct draft_unet_info unet_info;
    struct draft_vae_info vae_info;
    int context_tokens; /* of a prompt's context: min(tokenizer's limit, encoder's positions) */
    struct draft_prompt_memory *contexts;
};

bool draft_pipeline_open(struct draft_pipeline *pipeline, const char *model, struct draft_arena *arena,
                         struct draft_adapter *adapter, struct draft_error *err);
/* pipeline->base: the UNet of the same model once more, in an arena of its own. */
bool draft_pipeline_open_base(struct draft_pipeline *pipeline, const char *model, struct draft_arena *arena,
                              struct draft_error *err);
void draft_pipeline_close(struct draft_pipeline *pipeline); /* zeroed is fine */

/* Contexts of n prompts, [n, tokens, width], in the step arena, without gradient. Each prompt is encoded by itself,
 * once: a bounded cache keeps what was encoded, and the numbers do not depend on what else was in the batch. */
struct draft_tensor *draft_prompt_contexts(struct draft_graph *g, struct draft_pipeline *pipeline,
                                           const char *const *prompts, int n);

/* Tokens of a prompt before truncation, begin and end included. */
bool draft_prompt_length(const struct draft_pipeline *pipeline, const char *prompt, int *length,
                         struct draft_error *err);

/* Noise as torch lays it out, n times [c, h, w], into the latents x [n, h, w, c]; notes are left in their arena. */
bool draft_latents_give(struct draft_graph *g, struct draft_tensor *x, const float *noise);
/* The same into new latents, in the step arena. */
struct draft_tensor *draft_latents_from_nchw(struct draft_graph *g, const float *noise, int64_t n, int64_t h, int64_t w,
                                             int64_t c);

/* clip((decode(latents / scaling_factor) + 1) / 2, 0, 1). *decoded (may be NULL) is the decoder's own output. */
struct draft_tensor *draft_decode_image(struct draft_graph *g, const struct draft_pipeline *pipeline,
                                        struct draft_tensor *latents, struct draft_tensor **decoded);

#endif
