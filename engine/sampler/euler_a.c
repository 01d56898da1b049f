/* Euler ancestral (k-diffusion's sample_euler_ancestral; diffusers' EulerAncestralDiscreteScheduler): down to
 * sigma_down by Euler's method, then up again to the next level by fresh noise. */
#include <math.h>

#include "sampler/euler.h"

static bool plan(const struct draft_sampler *sampler, const struct draft_scheduler *scheduler, int T,
                 struct draft_sampler_plan *out, struct draft_error *err)
{
    if (scheduler->prediction == DRAFT_PREDICT_SAMPLE)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "the sampler euler_a needs a model that predicts epsilon or v, this one predicts the sample; "
                          "use another sampler");
    if (!draft_euler_levels(sampler, scheduler, T, out, err))
        return false;
    for (int i = 0; i < T; i++) {
        /* In float32, as diffusers: where sigma is large, what rounding leaves of `down` is what it steps to. */
        float from = (float)out->step[i].noise, to = i + 1 < T ? (float)out->step[i + 1].noise : 0;
        float up = sqrtf(to * to * (from * from - to * to) / (from * from)), down = sqrtf(to * to - up * up);
        out->step[i].to_x0 = 1;
        out->step[i].to_eps = (double)down;
        out->step[i].to_fresh = (double)up;
    }
    return true;
}

const struct draft_sampler draft_sampler_euler_a = {.name = "euler_a", .title = "Euler a", .plan = plan};
