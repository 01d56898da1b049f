/* DDIM's steps (Song et al. 2021), numbered as diffusers' DDIMScheduler numbers them. */
#include "sampler/scheduler.h"

#include <assert.h>
#include <math.h>

/* numpy's arange(n, 0, -n / count): its step is the difference of the first two numbers, as stored. For some counts (61
 * of 1000 steps) rounding makes diffusers' list one longer, and its last timestep -1: that one step is not repeated
 * here. */
static double trailing(int n, int count, int i)
{
    double start = n, step = (start - (double)n / count) - start;
    return i == 0 ? start : start + i * step;
}

/* Timestep i of count in sampling order. rint() rounds halves to even, as numpy does. */
static double timestep_at(const struct draft_scheduler *scheduler, int count, int i)
{
    int n = scheduler->train_timesteps;
    switch (scheduler->spacing) {
    case DRAFT_SPACING_LEADING:
        return (double)(count - 1 - i) * (n / count) + scheduler->steps_offset;
    case DRAFT_SPACING_TRAILING:
        return rint(trailing(n, count, i)) - 1;
    case DRAFT_SPACING_LINSPACE:
        break;
    }
    double step = count > 1 ? (n - 1.0) / (count - 1) : 0;
    return i == 0 && count > 1 ? n - 1 : rint((count - 1 - i) * step);
}

/* x_0 and epsilon from x_t and the network's output, for one alpha (cumulative product). */
static void set_coefficients(struct draft_sampler_step *step, enum draft_prediction prediction)
{
    double signal = sqrt(step->alpha), noise = sqrt(1 - step->alpha);
    switch (prediction) {
    case DRAFT_PREDICT_EPSILON:
        step->x0_x = 1 / signal;
        step->x0_m = -noise / signal;
        step->eps_x = 0;
        step->eps_m = 1;
        break;
    case DRAFT_PREDICT_V:
        step->x0_x = signal;
        step->x0_m = -noise;
        step->eps_x = noise;
        step->eps_m = signal;
        break;
    case DRAFT_PREDICT_SAMPLE:
        step->x0_x = 0;
        step->x0_m = 1;
        step->eps_x = 1 / noise;
        step->eps_m = -signal / noise;
        break;
    }
}

bool draft_scheduler_steps(const struct draft_scheduler *scheduler, int count, struct draft_sampler_step *steps,
                           struct draft_error *err)
{
    int n = scheduler->train_timesteps;
    if (count < 1 || count > n)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "%d sampling steps are not possible: this model was trained on %d timesteps; ask for 1 to %d",
                          count, n, n);
    for (int i = 0; i < count; i++) {
        struct draft_sampler_step *step = &steps[i];
        double timestep = timestep_at(scheduler, count, i);
        if (timestep < 0 || timestep >= n)
            return draft_fail(
                err, DRAFT_INVALID_ARGUMENT,
                "%d sampling steps with the scheduler's steps_offset %d lead to timestep %d of %d; ask for "
                "fewer steps",
                count, scheduler->steps_offset, (int)timestep, n);
        step->timestep = (int)timestep;
        int previous = step->timestep - n / count;
        step->alpha = scheduler->alphas_cumprod[step->timestep];
        step->alpha_prev = previous >= 0 ? scheduler->alphas_cumprod[previous] : scheduler->final_alpha_cumprod;
        set_coefficients(step, scheduler->prediction);
        if (!isfinite(step->x0_x) || !isfinite(step->x0_m) || !isfinite(step->eps_x) || !isfinite(step->eps_m))
            return draft_fail(
                err, DRAFT_INVALID_ARGUMENT,
                "timestep %d has a signal of %g, from which this scheduler's prediction_type cannot give x_0 "
                "and epsilon; such a schedule needs v_prediction",
                step->timestep, step->alpha);
    }
    return true;
}
