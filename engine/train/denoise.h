/*
 * Denoising: the guided prediction of the tuned and of the frozen network, and whole sampling runs without gradient.
 * The steps themselves are the sampler's (sampler/sampler.h). Training, evaluation and previews all stand on these few
 * functions.
 */
#ifndef DRAFT_TRAIN_DENOISE_H
#define DRAFT_TRAIN_DENOISE_H

#include "sampler/sampler.h"
#include "train/pipeline.h"
#include "train/progress.h"

/* What a batch is conditioned on, laid out for one call of the UNet. */
struct draft_conditions {
    int n;
    double guidance;              /* <= 1: no unconditional pass, as in diffusers */
    struct draft_tensor *context; /* [2n, tokens, width], unconditional ones first; [n, ...] without guidance */
};
/* Contexts in the step arena. False: the graph failed. */
bool draft_conditions_make(struct draft_graph *g, struct draft_pipeline *pipeline, const char *const *prompts, int n,
                           const char *negative, double guidance, struct draft_conditions *out);

/* The network's output at the step's x_t after classifier-free guidance: u + w (c - u). `cached` may be NULL. */
struct draft_tensor *draft_guided(struct draft_graph *g, const struct draft_pipeline *pipeline, struct draft_tensor *x,
                                  const struct draft_sampler_step *step, const struct draft_conditions *conditions,
                                  struct draft_unet_context *cached);
/* The same of the frozen network (the pipeline's base, or its UNet with the adapter off), no gradient. */
struct draft_tensor *draft_guided_frozen(struct draft_graph *g, const struct draft_pipeline *pipeline,
                                         struct draft_tensor *x, const struct draft_sampler_step *step,
                                         const struct draft_conditions *conditions, struct draft_unet_context *cached);

/* Cross-attention keys and values of the frozen network for several calls; in the step arena, so that it must be made
 * below any mark the caller goes back to. */
struct draft_unet_context *draft_frozen_context(struct draft_graph *g, const struct draft_pipeline *pipeline,
                                                const struct draft_conditions *conditions);

/* Where an ancestral sampler's fresh noise comes from. */
struct draft_fresh {
    /* N(0, 1) for one call of the network: [n, numbers], pictures first .. first+n-1, each as torch lays it out. */
    void (*draw)(void *context, int call, int first, int n, size_t numbers, float *out);
    void *context;
    int first; /* of the batch that is sampled */
};
/* Draws it into z, latents [n, h, w, c], where the step needs any. False: the graph failed. */
bool draft_fresh_noise(struct draft_graph *g, const struct draft_sampler_plan *plan, int call,
                       const struct draft_fresh *fresh, struct draft_tensor *z);

/* For tests: told every value on the way under the name that draft_plus.py records it with ("latent.0", "eps.0", "x0",
 * "decoded", "image", "rewards", "lv0/x0", ...). */
struct draft_observer {
    void (*see)(void *context, const char *name, const struct draft_tensor *value);
    void *context;
};
void draft_observe(const struct draft_observer *observer, const struct draft_tensor *value, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A run of the plan's first `count` calls, without gradient. */
struct draft_sampling {
    const struct draft_sampler_plan *plan;
    int count;
    const struct draft_fresh *fresh;       /* needed by ancestral samplers alone */
    struct draft_sampler_history *history; /* for whoever goes on from there; NULL: nobody does */
    const double *tuned; /* AIG: share of the tuned prediction at each call, the rest from the frozen; NULL: all 1 */
    int kl_steps;        /* also measures the KL to the frozen network, over the last so many calls */
    struct draft_progress *progress;       /* advanced by one each step; may be NULL */
    const struct draft_observer *observer; /* may be NULL */
};
/* x_T (draft_sampler_start) -> the latents after the last call, in x's own place: what was there is gone. *kl (may be
 * NULL when kl_steps is 0): mean over calls and batch. The calls are replayed (autograd/replay.h) unless an observer
 * looks on. */
struct draft_tensor *draft_sample_latents(struct draft_graph *g, const struct draft_pipeline *pipeline,
                                          const struct draft_conditions *conditions,
                                          const struct draft_sampling *sampling, struct draft_tensor *x, double *kl);

#endif
