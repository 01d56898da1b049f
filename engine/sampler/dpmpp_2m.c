/* DPM-Solver++ 2M (Lu et al. 2022, arXiv 2211.01095): multistep, second order, midpoint, x_0 of this call and of the
 * one before; first order at the first step and at the last, which ends at sigma 0. diffusers'
 * DPMSolverMultistepScheduler with its defaults. */
#include <math.h>

#include "sampler/levels.h"

/* One timestep more than T is laid out, and the one nearest to the data left away. */
static double timestep_at(const struct draft_scheduler *scheduler, int T, int i)
{
    int n = scheduler->train_timesteps;
    switch (draft_spacing_or_linspace(scheduler)) {
    case DRAFT_SPACING_LEADING:
        return draft_timestep_leading(n, T + 1, i, scheduler->steps_offset);
    case DRAFT_SPACING_TRAILING:
        return draft_timestep_trailing(n, T, i);
    case DRAFT_SPACING_LINSPACE:
        break;
    }
    return rint(draft_timestep_linspace(n, T + 1, i));
}

static void set_level(const struct draft_sampler *sampler, const struct draft_scheduler *scheduler, int T, int i,
                      struct draft_sampler_step *step)
{
    double timestep = timestep_at(scheduler, T, i), sigma;
    if (sampler->karras) {
        sigma = draft_karras_sigma(draft_sigma_at(scheduler, scheduler->train_timesteps - 1),
                                   draft_sigma_at(scheduler, 0), T, i);
        timestep = draft_timestep_of(scheduler, sigma);
        timestep = scheduler->cosine ? floor(timestep) : rint(timestep);
    } else {
        sigma = draft_sigma_at(scheduler, timestep);
    }
    sigma = (double)(float)sigma;
    double signal = 1 / sqrt(sigma * sigma + 1);
    draft_step_level(step, timestep, signal, sigma * signal, 1, scheduler->prediction);
}

/* lambda = log(alpha / sigma): half the log of the signal-to-noise ratio. */
static double lambda(const struct draft_sampler_step *step)
{
    return log(step->signal) - log(step->noise);
}

static void set_weights(struct draft_sampler_step *step, bool first, bool last)
{
    step->keep_x0 = true;
    if (last) {
        step->to_x0 = 1;
        return;
    }
    const struct draft_sampler_step *next = step + 1, *before = step - 1;
    double h = lambda(next) - lambda(step), of_x0 = -next->signal * expm1(-h);
    step->to_x = next->noise / step->noise;
    step->to_x0 = of_x0;
    if (!first) {
        double r = (lambda(step) - lambda(before)) / h;
        step->to_x0 += of_x0 / (2 * r);
        step->to_past[0] = -of_x0 / (2 * r);
    }
}

static bool plan(const struct draft_sampler *sampler, const struct draft_scheduler *scheduler, int T,
                 struct draft_sampler_plan *out, struct draft_error *err)
{
    if (!draft_plain_sigmas(sampler, scheduler, err))
        return false;
    for (int i = 0; i < T; i++)
        set_level(sampler, scheduler, T, i, &out->step[i]);
    for (int i = 0; i < T; i++)
        set_weights(&out->step[i], i == 0, i == T - 1);
    return true;
}

const struct draft_sampler draft_sampler_dpmpp_2m = {.name = "dpmpp_2m", .title = "DPM++ 2M", .past = 1, .plan = plan};
const struct draft_sampler draft_sampler_dpmpp_2m_karras = {
    .name = "dpmpp_2m_karras", .title = "DPM++ 2M Karras", .karras = true, .past = 1, .plan = plan};
