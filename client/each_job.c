#include "each_job.h"

#include "json_message.h"

int draft_each_job(struct draft_context *cx, const struct draft_arguments *arguments, draft_job_change change,
                   const char *done)
{
    int code = DRAFT_EXIT_OK;
    for (int i = 0; i < arguments->operand_count; i++) {
        char id[DRAFT_ID_BYTES];
        struct draft_status st = {0};
        draft_job *job = NULL;
        draft_job_id(arguments->operands[i], id);
        if (!change(draft_connect(cx), id, &job, &st)) {
            int failed = draft_report(cx, &st);
            code = code == DRAFT_EXIT_OK ? failed : code;
            continue;
        }
        if (job && cx->json)
            draft_message_print(&job->base, false, stdout);
        else if (job)
            fprintf(cx->err.out, "%s %s%s%s\n", id, draft_state_name(job->state), *job->reason ? ": " : "",
                    job->reason);
        else
            fprintf(cx->err.out, "%s %s\n", id, done);
        draft_free_message(job);
    }
    return code;
}
