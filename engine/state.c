#include "state.h"

#include <stdio.h>
#include <string.h>

const char *draft_engine_fingerprint(const struct draft_engine *e)
{
    return e->fingerprint;
}

const struct draft_job_config *draft_engine_config(const struct draft_engine *e)
{
    return &e->config;
}

int draft_engine_evaluation_prompts(const struct draft_engine *e, const char *const **prompts)
{
    *prompts = e->evaluation_prompts;
    return e->evaluation_prompt_count;
}

int64_t draft_engine_step_count(const struct draft_engine *e)
{
    return e->step_count;
}

int64_t draft_engine_total_steps(const struct draft_engine *e)
{
    return draft_job_config_total_steps(&e->config);
}

bool draft_engine_evaluation_due(const struct draft_engine *e)
{
    int every = e->config.evaluation.every;
    if (every < 0)
        return false;
    return e->step_count == 0 || e->step_count >= draft_engine_total_steps(e) ||
           (every > 0 && e->step_count % every == 0);
}

struct draft_plus draft_engine_algorithm(struct draft_engine *e)
{
    const struct draft_job_config *c = &e->config;
    return (struct draft_plus){
        .graph = &e->graph,
        .pipeline = &e->pipeline,
        .scoring = &e->scoring,
        .plan = &e->plan,
        /* K = T is full DRaFT, whatever the number of calls that T steps take */
        .truncation_steps = c->truncation_steps == c->sampling_steps ? e->plan.count : c->truncation_steps,
        .lv_copies = c->lv_copies,
        .guidance = c->guidance,
        .kl_coeff = c->kl_coeff,
        .negative_prompt = c->negative_prompt,
        .height = e->latent_height,
        .width = e->latent_width,
        .micro_batch = c->micro_batch,
        .recompute = c->recompute,
        .progress = &e->progress,
    };
}

/* Pixels a side must be a multiple of: the VAE's factor times what the UNet halves. */
static bool side_fits(int pixels, int multiple, const char *field, struct draft_error *err)
{
    if (pixels % multiple == 0)
        return true;
    int nearest = (pixels + multiple / 2) / multiple * multiple;
    return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field,
                            "%s is %d pixels; this model needs a multiple of %d, the nearest is %d",
                            strrchr(field, '.') + 1, pixels, multiple, nearest > 0 ? nearest : multiple);
}

bool draft_engine_check_size(const struct draft_engine *e, int height, int width, const char *prefix,
                             struct draft_error *err)
{
    int multiple = e->pipeline.vae_info.factor * e->pipeline.unet_info.side_multiple;
    char field[64];
    snprintf(field, sizeof field, "%s.height", prefix);
    if (!side_fits(height, multiple, field, err))
        return false;
    snprintf(field, sizeof field, "%s.width", prefix);
    return side_fits(width, multiple, field, err);
}
