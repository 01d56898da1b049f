/* Euler's method on the probability flow ODE (Karras et al. 2022, arXiv 2206.00364, algorithm 2 without churn), x =
 * x_0 + sigma epsilon; diffusers' EulerDiscreteScheduler. Euler ancestral plans the same levels (euler_a.c). */
#include <math.h>

#include "sampler/euler.h"
#include "sampler/levels.h"

static double timestep_at(const struct draft_scheduler *scheduler, int T, int i)
{
    int n = scheduler->train_timesteps;
    switch (draft_spacing_or_linspace(scheduler)) {
    case DRAFT_SPACING_LEADING:
        return draft_timestep_leading(n, T, i, scheduler->steps_offset);
    case DRAFT_SPACING_TRAILING:
        return draft_timestep_trailing(n, T, i);
    case DRAFT_SPACING_LINSPACE:
        break;
    }
    return (double)(float)draft_timestep_linspace(n, T, i);
}

bool draft_euler_levels(const struct draft_sampler *sampler, const struct draft_scheduler *scheduler, int T,
                        struct draft_sampler_plan *out, struct draft_error *err)
{
    if (!draft_plain_sigmas(sampler, scheduler, err))
        return false;
    double first = draft_sigma_at(scheduler, timestep_at(scheduler, T, 0));
    double last = draft_sigma_at(scheduler, timestep_at(scheduler, T, T - 1));
    for (int i = 0; i < T; i++) {
        double timestep = timestep_at(scheduler, T, i), sigma = draft_sigma_at(scheduler, timestep);
        if (sampler->karras) {
            sigma = draft_karras_sigma(first, last, T, i);
            timestep = draft_timestep_of(scheduler, sigma);
        }
        sigma = (double)(float)sigma;
        draft_step_level(&out->step[i], (double)(float)timestep, 1, sigma, 1 / sqrt(sigma * sigma + 1),
                         scheduler->prediction);
    }
    double top = out->step[0].noise;
    out->init_noise = draft_spacing_or_linspace(scheduler) == DRAFT_SPACING_LEADING ? sqrt(top * top + 1) : top;
    return true;
}

static bool plan(const struct draft_sampler *sampler, const struct draft_scheduler *scheduler, int T,
                 struct draft_sampler_plan *out, struct draft_error *err)
{
    if (!draft_euler_levels(sampler, scheduler, T, out, err))
        return false;
    for (int i = 0; i < T; i++) { /* x + (next - sigma) epsilon, without the difference of two large numbers */
        out->step[i].to_x0 = 1;
        out->step[i].to_eps = i + 1 < T ? out->step[i + 1].noise : 0;
    }
    return true;
}

const struct draft_sampler draft_sampler_euler = {.name = "euler", .title = "Euler", .plan = plan};
const struct draft_sampler draft_sampler_euler_karras = {
    .name = "euler_karras", .title = "Euler Karras", .karras = true, .plan = plan};
