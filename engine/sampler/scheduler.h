/*
 * Noise schedules, from a diffusers scheduler_config.json of any class, read as the chosen sampler's own class would
 * read it with from_config: what only other classes know is dropped, what is absent takes that class's default.
 * Thread: read-only after open.
 */
#ifndef DRAFT_SAMPLER_SCHEDULER_H
#define DRAFT_SAMPLER_SCHEDULER_H

#include <stdbool.h>

#include "base/error.h"

enum draft_spacing { DRAFT_SPACING_LEADING, DRAFT_SPACING_TRAILING, DRAFT_SPACING_LINSPACE };
enum draft_prediction { DRAFT_PREDICT_EPSILON, DRAFT_PREDICT_V, DRAFT_PREDICT_SAMPLE };

struct draft_scheduler {
    int train_timesteps;
    double *alphas_cumprod; /* [train_timesteps], owned */
    double final_alpha_cumprod;
    enum draft_prediction prediction;
    enum draft_spacing spacing;
    int steps_offset;
    bool clip_sample; /* DDIM alone: x_0 is clamped to +- clip_sample_range before it goes into x_prev */
    double clip_sample_range;

    /* Where the classes' defaults differ: the two above are DDIM's unless the file says them. */
    bool spacing_given, final_alpha_given;
    bool zero_snr; /* rescale_betas_zero_snr */
    bool cosine;   /* beta_schedule squaredcos_cap_v2, where DPM++ takes Karras's timesteps down, not to the nearest */
    bool runge_kutta;      /* skip_prk_steps is said to be false */
    char other_sigmas[80]; /* a setting of the sigmas that no sampler here follows, as a clause; "": none */
};

/* Absent keys take DDIMScheduler's defaults, whatever class the file names; keys of no meaning here are skipped by a
 * list; what cannot be had with any sampler (thresholding, flow matching) or is not understood is refused. The caller
 * closes after success; after failure there is nothing to close. */
bool draft_scheduler_open(struct draft_scheduler *scheduler, const char *path,
                          struct draft_error *err); /* the json file */
bool draft_scheduler_parse(struct draft_scheduler *scheduler, const char *json, struct draft_error *err);
void draft_scheduler_close(struct draft_scheduler *scheduler);

#endif
