#include "jobs.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "interrupt.h"

static const struct {
    const char *name;
    enum draft_colour colour;
    bool ended;
    enum draft_exit code;
} states[] = {
    [DRAFTD__V1__JOB__STATE__STATE_UNSPECIFIED] = {"unknown", DRAFT_PLAIN, false, DRAFT_EXIT_FAILED},
    [DRAFTD__V1__JOB__STATE__STATE_QUEUED] = {"queued", DRAFT_CYAN, false, DRAFT_EXIT_OK},
    [DRAFTD__V1__JOB__STATE__STATE_PREPARING] = {"preparing", DRAFT_CYAN, false, DRAFT_EXIT_OK},
    [DRAFTD__V1__JOB__STATE__STATE_RUNNING] = {"running", DRAFT_GREEN, false, DRAFT_EXIT_OK},
    [DRAFTD__V1__JOB__STATE__STATE_PAUSED] = {"paused", DRAFT_YELLOW, false, DRAFT_EXIT_OK},
    [DRAFTD__V1__JOB__STATE__STATE_CANCELLING] = {"cancelling", DRAFT_YELLOW, false, DRAFT_EXIT_OK},
    [DRAFTD__V1__JOB__STATE__STATE_SUCCEEDED] = {"succeeded", DRAFT_GREEN, true, DRAFT_EXIT_OK},
    [DRAFTD__V1__JOB__STATE__STATE_FAILED] = {"failed", DRAFT_RED, true, DRAFT_EXIT_FAILED},
    [DRAFTD__V1__JOB__STATE__STATE_CANCELLED] = {"cancelled", DRAFT_YELLOW, true, DRAFT_EXIT_JOB_CANCELLED},
};

/* A newer daemon may know more states than we do. */
static size_t known(draft_job_state state)
{
    return (size_t)state < sizeof states / sizeof states[0] ? (size_t)state : 0;
}

const char *draft_state_name(draft_job_state state)
{
    return states[known(state)].name;
}

enum draft_colour draft_state_colour(draft_job_state state)
{
    return states[known(state)].colour;
}

bool draft_state_ended(draft_job_state state)
{
    return states[known(state)].ended;
}

enum draft_exit draft_state_exit(draft_job_state state)
{
    return states[known(state)].code;
}

const char *draft_job_id(const char *operand, char id[DRAFT_ID_BYTES])
{
    bool digits = *operand && strspn(operand, "0123456789") == strlen(operand);
    snprintf(id, DRAFT_ID_BYTES, "%s%s", digits ? "job-" : "", operand);
    return id;
}

const char *draft_job_title(const draft_job *job)
{
    if (!job->spec)
        return "";
    if (*job->spec->display_name)
        return job->spec->display_name;
    const char *slash = strrchr(job->spec->model, '/');
    return slash ? slash + 1 : job->spec->model;
}

double draft_job_kl_coeff(const draft_job *job)
{
    return job->spec && job->spec->kl_coeff_opt_case == DRAFTD__V1__JOB_SPEC__KL_COEFF_OPT_KL_COEFF
               ? job->spec->kl_coeff
               : 1.0;
}

Draftd__V1__CreateJobResponse *draft_create_job(struct draft_rpc *rpc, const Draftd__V1__CreateJobRequest *request,
                                                const struct draft_terminal *messages, struct draft_status *st)
{
    struct draft_block wait = {.terminal = messages};
    char line[1][DRAFT_BLOCK_BYTES] = {"checking model, rewards and prompts; a large model takes some seconds"};
    if (messages->tty)
        draft_block_draw(&wait, line, 1);
    Draftd__V1__CreateJobResponse *reply = draft_rpc_create_job(rpc, request, st);
    draft_block_clear(&wait);
    return reply;
}

draft_job *draft_get_job(struct draft_rpc *rpc, const char *id, struct draft_status *st)
{
    Draftd__V1__GetJobRequest request = DRAFTD__V1__GET_JOB_REQUEST__INIT;
    request.job_id = (char *)(uintptr_t)id;
    Draftd__V1__GetJobResponse *reply = draft_rpc_get_job(rpc, &request, st);
    if (!reply)
        return NULL;
    draft_job *job = reply->job;
    reply->job = NULL;
    draft_free_message(reply);
    if (!job)
        draft_status_fail(st, DRAFT_STATUS_INTERNAL, "the daemon's answer holds no job");
    return job;
}

/* --- Following -----------------------------------------------------------------------------------------------------
 */

struct following {
    const struct draft_follow *follow;
    struct draft_rpc *rpc;
    const char *id;
    draft_job *job;
    int64_t revision; /* the last seen */
    bool stop, lost;
};

static void take(struct following *f, draft_job **from)
{
    draft_free_message(f->job);
    f->job = *from;
    *from = NULL;
}

static void handle(struct following *f, Draftd__V1__WatchJobsResponse *message, struct draft_status *st)
{
    const struct draft_follow *follow = f->follow;
    Draftd__V1__JobEvent *event = message->event;
    if (message->revision > f->revision)
        f->revision = message->revision;
    if (follow->raw && !follow->raw(follow->context, message))
        f->stop = true;
    for (size_t i = 0; i < message->n_snapshot; i++)
        if (!strcmp(message->snapshot[i]->id, f->id))
            take(f, &message->snapshot[i]);
    if (event && event->kind == DRAFTD__V1__JOB_EVENT__KIND__KIND_DELETED) {
        draft_status_fail(st, DRAFT_STATUS_NOT_FOUND, "%s was deleted", f->id);
        return;
    }
    if (event && event->job)
        take(f, &event->job);
    if (f->job && (event || message->is_snapshot) && follow->update && !follow->update(follow->context, f->job, event))
        f->stop = true;
}

static void set_lost(struct following *f, bool lost)
{
    if (f->lost != lost && f->follow->connection)
        f->follow->connection(f->follow->context, lost);
    f->lost = lost;
}

static void tick(const struct following *f)
{
    if (f->follow->tick)
        f->follow->tick(f->follow->context);
}

/* One stream from where we are to its end. */
static void read_stream(struct following *f, struct draft_status *st)
{
    Draftd__V1__WatchJobsRequest request = DRAFTD__V1__WATCH_JOBS_REQUEST__INIT;
    request.job_id = (char *)(uintptr_t)f->id;
    request.start_revision = f->revision > 0 ? f->revision + 1 : 0;
    struct draft_stream *stream = draft_rpc_watch_jobs(f->rpc, &request);
    while (!f->stop && st->code == DRAFT_STATUS_OK) {
        ProtobufCMessage *message;
        enum draft_stream_event event = draft_stream_next(stream, 250, &message, st);
        if (event == DRAFT_STREAM_END)
            break;
        if (event == DRAFT_STREAM_MESSAGE) {
            set_lost(f, false);
            handle(f, (Draftd__V1__WatchJobsResponse *)message, st);
            draft_free_message(message);
        }
        tick(f);
    }
    draft_stream_close(stream);
}

draft_job *draft_follow_job(struct draft_rpc *rpc, const char *id, const struct draft_follow *follow,
                            struct draft_status *st)
{
    struct following f = {.follow = follow, .rpc = rpc, .id = id};
    int patience = follow->patience_seconds ? follow->patience_seconds : 120;
    time_t alone_since = 0;
    for (;;) {
        struct draft_status now = {0};
        read_stream(&f, &now);
        if (f.stop || (now.code == DRAFT_STATUS_OK && f.job && draft_state_ended(f.job->state)))
            return f.job;
        if (!f.lost && now.code != DRAFT_STATUS_UNAVAILABLE)
            alone_since = 0;
        if (now.code == DRAFT_STATUS_OUT_OF_RANGE && f.revision > 0) {
            f.revision = 0; /* forgotten by the daemon: a new snapshot says all */
            continue;
        }
        bool broken = now.code == DRAFT_STATUS_UNAVAILABLE || now.code == DRAFT_STATUS_OK ||
                      (now.code == DRAFT_STATUS_CANCELLED && !draft_interrupted());
        if (!alone_since)
            alone_since = time(NULL);
        /* Before anything was ever received a daemon that is not there is simply not running. */
        if (!broken || (f.revision == 0 && !f.job) || time(NULL) - alone_since > patience) {
            *st = now;
            if (now.code == DRAFT_STATUS_OK)
                draft_status_fail(st, DRAFT_STATUS_UNAVAILABLE, "the daemon ends the stream of %s again and again", id);
            draft_free_message(f.job);
            return NULL;
        }
        set_lost(&f, true);
        for (int i = 0; i < 4 && !draft_interrupted(); i++) {
            tick(&f);
            usleep(125000);
        }
    }
}
