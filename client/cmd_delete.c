#include "command.h"
#include "each_job.h"

static bool change(struct draft_rpc *rpc, const char *id, draft_job **job, struct draft_status *st)
{
    Draftd__V1__DeleteJobRequest request = DRAFTD__V1__DELETE_JOB_REQUEST__INIT;
    (void)job;
    request.job_id = (char *)(uintptr_t)id;
    Google__Protobuf__Empty *reply = draft_rpc_delete_job(rpc, &request, st);
    draft_free_message(reply);
    return reply != NULL;
}

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    return draft_each_job(cx, arguments, change, "deleted");
}

const struct draft_command draft_command_delete = {
    .name = "delete",
    .group = DRAFT_GROUP_JOBS,
    .summary = "remove ended or paused jobs with all they made",
    .words = "rm remove del",
    .usage = "JOB...",
    .about =
        "Removes the job, its metrics, pictures and checkpoints. There is no way back; export the LoRA first. A job "
        "that runs or waits must be cancelled or paused before.",
    .examples = "  draft export job-3 -o lora.safetensors && draft delete job-3\n",
    .least = 1,
    .most = -1,
    .run = run,
};
