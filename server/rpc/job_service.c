/* draftd.v1.JobService */
#include "google/protobuf/empty.pb-c.h"
#include "message.h"
#include "rpc/services.h"
#include "rpc/status.h"

#include <string.h>

DRAFTD_CALL(draftd_rpc_create_job)
{
    Draftd__V1__CreateJobResponse *out;
    if (!draftd_create_job(draftd_call_context(call), (const Draftd__V1__CreateJobRequest *)request,
                           draftd_call_patience(call), &out, err))
        return false;
    *reply = &out->base;
    return true;
}

/* A file that the spec names and that is not there is a wrong argument: NOT_FOUND is for draftd's own things. */
void draftd_rpc_refine_create_job(const struct draft_error *err, struct draftd_status *status)
{
    if (err->code != DRAFT_NOT_FOUND || strncmp(err->field, "spec.", 5) != 0)
        return;
    status->code = GRPC_STATUS_INVALID_ARGUMENT;
    status->reason = "FILE_NOT_FOUND";
}

DRAFTD_CALL(draftd_rpc_get_job)
{
    const Draftd__V1__GetJobRequest *in = (const void *)request;
    Draftd__V1__Job *job;
    if (!draftd_require(in->job_id, "job_id", "job-12", err) ||
        !draftd_get_job(draftd_call_context(call), in->job_id, &job, err))
        return false;
    *reply = draftd_wrap(&draftd__v1__get_job_response__descriptor, &job->base);
    return true;
}

DRAFTD_CALL(draftd_rpc_list_jobs)
{
    Draftd__V1__ListJobsResponse *out;
    if (!draftd_list_jobs(draftd_call_context(call), (const Draftd__V1__ListJobsRequest *)request, &out, err))
        return false;
    *reply = &out->base;
    return true;
}

DRAFTD_CALL(draftd_rpc_cancel_job)
{
    const Draftd__V1__CancelJobRequest *in = (const void *)request;
    Draftd__V1__Job *job;
    if (!draftd_require(in->job_id, "job_id", "job-12", err) ||
        !draftd_cancel_job(draftd_call_context(call), in->job_id, &job, err))
        return false;
    *reply = draftd_wrap(&draftd__v1__cancel_job_response__descriptor, &job->base);
    return true;
}

DRAFTD_CALL(draftd_rpc_pause_job)
{
    const Draftd__V1__PauseJobRequest *in = (const void *)request;
    Draftd__V1__Job *job;
    if (!draftd_require(in->job_id, "job_id", "job-12", err) ||
        !draftd_pause_job(draftd_call_context(call), in->job_id, draftd_call_patience(call), &job, err))
        return false;
    *reply = draftd_wrap(&draftd__v1__pause_job_response__descriptor, &job->base);
    return true;
}

DRAFTD_CALL(draftd_rpc_resume_job)
{
    const Draftd__V1__ResumeJobRequest *in = (const void *)request;
    Draftd__V1__Job *job;
    if (!draftd_require(in->job_id, "job_id", "job-12", err) ||
        !draftd_resume_job(draftd_call_context(call), in->job_id, draftd_call_patience(call), &job, err))
        return false;
    *reply = draftd_wrap(&draftd__v1__resume_job_response__descriptor, &job->base);
    return true;
}

void draftd_rpc_refine_resume_job(const struct draft_error *err, struct draftd_status *status)
{
    if (err->code == DRAFT_FAILED_PRECONDITION && strcmp(err->field, "fingerprint") == 0)
        status->reason = "WEIGHTS_CHANGED";
}

DRAFTD_CALL(draftd_rpc_delete_job)
{
    const Draftd__V1__DeleteJobRequest *in = (const void *)request;
    if (!draftd_require(in->job_id, "job_id", "job-12", err) ||
        !draftd_delete_job(draftd_call_context(call), in->job_id, err))
        return false;
    *reply = draftd_message_new(&google__protobuf__empty__descriptor);
    return true;
}

DRAFTD_OPEN(draftd_rpc_watch_jobs)
{
    const Draftd__V1__WatchJobsRequest *in = (const void *)request;
    return draftd_rpc_watch(call, in->job_id, NULL, in->start_revision, err);
}

/* Watching from a revision that the daemon has forgotten has a gRPC code of its own: the client watches anew. */
void draftd_rpc_refine_watch_jobs(const struct draft_error *err, struct draftd_status *status)
{
    if (err->code != DRAFT_FAILED_PRECONDITION || strcmp(err->field, "start_revision") != 0)
        return;
    status->code = GRPC_STATUS_OUT_OF_RANGE;
    status->reason = "REVISION_FORGOTTEN";
}
