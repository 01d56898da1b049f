/*
 * Evaluation: fixed prompts, fixed noise, so that every call and every job with the same seed is comparable. For each
 * prompt N pictures from N noises: mean reward, KL to the frozen network (measured whatever kl_coeff is), and
 * diversity, the mean pairwise LPIPS of a prompt's N pictures, then the mean over prompts.
 */
#ifndef DRAFT_TRAIN_EVALUATE_H
#define DRAFT_TRAIN_EVALUATE_H

#include "models/lpips.h"
#include "train/denoise.h"
#include "train/scoring.h"

struct draft_evaluation {
    struct draft_graph *graph;
    struct draft_pipeline *pipeline;
    struct draft_scoring *scoring;
    struct draft_lpips *lpips; /* NULL: no diversity */
    const char *const *prompts;
    int prompt_count, seeds; /* seeds: N */
    const struct draft_sampler_plan *plan;
    int kl_steps; /* KL over the last kl_steps, as in training */
    double guidance;
    const char *negative_prompt;
    int64_t height, width; /* of the latents */
    uint64_t seed;
    int micro_batch; /* pictures at a time: bounds the memory */
    struct draft_progress *progress;
};

struct draft_evaluation_numbers {
    double reward, kl, lpips; /* lpips is NaN without a model */
    double reward_std;        /* over all pictures, population */
    double term[DRAFT_MAX_TERMS], measure[DRAFT_MAX_TERMS];
};

/* No gradient; changes nothing but the step arena, which it empties before and after. */
bool draft_evaluate(const struct draft_evaluation *evaluation, struct draft_evaluation_numbers *numbers,
                    struct draft_error *err);

#endif
