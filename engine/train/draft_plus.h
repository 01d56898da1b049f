/*
 * DRaFT, DRaFT-K, DRaFT-LV (Clark et al. 2023, arXiv 2309.17400) and DRaFT+ (NVIDIA): one forward and backward pass
 * over a global batch. Usable by itself: a test supplies noise, prompts and the adapter's values, and reads gradients.
 *
 *   maximise  E[ R(x_0(theta, x_T, c), c) ] - kl_coeff * KL,
 *   KL = (1/K) sum over the last K steps of mean (eps_theta(x_t, t, c) - eps_frozen(x_t, t, c))^2
 */
#ifndef DRAFT_TRAIN_DRAFT_PLUS_H
#define DRAFT_TRAIN_DRAFT_PLUS_H

#include "backend/shapes.h"
#include "train/denoise.h"
#include "train/scoring.h"

struct draft_plus {
    struct draft_graph *graph;
    struct draft_pipeline *pipeline; /* with its adapter on; its matrices' grad buffers are the caller's (adamw.h) */
    struct draft_scoring *scoring;

    const struct draft_sampler_plan *plan; /* of pipeline->scheduler; its calls of the network are the steps below */
    int truncation_steps;                  /* K */
    int lv_copies;                         /* DRaFT-LV's n; needs K = 1 */
    double guidance, kl_coeff;
    const char *negative_prompt;
    int64_t height, width; /* of the latents */
    int micro_batch;
    bool
        recompute; /* the network's blocks, and each of several calls before them, are run again in the backward pass */

    struct draft_progress *progress;       /* may be NULL */
    const struct draft_observer *observer; /* may be NULL; sees the first micro-batch, which is not replayed then */
};

struct draft_plus_batch {
    int n;                       /* the global batch */
    const char *const *prompts;  /* [n] */
    const float *noise;          /* x_T: [n, c, h, w] as torch lays it out */
    const float *const *renoise; /* DRaFT-LV's fresh noises: [lv_copies], each [n, c, h, w] */
    struct draft_fresh fresh;    /* of ancestral samplers */
};

/* Where the seconds of a step go, on the clock of whoever computes: sampling without gradient, with what comes before
 * it; the steps with gradient up to the loss; the backward pass; what was put to work before the step was read, which
 * is the optimizer. */
enum draft_plus_phase {
    DRAFT_PLUS_SAMPLE,
    DRAFT_PLUS_FORWARD,
    DRAFT_PLUS_BACKWARD,
    DRAFT_PLUS_OPTIMIZER,
    DRAFT_PLUS_PHASES,
};

/* Means over the global batch and its 1 + lv_copies pictures each. */
struct draft_plus_numbers {
    double loss, reward, kl; /* kl is 0 when kl_coeff is */
    double reward_std;       /* of the pictures' rewards, population */
    double term[DRAFT_MAX_TERMS], measure[DRAFT_MAX_TERMS];
    double grad_norm; /* what the optimizer told; 0: nothing */
    bool finite;      /* every micro-batch's loss, and grad_norm */
    double seconds[DRAFT_PLUS_PHASES];
};

/* What a step gives, where the backend computes, until somebody reads it: one tensor at the bottom of the step arena.
 *   [2]                     the optimizer's place for the gradient norm, a double
 *   [2 (1 + phases)]        doubles: when the clock was last read, then each phase's seconds
 *   [parts, copies]         losses; then KL, if there is any
 *   [copies, n]             rewards
 *   [terms, copies, n]      each term by itself
 *   [copies, n, h, w, 3]    pictures, if something is to be measured in them
 * parts: micro-batches; copies: 1 + lv_copies. */
struct draft_plus_results {
    struct draft_tensor *values;
    int64_t n, parts, copies, terms, picture; /* picture: numbers of one; 0: none are kept */
    int height, width;                        /* of the pictures */
};

/* Puts the step to work: adds the gradient of the loss to the adapter's grad buffers (overwrites those whose
 * grad_written is false). Empties the step arena before. Nothing is waited for but prompts' first encodings by the
 * backend's own rules. On failure the gradients are worthless and nothing else has changed. */
bool draft_plus_run(const struct draft_plus *dp, const struct draft_plus_batch *batch,
                    struct draft_plus_results *results, struct draft_error *err);
/* For the optimizer: what must be finite, and where the norm goes. */
struct draft_guard draft_plus_guard(const struct draft_plus_results *results);
/* Waits for the step, and for what was put to work behind it; reads everything at once; empties the step arena. */
bool draft_plus_read(const struct draft_plus *dp, const struct draft_plus_results *results,
                     struct draft_plus_numbers *numbers, struct draft_error *err);
/* Both. */
bool draft_plus_step(const struct draft_plus *dp, const struct draft_plus_batch *batch,
                     struct draft_plus_numbers *numbers, struct draft_error *err);

#endif
