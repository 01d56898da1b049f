/* What a job trains, the frozen copy beside it, and both on disk. */
#include "training.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/memory_limit.h"
#include "train/base_lora.h"
#include "train/checkpoint.h"

bool draft_engine_open_trained(struct draft_engine *e, struct draft_error *err)
{
    const struct draft_job_config *c = &e->config;
    bool listed = e->adapter ? draft_trained_adapter(&e->trained, e->adapter, e->weights, err)
                             : draft_trained_unet(&e->trained, e->pipeline.unet, e->weights, err);
    if (!listed || !draft_trained_move(&e->trained, e->backend, e->parameters, err))
        return false;
    if (c->ema_decay > 0 && !(e->ema = draft_ema_create(&e->trained, c->ema_decay, e->weights, err)))
        return false;
    if (c->sample_only)
        return true;
    if (!e->adapter && !draft_unet_train_weights(e->pipeline.unet, true, err))
        return false;
    return (e->opt = draft_adamw_create(&e->trained, e->weights, err)) &&
           (e->adapter || c->kl_coeff == 0 || draft_engine_open_base(e, err));
}

/* The backend may keep packed forms of the matrices that have just changed. */
void draft_engine_forget_packed(struct draft_engine *e)
{
    draft_backend_forget_all(e->backend, e->trained.tensor, e->trained.count);
}

/* --- The frozen copy ---------------------------------------------------------------------------------------------- */

bool draft_engine_open_base(struct draft_engine *e, struct draft_error *err)
{
    const struct draft_job_config *c = &e->config;
    if (e->pipeline.base)
        return true;
    bool ok = (e->base = draft_arena_create("base", draft_memory_limit(), err)) &&
              draft_pipeline_open_base(&e->pipeline, c->model, e->base, err);
    for (int i = 0; ok && i < c->base_lora_count; i++)
        ok = draft_lora_merge(c->base_lora[i].path, c->base_lora[i].weight, e->pipeline.base, NULL, err);
    if (!ok) {
        draft_error_prefix(err, "the frozen copy of the UNet: ");
        draft_engine_close_base(e);
    }
    return ok;
}

static void forget(void *backend, struct draft_tensor *weight)
{
    draft_backend_forget(backend, weight);
}

void draft_engine_close_base(struct draft_engine *e)
{
    if (e->pipeline.base)
        draft_unet_each_weight(e->pipeline.base, forget, e->backend);
    e->pipeline.base = NULL;
    draft_arena_destroy(e->base);
    e->base = NULL;
}

/* --- Checkpoints -------------------------------------------------------------------------------------------------- */

bool draft_engine_save(struct draft_engine *e, const char *path, struct draft_saved *saved, struct draft_error *err)
{
    struct draft_checkpoint_info info = {.step = e->step_count,
                                         .updates = e->opt->updates,
                                         .bad_steps = e->bad_steps,
                                         .rank = e->adapter ? e->adapter->rank : 0,
                                         .alpha = e->adapter ? e->adapter->alpha : 0};
    struct draft_checkpoint_state state = {&e->trained, e->opt, e->ema};
    memcpy(info.config, e->config_digest, sizeof info.config);
    /* SD 2.x conditions on OpenCLIP-H's 1024 numbers, SD 1.x on CLIP-L's 768. */
    snprintf(info.architecture, sizeof info.architecture, "stable-diffusion-v%d",
             e->pipeline.unet_info.context_width == 1024 ? 2 : 1);
    snprintf(info.prediction, sizeof info.prediction, "%s",
             e->pipeline.scheduler.prediction == DRAFT_PREDICT_V ? "v" : "epsilon");
    draft_progress_set(&e->progress, DRAFT_PHASE_SAVING, 0, 1);
    if (!draft_checkpoint_save(path, &info, &state, saved, err)) {
        draft_error_prefix(err, "checkpoint of step %" PRId64 ": ", e->step_count);
        return false;
    }
    return true;
}

bool draft_engine_restore(struct draft_engine *e, const char *path, struct draft_error *err)
{
    struct draft_checkpoint_state state = {&e->trained, e->opt, e->ema};
    struct draft_checkpoint checkpoint;
    if (!draft_checkpoint_open(&checkpoint, path, err))
        return false;
    bool ok = true;
    if (strcmp(checkpoint.info.config, e->config_digest) != 0)
        ok = draft_fail(err, DRAFT_FAILED_PRECONDITION,
                        "%s was made by a job with other settings or other weights; it cannot go on with these", path);
    else if (checkpoint.info.step > draft_engine_total_steps(e))
        ok = draft_fail(err, DRAFT_FAILED_PRECONDITION, "%s is at step %" PRId64 ", beyond this job's %" PRId64, path,
                        checkpoint.info.step, draft_engine_total_steps(e));
    ok = ok && draft_checkpoint_take(&checkpoint, &state, err);
    if (ok) {
        e->step_count = checkpoint.info.step;
        e->bad_steps = checkpoint.info.bad_steps;
        draft_engine_forget_packed(e);
    }
    draft_checkpoint_close(&checkpoint);
    return ok;
}
