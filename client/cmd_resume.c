#include "command.h"
#include "each_job.h"

DRAFT_JOB_CHANGE(change, resume_job, ResumeJob)

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    return draft_each_job(cx, arguments, change, "done");
}

const struct draft_command draft_command_resume = {
    .name = "resume",
    .group = DRAFT_GROUP_JOBS,
    .summary = "queue paused or failed jobs again",
    .words = "continue start restart unpause",
    .usage = "JOB...",
    .about = "Goes on from the last checkpoint. A failed job may be resumed too, once its cause is gone. Refused when "
             "the weight files have changed since the job was submitted.",
    .examples = "  draft resume job-3\n",
    .least = 1,
    .most = -1,
    .json = true,
    .run = run,
};
