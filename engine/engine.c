/* An engine is opened, file by file, and closed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "autograd/profile.h"
#include "backend/open.h"
#include "base/memory_limit.h"
#include "fingerprint.h"
#include "memory_plan.h"
#include "train/base_lora.h"
#include "training.h"

enum { DEFAULT_EVALUATION_PROMPTS = 8 };

static bool loading(struct draft_engine *e, int done, struct draft_error *err)
{
    enum { PARTS = 5 };
    if (draft_progress_set(&e->progress, DRAFT_PHASE_LOADING, done, PARTS))
        return true;
    return draft_fail(err, DRAFT_CANCELLED, "loading was stopped on request");
}

/* The CPU refuses bf16 where it has not the instructions. */
static const char *field_at_fault(const struct draft_job_config *c)
{
    struct draft_device_choice choice;
    bool may_be_cpu = draft_device_parse(c->device, &choice, NULL) && (choice.automatic || choice.cpu);
    return may_be_cpu && c->precision == DRAFT_PRECISION_BF16 ? "spec.precision" : "spec.device";
}

static struct draft_backend *open_backend(const struct draft_job_config *c, struct draft_error *err)
{
    struct draft_backend_options options = {
        .threads = c->threads, .isa = c->isa, .bf16 = c->precision == DRAFT_PRECISION_BF16};
    const char *libraries = getenv("DRAFT_CUDA_LIBRARIES");
    if (c->gpu_memory)
        return draft_backend_open_dry(NULL, libraries, &draft_services, err);
    /* Pictures of what was trained in bf16 on a GPU may be asked for where there is none, nor such instructions. */
    bool exact_will_do = c->sample_only && options.bf16;
    struct draft_backend *backend =
        draft_backend_open(c->device, libraries, &options, &draft_services, exact_will_do ? NULL : err);
    options.bf16 = false;
    return backend || !exact_will_do ? backend
                                     : draft_backend_open(c->device, libraries, &options, &draft_services, err);
}

static bool open_machine(struct draft_engine *e, struct draft_error *err)
{
    size_t limit = draft_memory_limit();
    if (!(e->backend = open_backend(&e->config, err)))
        return draft_error_blame(err, field_at_fault(&e->config));
    bool gpu = !draft_backend_on_host(e->backend);
    if (gpu && !(e->parameters = draft_backend_arena(e->backend, "parameter", SIZE_MAX / 4, err)))
        return false;
    if (!(e->weights = draft_arena_create("engine", limit, err)) ||
        !(e->step = draft_backend_arena(e->backend, "step", gpu ? SIZE_MAX / 4 : limit, err)) ||
        !draft_graph_init(&e->graph, e->backend, e->step, err))
        return false;
    if (gpu && e->config.precision != DRAFT_PRECISION_FP32)
        e->graph.activations = DRAFT_BF16;
    e->graph.frees_activations = true;
    e->graph.keep_going = draft_progress_keep_going;
    e->graph.context = &e->progress;
    return true;
}

static bool begin_from_files(struct draft_engine *e, struct draft_error *err)
{
    const struct draft_job_config *c = &e->config;
    for (int i = 0; i < c->base_lora_count; i++) {
        char field[64];
        snprintf(field, sizeof field, "spec.base_loras[%d].path", i);
        if (!draft_lora_merge(c->base_lora[i].path, c->base_lora[i].weight, e->pipeline.unet, e->pipeline.text, err))
            return draft_error_blame(err, field);
    }
    if (c->continue_from && c->continue_from[0] && !draft_lora_continue(c->continue_from, e->adapter, err))
        return draft_error_blame(err, "spec.lora.continue_from");
    return true;
}

static bool open_models(struct draft_engine *e, struct draft_error *err)
{
    const struct draft_job_config *c = &e->config;
    if (!loading(e, 0, err) || !draft_fingerprint(c, &e->progress, e->fingerprint, err))
        return false;
    if (c->train == DRAFT_TRAIN_LORA &&
        !(e->adapter = draft_adapter_create(e->weights, c->lora_rank, (float)c->lora_alpha, c->seed, err)))
        return false;
    if (!loading(e, 1, err))
        return false;
    if (!draft_pipeline_open(&e->pipeline, c->model, e->weights, e->adapter, err))
        return draft_error_blame(err, "spec.model");
    if (!begin_from_files(e, err))
        return false;
    if (e->adapter && e->adapter->count == 0)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.model",
                                "%s/unet has no attention blocks for a LoRA to sit on; it cannot be trained", c->model);
    if (!loading(e, 2, err) || !draft_scoring_open(&e->scoring, c->reward, c->reward_count, e->weights, err) ||
        !loading(e, 3, err))
        return false;
    if (c->evaluation.lpips && !(e->lpips = draft_lpips_open(c->evaluation.lpips, e->weights, err)))
        return draft_error_blame(err, "spec.evaluation.lpips");
    return loading(e, 4, err);
}

static void count_weight(void *context, struct draft_tensor *weight)
{
    *(uint64_t *)context += (uint64_t)draft_tensor_count(weight);
}

static bool set_size(struct draft_engine *e, struct draft_error *err)
{
    struct draft_job_config *c = &e->config;
    int factor = e->pipeline.vae_info.factor;
    if (c->height == 0)
        c->height = (int)e->pipeline.unet_info.sample_height * factor;
    if (c->width == 0)
        c->width = (int)e->pipeline.unet_info.sample_width * factor;
    if (!draft_engine_check_size(e, c->height, c->width, "spec.sampling", err))
        return false;
    e->latent_height = c->height / factor;
    e->latent_width = c->width / factor;
    return true;
}

/* The dataset's first different prompts, unless the job names its own. */
static bool choose_prompts(struct draft_engine *e, struct draft_error *err)
{
    const struct draft_job_config *c = &e->config;
    int room = c->evaluation.prompt_count > 0 ? c->evaluation.prompt_count : DEFAULT_EVALUATION_PROMPTS;
    e->evaluation_prompts = malloc((size_t)room * sizeof *e->evaluation_prompts);
    if (!e->evaluation_prompts)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the evaluation's prompts");
    if (c->evaluation.prompt_count > 0) {
        memcpy(e->evaluation_prompts, c->evaluation.prompts, (size_t)room * sizeof *e->evaluation_prompts);
        e->evaluation_prompt_count = room;
        return true;
    }
    for (int i = 0; i < c->prompt_count && e->evaluation_prompt_count < room; i++) {
        bool seen = false;
        for (int j = 0; j < e->evaluation_prompt_count; j++)
            seen |= strcmp(c->prompts[i], e->evaluation_prompts[j]) == 0;
        if (!seen)
            e->evaluation_prompts[e->evaluation_prompt_count++] = c->prompts[i];
    }
    return true;
}

static bool plan_sampling(struct draft_engine *e, struct draft_error *err)
{
    const struct draft_job_config *c = &e->config;
    const struct draft_sampler *sampler = draft_sampler_find(c->sampler, err);
    if (!sampler)
        return draft_error_blame(err, "spec.sampling.sampler");
    if (!draft_sampler_plan_make(&e->plan, sampler, &e->pipeline.scheduler, c->sampling_steps, err))
        return draft_error_blame(err, "spec.sampling.steps");
    if (!draft_sampler_plan_make(&e->evaluation_plan, sampler, &e->pipeline.scheduler, c->evaluation.sampling_steps,
                                 err))
        return draft_error_blame(err, "spec.evaluation.sampling_steps");
    return true;
}

static bool open_training(struct draft_engine *e, struct draft_error *err)
{
    if (!set_size(e, err) || !choose_prompts(e, err) || !plan_sampling(e, err))
        return false;
    size_t numbers = (size_t)(e->latent_height * e->latent_width * e->pipeline.unet_info.in_channels);
    draft_unet_each_weight(e->pipeline.unet, count_weight, &e->base_parameters);
    return draft_engine_open_trained(e, err) &&
           (e->batches = draft_batches_create(&e->config, numbers, e->plan.count, err)) &&
           draft_config_digest(e, e->config_digest, err) && draft_memory_plan(e, err) && loading(e, 5, err);
}

struct draft_engine *draft_engine_open(const struct draft_job_config *config, const struct draft_watch *watch,
                                       struct draft_error *err)
{
    struct draft_engine *e = calloc(1, sizeof *e);
    if (!e) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for an engine");
        return NULL;
    }
    e->config = *config;
    if (watch)
        e->watch = *watch;
    e->progress.watch = &e->watch;
    if (!draft_job_config_resolve(&e->config, err) || !open_machine(e, err) || !open_models(e, err) ||
        !open_training(e, err)) {
        draft_engine_close(e);
        return NULL;
    }
    return e;
}

void draft_engine_close(struct draft_engine *e)
{
    if (!e)
        return;
    draft_batches_destroy(e->batches);
    draft_scoring_close(&e->scoring);
    draft_pipeline_close(&e->pipeline);
    draft_profile_destroy(e->profile);
    draft_graph_finish(&e->graph);
    draft_arena_destroy(e->step);
    draft_arena_destroy(e->parameters);
    draft_backend_destroy(e->backend);
    draft_arena_destroy(e->base);
    draft_arena_destroy(e->weights);
    free(e->evaluation_prompts);
    draft_sampler_plan_free(&e->evaluation_plan);
    draft_sampler_plan_free(&e->plan);
    free(e);
}
