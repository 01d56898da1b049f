#include "command.h"
#include "each_job.h"

DRAFT_JOB_CHANGE(change, cancel_job, CancelJob)

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    return draft_each_job(cx, arguments, change, "done");
}

const struct draft_command draft_command_cancel = {
    .name = "cancel",
    .group = DRAFT_GROUP_JOBS,
    .summary = "stop jobs for good, keeping their last checkpoint",
    .words = "stop kill abort",
    .usage = "JOB...",
    .about = "A queued job ends at once; a running one within seconds, and its last checkpoint stays for previews and "
             "exports. A job that has already ended is refused (exit code 5).",
    .examples = "  draft cancel job-3\n  draft cancel 3 4 5\n",
    .least = 1,
    .most = -1,
    .json = true,
    .run = run,
};
