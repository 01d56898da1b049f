#include "train/merged.h"
#include "worker/spec.h"
#include "worker/work.h"

static bool export_merged(const Draftd__Worker__Export *task, struct draft_error *err)
{
    struct draft_job_config config;
    struct draft_merged_options options = {
        .config = &config, .checkpoint = task->checkpoint, .f32 = task->f32, .ema = task->ema};
    if (!draftd_spec_to_config(task->merged, NULL, 0, &config, err))
        return false;
    return task->single_file ? draft_export_merged_single(task->path, &options, err)
                             : draft_export_merged_folder(task->path, &options, err);
}

bool draftd_work_export(const Draftd__Worker__Export *task, struct draft_error *err)
{
    if (task->merged)
        return export_merged(task, err);
    struct draft_export_options options = {.format = task->diffusers ? DRAFT_EXPORT_DIFFUSERS : DRAFT_EXPORT_KOHYA,
                                           .f32 = task->f32,
                                           .ema = task->ema,
                                           .job = task->job_id,
                                           .reward = task->reward,
                                           .kl_coeff = task->kl_coeff};
    return draft_export_lora(task->checkpoint, task->path, &options, err);
}
