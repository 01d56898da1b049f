#include "sampler/levels.h"

#include <math.h>

double draft_timestep_leading(int n, int count, int i, int offset)
{
    return (double)(count - 1 - i) * (n / count) + offset;
}

/* numpy's arange(n, 0, -n / count): its step is the difference of the first two numbers, as stored. For some counts (61
 * of 1000 steps) rounding makes diffusers' list one longer, and its last timestep -1: that one step is not repeated
 * here. */
double draft_timestep_trailing(int n, int count, int i)
{
    double start = n, step = (start - (double)n / count) - start;
    return rint(i == 0 ? start : start + i * step) - 1; /* rint() rounds halves to even, as numpy does */
}

double draft_timestep_linspace(int n, int count, int i)
{
    double step = count > 1 ? (n - 1.0) / (count - 1) : 0;
    return i == 0 && count > 1 ? n - 1 : (count - 1 - i) * step;
}

enum draft_spacing draft_spacing_or_linspace(const struct draft_scheduler *scheduler)
{
    return scheduler->spacing_given ? scheduler->spacing : DRAFT_SPACING_LINSPACE;
}

static float trained_sigma(const struct draft_scheduler *scheduler, int i)
{
    float a = (float)scheduler->alphas_cumprod[i];
    if (scheduler->zero_snr && i == scheduler->train_timesteps - 1)
        a = 0x1p-24f;
    return sqrtf((1.0f - a) / a);
}

double draft_sigma_at(const struct draft_scheduler *scheduler, double timestep)
{
    int last = scheduler->train_timesteps - 1;
    if (!(timestep > 0))
        return (double)trained_sigma(scheduler, 0);
    if (timestep >= last)
        return (double)trained_sigma(scheduler, last);
    int below = (int)timestep;
    double low = (double)trained_sigma(scheduler, below), high = (double)trained_sigma(scheduler, below + 1);
    return (high - low) * (timestep - below) + low;
}

double draft_timestep_of(const struct draft_scheduler *scheduler, double sigma)
{
    double wanted = log(fmax(sigma, 1e-10));
    int low = 0,
        high = scheduler->train_timesteps - 1; /* the last whose log sigma is not above, but one of the last two */
    if (high == 0)
        return 0;
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if ((double)logf(trained_sigma(scheduler, middle)) <= wanted)
            low = middle;
        else
            high = middle;
    }
    double at_low = (double)logf(trained_sigma(scheduler, low)),
           at_high = (double)logf(trained_sigma(scheduler, low + 1));
    double w = (at_low - wanted) / (at_low - at_high);
    w = w < 0 ? 0 : w > 1 ? 1 : w;
    return (1 - w) * low + w * (low + 1);
}

double draft_karras_sigma(double max, double min, int count, int i)
{
    const double rho = 7;
    double ramp = count == 1 ? 0 : i == count - 1 ? 1 : i * (1.0 / (count - 1));
    double from = pow(max, 1 / rho), to = pow(min, 1 / rho);
    return pow(from + ramp * (to - from), rho);
}

bool draft_plain_sigmas(const struct draft_sampler *sampler, const struct draft_scheduler *scheduler,
                        struct draft_error *err)
{
    if (!scheduler->other_sigmas[0])
        return true;
    return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                      "the sampler %s cannot follow this model's scheduler: its %s; use ddim or pndm", sampler->name,
                      scheduler->other_sigmas);
}

/* v (Salimans and Ho 2022) belongs to x_t scaled to unit variance, which input_scale does. */
void draft_step_level(struct draft_sampler_step *step, double timestep, double signal, double noise, double input_scale,
                      enum draft_prediction prediction)
{
    step->timestep = timestep;
    step->signal = signal;
    step->noise = noise;
    step->input_scale = input_scale;
    switch (prediction) {
    case DRAFT_PREDICT_EPSILON:
        step->x0_x = 1 / signal;
        step->x0_m = -noise / signal;
        step->eps_x = 0;
        step->eps_m = 1;
        break;
    case DRAFT_PREDICT_V:
        step->x0_x = signal * input_scale * input_scale;
        step->x0_m = -noise * input_scale;
        step->eps_x = noise * input_scale * input_scale;
        step->eps_m = signal * input_scale;
        break;
    case DRAFT_PREDICT_SAMPLE:
        step->x0_x = 0;
        step->x0_m = 1;
        step->eps_x = 1 / noise;
        step->eps_m = -signal / noise;
        break;
    }
}
