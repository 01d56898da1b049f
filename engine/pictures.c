/* A picture of the model as it stands: defaults of the job filled in, the rest checked. */
#include <math.h>

#include "train/sample.h"
#include "training.h"

/* Sampler and steps, the job's where the request says none, and the calls of the network that they take. */
static bool resolve_sampling(const struct draft_engine *e, struct draft_sample_request *request, int *calls,
                             struct draft_error *err)
{
    const struct draft_job_config *c = &e->config;
    struct draft_sampler_plan plan;
    if (!request->sampler || !request->sampler[0])
        request->sampler = c->sampler;
    if (request->steps == 0)
        request->steps = c->sampling_steps;
    const struct draft_sampler *sampler = draft_sampler_find(request->sampler, err);
    if (!sampler)
        return draft_error_blame(err, "spec.sampler");
    if (request->steps < 1 || request->steps > 1000)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.steps", "steps is %d; it must be from 1 to 1000",
                                request->steps);
    if (!draft_sampler_plan_make(&plan, sampler, &e->pipeline.scheduler, request->steps, err))
        return draft_error_blame(err, "spec.steps");
    *calls = plan.count;
    draft_sampler_plan_free(&plan);
    return true;
}

bool draft_engine_sample_calls(const struct draft_engine *e, const struct draft_sample_request *asked, int *calls,
                               struct draft_error *err)
{
    struct draft_sample_request request = *asked;
    return resolve_sampling(e, &request, calls, err);
}

bool draft_engine_sample(struct draft_engine *e, const struct draft_sample_request *asked,
                         struct draft_picture *picture, struct draft_error *err)
{
    const struct draft_job_config *c = &e->config;
    struct draft_sample_request request = *asked;
    *picture = (struct draft_picture){0};
    if (!request.negative)
        request.negative = c->negative_prompt;
    int calls;
    if (!resolve_sampling(e, &request, &calls, err))
        return false;
    if (request.guidance < 0)
        request.guidance = c->guidance;
    if (request.height == 0)
        request.height = c->height;
    if (request.width == 0)
        request.width = c->width;
    if (!(request.guidance <= 100))
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.guidance", "guidance is %g; it must be at most 100",
                                request.guidance);
    if (!(fabs(request.lora_scale) <= 100))
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.lora_scale",
                                "lora_scale is %g; it must be a number of at most 100", request.lora_scale);
    if (!e->adapter && request.lora_scale != 0 && request.lora_scale != 1)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.lora_scale",
                                "lora_scale is %g, but this job trained the UNet's own weights and has no LoRA to "
                                "scale; use 1 (tuned), 0 (base), or annealing (aig) between them",
                                request.lora_scale);
    if (request.ema && !e->ema)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.ema",
                                "this job keeps no average of its weights; submit it with ema_decay to have one");
    if (request.height < 1 || request.height > 4096 || request.width < 1 || request.width > 4096)
        return draft_fail_field(
            err, DRAFT_INVALID_ARGUMENT, request.height < 1 || request.height > 4096 ? "spec.height" : "spec.width",
            "a picture of %d x %d pixels is not possible; sides must be from 1 to 4096", request.width, request.height);
    if (!draft_engine_check_size(e, request.height, request.width, "spec", err))
        return false;
    if (!draft_progress_set(&e->progress, DRAFT_PHASE_PREVIEW, 0, calls))
        return draft_fail(err, DRAFT_CANCELLED, "the preview was stopped on request");
    bool frozen = request.lora_scale == 0 || request.aig != DRAFT_AIG_DRAFT;
    if (frozen && !e->adapter && !draft_engine_open_base(e, err))
        return false;
    if (request.ema && !draft_ema_swap(e->ema, e->backend, err))
        return false;
    bool ok = draft_sample_picture(&e->graph, &e->pipeline, &e->scoring, &request, &e->progress, picture, err);
    return (!request.ema || draft_ema_swap(e->ema, e->backend, err)) && ok;
}
