/*
 * The services of draftd.v1, grpc.health.v1 and grpc.reflection.v1, and their one table (methods.c). A handler turns a
 * request into one call of daemon.h and its answer into a reply; signatures and rules in rpc.h.
 */
#ifndef DRAFTD_RPC_SERVICES_H
#define DRAFTD_RPC_SERVICES_H

#include "daemon.h"
#include "rpc/rpc.h"

enum { DRAFTD_SERVICES = 8 };
struct draftd_health;
struct draftd_reflection;

/* Fills the table; names and methods are static. The contexts outlive the server. */
void draftd_services(struct draftd *daemon, struct draftd_health *health, struct draftd_reflection *reflection,
                     struct draftd_service out[DRAFTD_SERVICES]);

/* grpc.health.v1: every service of the table, and "" for all, is SERVING until draftd_health_stop(). */
struct draftd_health *draftd_health_create(const struct draftd_service *services, size_t count);
void draftd_health_stop(struct draftd_health *health); /* NOT_SERVING from now on; tells the watchers */
void draftd_health_destroy(struct draftd_health *health);

/* Answers from the embedded protocol; `services` are those it lists. */
struct draftd_reflection *draftd_reflection_create(const struct draftd_service *services, size_t count);
void draftd_reflection_destroy(struct draftd_reflection *reflection);

/* A new message `outer` whose only field is `inner`, which it takes over. */
ProtobufCMessage *draftd_wrap(const ProtobufCMessageDescriptor *outer, ProtobufCMessage *inner);
/* For the functions that block: as long as the call's client waits. */
struct draftd_patience draftd_call_patience(const struct draftd_call *call);
/* A request's id field that must be there. */
bool draftd_require(const char *value, const char *field, const char *example, struct draft_error *err);

#define DRAFTD_CALL(name)                                                                                              \
    bool name(struct draftd_call *call, const ProtobufCMessage *request, ProtobufCMessage **reply,                     \
              struct draft_error *err)
#define DRAFTD_OPEN(name) bool name(struct draftd_call *call, const ProtobufCMessage *request, struct draft_error *err)
#define DRAFTD_NEXT(name)                                                                                              \
    bool name(struct draftd_call *call, ProtobufCMessage **message, bool *end, struct draft_error *err)
#define DRAFTD_CLOSE(name) void name(struct draftd_call *call)

/* job_service.c */
DRAFTD_CALL(draftd_rpc_create_job);
void draftd_rpc_refine_create_job(const struct draft_error *err, struct draftd_status *status);
DRAFTD_CALL(draftd_rpc_get_job);
DRAFTD_CALL(draftd_rpc_list_jobs);
DRAFTD_CALL(draftd_rpc_cancel_job);
DRAFTD_CALL(draftd_rpc_pause_job);
DRAFTD_CALL(draftd_rpc_resume_job);
void draftd_rpc_refine_resume_job(const struct draft_error *err, struct draftd_status *status);
DRAFTD_CALL(draftd_rpc_delete_job);
DRAFTD_OPEN(draftd_rpc_watch_jobs);
void draftd_rpc_refine_watch_jobs(const struct draft_error *err, struct draftd_status *status);
/* metric_service.c */
DRAFTD_CALL(draftd_rpc_list_metrics);
DRAFTD_CALL(draftd_rpc_query_metrics);
/* preview_service.c */
DRAFTD_CALL(draftd_rpc_create_preview);
DRAFTD_CALL(draftd_rpc_get_preview);
DRAFTD_CALL(draftd_rpc_list_previews);
DRAFTD_OPEN(draftd_rpc_watch_preview);
DRAFTD_OPEN(draftd_rpc_read_picture);
DRAFTD_NEXT(draftd_rpc_picture_next);
DRAFTD_CLOSE(draftd_rpc_picture_close);
/* checkpoint_service.c */
DRAFTD_CALL(draftd_rpc_list_checkpoints);
DRAFTD_CALL(draftd_rpc_create_checkpoint);
DRAFTD_OPEN(draftd_rpc_read_checkpoint);
DRAFTD_NEXT(draftd_rpc_checkpoint_next);
DRAFTD_CLOSE(draftd_rpc_checkpoint_close);
DRAFTD_OPEN(draftd_rpc_export_lora);
DRAFTD_NEXT(draftd_rpc_export_next);
DRAFTD_CLOSE(draftd_rpc_export_close);
/* system_service.c */
DRAFTD_CALL(draftd_rpc_server_info);
DRAFTD_CALL(draftd_rpc_probe_devices);
/* watch_stream.c: the pumping half of WatchJobs and WatchPreview */
bool draftd_rpc_watch(struct draftd_call *call, const char *job_id, const char *preview_id, int64_t start_revision,
                      struct draft_error *err);
DRAFTD_NEXT(draftd_rpc_watch_next);
DRAFTD_CLOSE(draftd_rpc_watch_close);
/* health_service.c */
DRAFTD_CALL(draftd_rpc_health_check);
DRAFTD_OPEN(draftd_rpc_health_watch);
DRAFTD_NEXT(draftd_rpc_health_next);
DRAFTD_CLOSE(draftd_rpc_health_close);
/* reflection_service.c */
DRAFTD_CALL(draftd_rpc_reflect);

#endif
