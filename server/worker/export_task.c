#include "train/merged.h"
#include "worker/spec.h"
#include "worker/work.h"

static bool export_merged(const Draftd__Worker__Export *task, struct draft_error *err)
{
    struct draft_job_config config;
    struct draft_merged_options options = {.config = &config, .checkpoint = task->checkpoint, .f32 = task->f32};
    return draftd_spec_to_config(task->merged, NULL, 0, &config, err) &&
           draft_export_merged_folder(task->path, &options, err);
}

bool draftd_work_export(const Draftd__Worker__Export *task, struct draft_error *err)
{
    if (task->merged)
        return export_merged(task, err);
    struct draft_export_options options = {.format = task->diffusers ? DRAFT_EXPORT_DIFFUSERS : DRAFT_EXPORT_KOHYA,
                                           .f32 = task->f32,
                                           .job = task->job_id,
                                           .reward = task->reward,
                                           .kl_coeff = task->kl_coeff};
    return draft_export_lora(task->checkpoint, task->path, &options, err);
}
