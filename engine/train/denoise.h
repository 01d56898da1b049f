/*
 * Denoising: the guided prediction of the tuned and of the frozen network, the DDIM step, and whole sampling runs
 * without gradient. Training, evaluation and previews all stand on these few functions.
 */
#ifndef DRAFT_TRAIN_DENOISE_H
#define DRAFT_TRAIN_DENOISE_H

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

/* The network's output at x_t after classifier-free guidance: u + w (c - u). `cached` may be NULL. */
struct draft_tensor *draft_guided(struct draft_graph *g, const struct draft_pipeline *pipeline, struct draft_tensor *x,
                                  int timestep, const struct draft_conditions *conditions,
                                  struct draft_unet_context *cached);
/* The same of the frozen network: the adapter off, no gradient. */
struct draft_tensor *draft_guided_frozen(struct draft_graph *g, const struct draft_pipeline *pipeline,
                                         struct draft_tensor *x, int timestep,
                                         const struct draft_conditions *conditions, struct draft_unet_context *cached);

/* Cross-attention keys and values of the frozen network for several calls; in the step arena, so that it must be made
 * below any mark the caller goes back to. */
struct draft_unet_context *draft_frozen_context(struct draft_graph *g, const struct draft_pipeline *pipeline,
                                                const struct draft_conditions *conditions);

/* epsilon from the network's output m at x_t, whatever it predicts. */
struct draft_tensor *draft_epsilon(struct draft_graph *g, const struct draft_sampler_step *step, struct draft_tensor *x,
                                   struct draft_tensor *m);

struct draft_denoised {
    struct draft_tensor *eps, *x0, *x_prev;
};
/* One DDIM step, eta 0, from x_t and the network's output. With clip_sample x0 is clipped, as diffusers does. */
struct draft_denoised draft_ddim_step(struct draft_graph *g, const struct draft_scheduler *scheduler,
                                      const struct draft_sampler_step *step, struct draft_tensor *x,
                                      struct draft_tensor *m);

/* For tests: told every value on the way under the name that draft_plus.py records it with ("latent.0", "eps.0", "x0",
 * "decoded", "image", "rewards", "lv0/x0", ...). */
struct draft_observer {
    void (*see)(void *context, const char *name, const struct draft_tensor *value);
    void *context;
};
void draft_observe(const struct draft_observer *observer, const struct draft_tensor *value, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A run of `count` steps without gradient. */
struct draft_sampling {
    const struct draft_sampler_step *steps;
    int count;
    const double *tuned; /* AIG: share of the tuned prediction at each step, the rest from the frozen; NULL: all 1 */
    int kl_steps;        /* also measures the KL to the frozen network, over the last so many steps */
    struct draft_progress *progress;       /* advanced by one each step; may be NULL */
    const struct draft_observer *observer; /* may be NULL */
};
/* x_T -> the latents after the last step. *kl (may be NULL when kl_steps is 0): mean over steps and batch. */
struct draft_tensor *draft_sample_latents(struct draft_graph *g, const struct draft_pipeline *pipeline,
                                          const struct draft_conditions *conditions,
                                          const struct draft_sampling *sampling, struct draft_tensor *x, double *kl);

#endif
