#include "command.h"
#include "each_job.h"

DRAFT_JOB_CHANGE(change, pause_job, PauseJob)

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    return draft_each_job(cx, arguments, change, "done");
}

const struct draft_command draft_command_pause = {
    .name = "pause",
    .group = DRAFT_GROUP_JOBS,
    .summary = "save jobs' state and free the device",
    .usage = "JOB...",
    .about = "The job saves a checkpoint at its next step boundary, its worker process ends and the device is free for "
             "the next job. The command returns when all that is on disk. A paused and resumed job gives the same "
             "result, bit for bit, as one left alone.",
    .examples = "  draft pause job-3 && draft preview job-3\n  draft resume job-3\n",
    .least = 1,
    .most = -1,
    .json = true,
    .run = run,
};
