/* One change to each of several jobs: what cancel, pause, resume and delete have in common. */
#ifndef DRAFT_CLIENT_EACH_JOB_H
#define DRAFT_CLIENT_EACH_JOB_H

#include "command.h"
#include "jobs.h"

/* Changes one job: the job as it is then on the heap (*job may stay NULL where none is left), or false with st set. */
typedef bool (*draft_job_change)(struct draft_rpc *rpc, const char *id, draft_job **job, struct draft_status *st);

/* Applies it to every operand, goes on after a failure; returns the first failure's exit code. `done` is the word for a
 * job that is gone ("deleted"), else the new state is said. */
int draft_each_job(struct draft_context *cx, const struct draft_arguments *arguments, draft_job_change change,
                   const char *done);

/* A draft_job_change: the call draft_rpc_<call>, which answers with the job as it is then. */
#define DRAFT_JOB_CHANGE(function, call, Call)                                                                         \
    static bool function(struct draft_rpc *rpc, const char *id, draft_job **job, struct draft_status *st)              \
    {                                                                                                                  \
        Draftd__V1__##Call##Request request;                                                                           \
        draftd__v1__##call##_request__init(&request);                                                                  \
        request.job_id = (char *)(uintptr_t)id;                                                                        \
        Draftd__V1__##Call##Response *reply = draft_rpc_##call(rpc, &request, st);                                     \
        if (!reply)                                                                                                    \
            return false;                                                                                              \
        *job = reply->job;                                                                                             \
        reply->job = NULL;                                                                                             \
        draft_free_message(reply);                                                                                     \
        return true;                                                                                                   \
    }

#endif
