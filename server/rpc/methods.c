/* Every method that draftd answers, in one table. */
#include "google/protobuf/empty.pb-c.h"
#include "grpc/health/v1/health.pb-c.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "message.h"
#include "rpc/services.h"

#include <assert.h>

#define UNARY(service, method, lane, role, ms, request, reply, handler, refine)                                        \
    {                                                                                                                  \
        "/" service "/" method, DRAFTD_UNARY, lane, role, ms, &request##__descriptor, &reply##__descriptor, handler,   \
            NULL, NULL, NULL, refine                                                                                   \
    }
#define STREAM(service, method, lane, role, ms, request, reply, open, next, close, refine)                             \
    {                                                                                                                  \
        "/" service "/" method, DRAFTD_STREAM, lane, role, ms, &request##__descriptor, &reply##__descriptor, NULL,     \
            open, next, close, refine                                                                                  \
    }
#define COUNT(table) (sizeof(table) / sizeof *(table))

#define QUICK DRAFTD_QUICK
#define SLOW  DRAFTD_SLOW /* waits for a worker process, reads a large file or deletes a lot */
#define VIEW  DRAFTD_ROLE_VIEWER
#define USE   DRAFTD_ROLE_USER

enum { HALF_MINUTE = 30 * 1000, FIVE_MINUTES = 5 * 60 * 1000 };

#define JOBS "draftd.v1.JobService"
static const struct draftd_method job_methods[] = {
    UNARY(JOBS, "CreateJob", SLOW, USE, HALF_MINUTE, draftd__v1__create_job_request, draftd__v1__create_job_response,
          draftd_rpc_create_job, draftd_rpc_refine_create_job),
    UNARY(JOBS, "GetJob", QUICK, VIEW, 0, draftd__v1__get_job_request, draftd__v1__get_job_response, draftd_rpc_get_job,
          NULL),
    UNARY(JOBS, "ListJobs", QUICK, VIEW, 0, draftd__v1__list_jobs_request, draftd__v1__list_jobs_response,
          draftd_rpc_list_jobs, NULL),
    STREAM(JOBS, "WatchJobs", QUICK, VIEW, 0, draftd__v1__watch_jobs_request, draftd__v1__watch_jobs_response,
           draftd_rpc_watch_jobs, draftd_rpc_watch_next, draftd_rpc_watch_close, draftd_rpc_refine_watch_jobs),
    UNARY(JOBS, "CancelJob", QUICK, USE, 0, draftd__v1__cancel_job_request, draftd__v1__cancel_job_response,
          draftd_rpc_cancel_job, NULL),
    UNARY(JOBS, "PauseJob", SLOW, USE, FIVE_MINUTES, draftd__v1__pause_job_request, draftd__v1__pause_job_response,
          draftd_rpc_pause_job, NULL),
    UNARY(JOBS, "ResumeJob", SLOW, USE, HALF_MINUTE, draftd__v1__resume_job_request, draftd__v1__resume_job_response,
          draftd_rpc_resume_job, draftd_rpc_refine_resume_job),
    UNARY(JOBS, "DeleteJob", SLOW, USE, FIVE_MINUTES, draftd__v1__delete_job_request, google__protobuf__empty,
          draftd_rpc_delete_job, NULL),
};

#define METRICS "draftd.v1.MetricService"
static const struct draftd_method metric_methods[] = {
    UNARY(METRICS, "ListMetrics", QUICK, VIEW, 0, draftd__v1__list_metrics_request, draftd__v1__list_metrics_response,
          draftd_rpc_list_metrics, NULL),
    UNARY(METRICS, "QueryMetrics", QUICK, VIEW, 0, draftd__v1__query_metrics_request,
          draftd__v1__query_metrics_response, draftd_rpc_query_metrics, NULL),
};

#define PREVIEWS "draftd.v1.PreviewService"
static const struct draftd_method preview_methods[] = {
    UNARY(PREVIEWS, "CreatePreview", QUICK, USE, 0, draftd__v1__create_preview_request,
          draftd__v1__create_preview_response, draftd_rpc_create_preview, NULL),
    UNARY(PREVIEWS, "GetPreview", QUICK, VIEW, 0, draftd__v1__get_preview_request, draftd__v1__get_preview_response,
          draftd_rpc_get_preview, NULL),
    UNARY(PREVIEWS, "ListPreviews", QUICK, VIEW, 0, draftd__v1__list_previews_request,
          draftd__v1__list_previews_response, draftd_rpc_list_previews, NULL),
    STREAM(PREVIEWS, "WatchPreview", QUICK, VIEW, 0, draftd__v1__watch_preview_request,
           draftd__v1__watch_preview_response, draftd_rpc_watch_preview, draftd_rpc_watch_next, draftd_rpc_watch_close,
           NULL),
    STREAM(PREVIEWS, "ReadPicture", QUICK, VIEW, 0, draftd__v1__read_picture_request, draftd__v1__read_picture_response,
           draftd_rpc_read_picture, draftd_rpc_picture_next, draftd_rpc_picture_close, NULL),
};

#define CHECKPOINTS "draftd.v1.CheckpointService"
static const struct draftd_method checkpoint_methods[] = {
    UNARY(CHECKPOINTS, "ListCheckpoints", QUICK, VIEW, 0, draftd__v1__list_checkpoints_request,
          draftd__v1__list_checkpoints_response, draftd_rpc_list_checkpoints, NULL),
    UNARY(CHECKPOINTS, "CreateCheckpoint", SLOW, USE, FIVE_MINUTES, draftd__v1__create_checkpoint_request,
          draftd__v1__create_checkpoint_response, draftd_rpc_create_checkpoint, NULL),
    STREAM(CHECKPOINTS, "ReadCheckpoint", SLOW, VIEW, FIVE_MINUTES, draftd__v1__read_checkpoint_request,
           draftd__v1__read_checkpoint_response, draftd_rpc_read_checkpoint, draftd_rpc_checkpoint_next,
           draftd_rpc_checkpoint_close, NULL),
    STREAM(CHECKPOINTS, "ExportLora", SLOW, VIEW, FIVE_MINUTES, draftd__v1__export_lora_request,
           draftd__v1__export_lora_response, draftd_rpc_export_lora, draftd_rpc_export_next, draftd_rpc_export_close,
           NULL),
};

#define SYSTEM "draftd.v1.SystemService"
static const struct draftd_method system_methods[] = {
    UNARY(SYSTEM, "GetServerInfo", QUICK, VIEW, 0, draftd__v1__get_server_info_request,
          draftd__v1__get_server_info_response, draftd_rpc_server_info, NULL),
    UNARY(SYSTEM, "ProbeDevices", SLOW, USE, FIVE_MINUTES, draftd__v1__probe_devices_request,
          draftd__v1__probe_devices_response, draftd_rpc_probe_devices, NULL),
};

#define HEALTH "grpc.health.v1.Health"
static const struct draftd_method health_methods[] = {
    UNARY(HEALTH, "Check", QUICK, DRAFTD_ROLE_NONE, 0, grpc__health__v1__health_check_request,
          grpc__health__v1__health_check_response, draftd_rpc_health_check, NULL),
    STREAM(HEALTH, "Watch", QUICK, DRAFTD_ROLE_NONE, 0, grpc__health__v1__health_check_request,
           grpc__health__v1__health_check_response, draftd_rpc_health_watch, draftd_rpc_health_next,
           draftd_rpc_health_close, NULL),
};

#define REFLECTION       "grpc.reflection.v1.ServerReflection"
#define REFLECTION_ALPHA "grpc.reflection.v1alpha.ServerReflection"
#define REFLECT(service)                                                                                               \
    {                                                                                                                  \
        {                                                                                                              \
            "/" service "/ServerReflectionInfo", DRAFTD_EXCHANGE, QUICK, DRAFTD_ROLE_NONE, 0,                          \
                &grpc__reflection__v1__server_reflection_request__descriptor,                                          \
                &grpc__reflection__v1__server_reflection_response__descriptor, draftd_rpc_reflect, NULL, NULL, NULL,   \
                NULL                                                                                                   \
        }                                                                                                              \
    }
static const struct draftd_method reflection_methods[] = REFLECT(REFLECTION);
static const struct draftd_method reflection_alpha_methods[] = REFLECT(REFLECTION_ALPHA);

void draftd_services(struct draftd *daemon, struct draftd_health *health, struct draftd_reflection *reflection,
                     struct draftd_service out[DRAFTD_SERVICES])
{
    out[0] = (struct draftd_service){JOBS, job_methods, COUNT(job_methods), daemon};
    out[1] = (struct draftd_service){METRICS, metric_methods, COUNT(metric_methods), daemon};
    out[2] = (struct draftd_service){PREVIEWS, preview_methods, COUNT(preview_methods), daemon};
    out[3] = (struct draftd_service){CHECKPOINTS, checkpoint_methods, COUNT(checkpoint_methods), daemon};
    out[4] = (struct draftd_service){SYSTEM, system_methods, COUNT(system_methods), daemon};
    out[5] = (struct draftd_service){HEALTH, health_methods, COUNT(health_methods), health};
    out[6] = (struct draftd_service){REFLECTION, reflection_methods, COUNT(reflection_methods), reflection};
    out[7] = (struct draftd_service){REFLECTION_ALPHA, reflection_alpha_methods, COUNT(reflection_alpha_methods),
                                     reflection};
}

struct draftd_patience draftd_call_patience(const struct draftd_call *call)
{
    struct draftd_patience patience = draftd_within(draftd_call_remaining_ms(call));
    patience.gone = draftd_call_gone(call);
    return patience;
}

bool draftd_require(const char *value, const char *field, const char *example, struct draft_error *err)
{
    return value[0] != '\0' || draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field,
                                                "%s is missing: name one, as in \"%s\"", field, example);
}

ProtobufCMessage *draftd_wrap(const ProtobufCMessageDescriptor *outer, ProtobufCMessage *inner)
{
    assert(outer->n_fields == 1 && outer->fields[0].descriptor == inner->descriptor);
    uint8_t *message = draftd_message_new(outer);
    *(ProtobufCMessage **)(message + outer->fields[0].offset) = inner;
    return (ProtobufCMessage *)message;
}
