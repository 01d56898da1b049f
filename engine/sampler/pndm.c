/*
 * PNDM (Liu et al. 2022, arXiv 2202.09778) without its Runge-Kutta start, which is PLMS, as Stable Diffusion 1.5 is
 * shipped: diffusers' PNDMScheduler with skip_prk_steps. The second timestep is called twice: the first step is taken
 * again from where it began, with the mean of the two outputs.
 */
#include <math.h>

#include "sampler/levels.h"

/* Of the list of T timesteps with its second one doubled. */
static int timestep_at(const struct draft_scheduler *scheduler, int T, int call)
{
    int n = scheduler->train_timesteps, i = call < 2 ? call : call - 1;
    switch (scheduler->spacing) {
    case DRAFT_SPACING_LEADING:
        return (int)draft_timestep_leading(n, T, i, scheduler->steps_offset);
    case DRAFT_SPACING_TRAILING:
        return (int)draft_timestep_trailing(n, T, i);
    case DRAFT_SPACING_LINSPACE:
        break;
    }
    return (int)rint(draft_timestep_linspace(n, T, i));
}

/* Adams-Bashforth: weights of this call's output and of the three before it, by how many there are. */
static const double weights[4][4] = {
    {1},
    {3.0 / 2, -1.0 / 2},
    {23.0 / 12, -16.0 / 12, 5.0 / 12},
    {55.0 / 24, -59.0 / 24, 37.0 / 24, -9.0 / 24},
};

/* Formula 9: x_s = of_x * x_t + of_eps * eps. */
struct transfer {
    double of_x, of_eps;
};
static struct transfer transfer(double alpha, double alpha_prev)
{
    double denominator = alpha * sqrt(1 - alpha_prev) + sqrt(alpha * (1 - alpha) * alpha_prev);
    return (struct transfer){sqrt(alpha_prev / alpha), -(alpha_prev - alpha) / denominator};
}

/* The outputs are averaged as the network gives them, and turned into epsilon at the level of `from` afterwards. */
static void set_weights(struct draft_sampler_step *step, int call, enum draft_prediction prediction, double alpha,
                        double alpha_prev)
{
    struct transfer to = transfer(alpha, alpha_prev);
    double eps_x = prediction == DRAFT_PREDICT_V ? sqrt(1 - alpha) : 0;
    double of_m = to.of_eps * (prediction == DRAFT_PREDICT_V ? sqrt(alpha) : 1), of_x = to.of_x + to.of_eps * eps_x;
    if (call == 1) { /* past: the first output, the first x */
        step->to_m = step->to_past[0] = of_m / 2;
        step->to_past[1] = of_x;
        return;
    }
    int before = call == 0 ? 0 : call > 4 ? 3 : call - 1;
    step->to_x = of_x;
    step->to_m = of_m * weights[before][0];
    for (int k = 0; k < before; k++)
        step->to_past[k] = of_m * weights[before][k + 1];
    step->keep_x = call == 0;
    step->keep_m = true;
}

static bool fits(const struct draft_scheduler *scheduler, struct draft_error *err)
{
    if (scheduler->runge_kutta)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "the scheduler's \"skip_prk_steps\" is false, and the sampler pndm is PLMS, without "
                          "Runge-Kutta steps; use another sampler");
    if (scheduler->prediction == DRAFT_PREDICT_SAMPLE)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "the sampler pndm needs a model that predicts epsilon or v, this one predicts the sample; "
                          "use another sampler");
    if (scheduler->zero_snr)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "the sampler pndm cannot start from the zero signal of rescale_betas_zero_snr; use another "
                          "sampler");
    return true;
}

static bool plan(const struct draft_sampler *sampler, const struct draft_scheduler *scheduler, int T,
                 struct draft_sampler_plan *out, struct draft_error *err)
{
    (void)sampler;
    int n = scheduler->train_timesteps, gap = n / T;
    const double *a = scheduler->alphas_cumprod;
    double final_alpha = scheduler->final_alpha_given ? scheduler->final_alpha_cumprod : a[0];
    if (!fits(scheduler, err))
        return false;
    out->count = T == 1 ? 1 : T + 1;
    for (int call = 0; call < out->count; call++) {
        struct draft_sampler_step *step = &out->step[call];
        int t = timestep_at(scheduler, T, call);
        int from = call == 1 ? t + gap : t, to = call == 1 ? t : t - gap;
        step->timestep = t < 0 || t >= n ? t : from; /* refused beyond the trained ones */
        if (t < 0 || t >= n || from >= n)
            continue;
        draft_step_level(step, t, sqrt(a[t]), sqrt(1 - a[t]), 1, scheduler->prediction);
        set_weights(step, call, scheduler->prediction, a[from], to >= 0 ? a[to] : final_alpha);
    }
    return true;
}

const struct draft_sampler draft_sampler_pndm = {.name = "pndm", .title = "PLMS", .past = 3, .plan = plan};
