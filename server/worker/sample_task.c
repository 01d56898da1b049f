#include "worker/open_job.h"
#include "worker/previews.h"
#include "worker/work.h"

bool draftd_work_sample(struct draftd_work *work, const Draftd__Worker__Sample *task, bool *stopped,
                        struct draft_error *err)
{
    if (!task->job || !task->preview)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the task names no job or no preview");
    struct draftd_open_job job;
    bool ok = draftd_open_job(&job, work, task->job, true, err);
    if (ok)
        draftd_preview_run(work, job.engine, task->job->job_id, task->preview);
    else
        draftd_preview_refuse(work, task->preview, err);
    draftd_open_job_close(&job);
    *stopped = draftd_line_stop(work->line) != DRAFTD_STOP_NO;
    return ok;
}
