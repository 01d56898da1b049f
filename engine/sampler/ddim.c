/* DDIM (Song et al. 2021, arXiv 2010.02502), eta 0; diffusers' DDIMScheduler. */
#include <math.h>

#include "sampler/levels.h"

static double timestep_at(const struct draft_scheduler *scheduler, int T, int i)
{
    int n = scheduler->train_timesteps;
    switch (scheduler->spacing) {
    case DRAFT_SPACING_LEADING:
        return draft_timestep_leading(n, T, i, scheduler->steps_offset);
    case DRAFT_SPACING_TRAILING:
        return draft_timestep_trailing(n, T, i);
    case DRAFT_SPACING_LINSPACE:
        break;
    }
    return rint(draft_timestep_linspace(n, T, i));
}

static bool plan(const struct draft_sampler *sampler, const struct draft_scheduler *scheduler, int T,
                 struct draft_sampler_plan *out, struct draft_error *err)
{
    (void)sampler;
    (void)err;
    int n = scheduler->train_timesteps;
    if (scheduler->clip_sample)
        out->clip = scheduler->clip_sample_range;
    for (int i = 0; i < T; i++) {
        struct draft_sampler_step *step = &out->step[i];
        int timestep = (int)timestep_at(scheduler, T, i), previous = timestep - n / T;
        step->timestep = timestep;
        if (timestep < 0 || timestep >= n)
            continue; /* refused by whoever asked for the plan */
        double alpha = scheduler->alphas_cumprod[timestep];
        double alpha_prev = previous >= 0 ? scheduler->alphas_cumprod[previous] : scheduler->final_alpha_cumprod;
        draft_step_level(step, timestep, sqrt(alpha), sqrt(1 - alpha), 1, scheduler->prediction);
        step->to_x0 = sqrt(alpha_prev);
        step->to_eps = sqrt(1 - alpha_prev);
    }
    return true;
}

const struct draft_sampler draft_sampler_ddim = {.name = "ddim", .title = "DDIM", .plan = plan};
