/*
 * Noise schedules and samplers, from a diffusers scheduler_config.json of any class, read as DDIMScheduler.from_config
 * would. DDIM (Song et al. 2021), eta 0. A sampler is one row in a table; DDIM is the first.
 * Thread: read-only after open.
 */
#ifndef DRAFT_SAMPLER_SCHEDULER_H
#define DRAFT_SAMPLER_SCHEDULER_H

#include "autograd/graph.h"

enum draft_spacing { DRAFT_SPACING_LEADING, DRAFT_SPACING_TRAILING, DRAFT_SPACING_LINSPACE };
enum draft_prediction { DRAFT_PREDICT_EPSILON, DRAFT_PREDICT_V, DRAFT_PREDICT_SAMPLE };

struct draft_scheduler {
    int train_timesteps;
    double *alphas_cumprod; /* [train_timesteps], owned */
    double final_alpha_cumprod;
    enum draft_prediction prediction;
    enum draft_spacing spacing;
    int steps_offset;
    bool clip_sample; /* x_0 is clamped to +- clip_sample_range before it goes into x_prev, by whoever takes the step */
    double clip_sample_range;
};

/* Absent keys take DDIMScheduler's defaults, whatever class the file names; keys of other samplers are skipped by a list;
 * what cannot be had with DDIM (thresholding, flow matching) or is not understood is refused. The caller closes after
 * success; after failure there is nothing to close. */
bool draft_scheduler_open(struct draft_scheduler *scheduler, const char *path, struct draft_error *err); /* the json file */
bool draft_scheduler_parse(struct draft_scheduler *scheduler, const char *json, struct draft_error *err);
void draft_scheduler_close(struct draft_scheduler *scheduler);

/* One step of a run: t, and the coefficients that turn the network's output m at x_t into x_0, epsilon and x_prev:
 *   x_0 = x0_x * x_t + x0_m * m;  eps = eps_x * x_t + eps_m * m;  x_prev = sqrt(a_prev) * x_0 + sqrt(1 - a_prev) * eps */
struct draft_sampler_step {
    int timestep;
    double alpha, alpha_prev; /* cumulative products */
    double x0_x, x0_m, eps_x, eps_m;
};

/* Fills steps[count] in sampling order. Refused: more steps than the model was trained on, an offset that leads beyond
 * them, a step whose x_0 the prediction cannot give (epsilon at zero signal). */
bool draft_scheduler_steps(const struct draft_scheduler *scheduler, int count, struct draft_sampler_step *steps,
                           struct draft_error *err);

#endif
