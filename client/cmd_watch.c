#include <string.h>

#include "command.h"
#include "interrupt.h"
#include "jobs.h"
#include "json_message.h"
#include "live.h"

static bool print_raw(void *context, const Draftd__V1__WatchJobsResponse *message)
{
    (void)context;
    draft_message_print(&message->base, true, stdout);
    return fflush(stdout) == 0;
}

static int watch_json(struct draft_context *cx, const char *id)
{
    struct draft_follow follow = {.raw = print_raw};
    struct draft_status st = {0};
    draft_interrupt_install();
    draft_job *job = draft_follow_job(draft_connect(cx), id, &follow, &st);
    if (!job)
        return draft_report(cx, &st);
    int code = draft_state_exit(job->state);
    draft_free_message(job);
    return code;
}

/* The newest job in one of these states, if any; says how many there are. */
static bool newest_in(struct draft_context *cx, Draftd__V1__Job__State *states, size_t count, char id[DRAFT_ID_BYTES],
                      size_t *found, struct draft_status *st)
{
    Draftd__V1__ListJobsRequest request = DRAFTD__V1__LIST_JOBS_REQUEST__INIT;
    request.states = states;
    request.n_states = count;
    Draftd__V1__ListJobsResponse *reply = draft_rpc_list_jobs(draft_connect(cx), &request, st);
    if (!reply)
        return false;
    *found = reply->n_jobs;
    if (reply->n_jobs)
        draft_job_id(reply->jobs[0]->id, id);
    draft_free_message(reply);
    return true;
}

/* The newest job that runs, else the newest. */
static bool newest(struct draft_context *cx, char id[DRAFT_ID_BYTES], struct draft_status *st)
{
    Draftd__V1__Job__State running[] = {DRAFTD__V1__JOB__STATE__STATE_PREPARING, DRAFTD__V1__JOB__STATE__STATE_RUNNING};
    size_t found;
    if (!newest_in(cx, running, 2, id, &found, st))
        return false;
    if (found > 1)
        fprintf(cx->err.out, "%zu jobs are running, this is %s; `draft watch JOB` follows another\n", found, id);
    if (found == 0 && !newest_in(cx, NULL, 0, id, &found, st))
        return false;
    return found > 0 || draft_status_fail(st, DRAFT_STATUS_NOT_FOUND,
                                          "there is no job to watch; `draft submit --help` says how to make one");
}

static int run(struct draft_context *cx, const struct draft_arguments *arguments)
{
    char id[DRAFT_ID_BYTES];
    struct draft_status st = {0};
    if (arguments->operand_count)
        draft_job_id(arguments->operands[0], id);
    else if (!newest(cx, id, &st))
        return draft_report(cx, &st);
    if (cx->json)
        return watch_json(cx, id);
    return draft_watch_job(&cx->out, &cx->err, draft_connect(cx), id);
}

const struct draft_command draft_command_watch = {
    .name = "watch",
    .group = DRAFT_GROUP_WATCH,
    .summary = "follow a job live until it ends",
    .words = "log logs follow tail attach",
    .usage = "[JOB]",
    .about =
        "Shows the job's progress, rate, time left, phase, rewards, KL and LPIPS as they come; without JOB the newest "
        "that is running. On a terminal a few lines are redrawn in place, elsewhere every event is a line. When the "
        "daemon restarts, watching goes on from the last event seen. Ctrl-C stops watching, not the job. The exit "
        "code is the job's result: 0 succeeded, 1 failed, 9 cancelled.",
    .examples = "  draft watch job-3\n"
                "  draft watch job-3 > log.txt         plain lines\n"
                "  draft watch job-3 --json | jq .event  every message of the stream, one a line\n",
    .least = 0,
    .most = 1,
    .json = true,
    .run = run,
};
