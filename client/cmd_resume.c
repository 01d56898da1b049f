#include "command.h"
#include "each_job.h"

static bool change(struct draft_rpc *rpc, const char *id, draft_job **job, struct draft_status *st)
{
    Draftd__V1__ResumeJobRequest request = DRAFTD__V1__RESUME_JOB_REQUEST__INIT;
    request.job_id = (char *)(uintptr_t)id;
    Draftd__V1__ResumeJobResponse *reply = draft_rpc_resume_job(rpc, &request, st);
    if (!reply)
        return false;
    *job = reply->job;
    reply->job = NULL;
    draft_free_message(reply);
    return true;
}

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    return draft_each_job(cx, arguments, change, "done");
}

const struct draft_command draft_command_resume = {
    .name = "resume",
    .group = DRAFT_GROUP_JOBS,
    .summary = "queue paused or failed jobs again",
    .usage = "JOB...",
    .about = "Goes on from the last checkpoint. A failed job may be resumed too, once its cause is gone. Refused when "
             "the weight files have changed since the job was submitted.",
    .examples = "  draft resume job-3\n",
    .least = 1,
    .most = -1,
    .json = true,
    .run = run,
};
