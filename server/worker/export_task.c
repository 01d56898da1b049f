#include "worker/work.h"

bool draftd_work_export(const Draftd__Worker__Export *task, struct draft_error *err)
{
    struct draft_export_options options = {.format = task->diffusers ? DRAFT_EXPORT_DIFFUSERS : DRAFT_EXPORT_KOHYA,
                                           .f32 = task->f32,
                                           .job = task->job_id,
                                           .reward = task->reward,
                                           .kl_coeff = task->kl_coeff};
    return draft_export_lora(task->checkpoint, task->path, &options, err);
}
