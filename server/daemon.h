/*
 * The daemon's inside, as the RPC services see it: every method of draftd.v1 that is more than transport ends in one
 * function here. No gRPC in it: server/rpc/ translates.
 *
 * Messages: requests belong to the caller. Replies are protobuf-c messages on the heap; the caller frees them with
 * protobuf_c_message_free_unpacked(). On failure nothing is returned and err says code, sentence and field.
 *
 * Thread: every function may be called from any thread; inside, one lock guards jobs, workers and the writing database
 * connection. Functions marked "blocks" wait for a worker process (bounded by `patience`) and must not run on a
 * completion-queue thread.
 */
#ifndef DRAFTD_DAEMON_H
#define DRAFTD_DAEMON_H

#include <stdatomic.h>

#include "base/error.h"
#include "draftd/v1/checkpoints.pb-c.h"
#include "draftd/v1/jobs.pb-c.h"
#include "draftd/v1/metrics.pb-c.h"
#include "draftd/v1/previews.pb-c.h"
#include "draftd/v1/system.pb-c.h"

struct draftd;

/* How long a caller of a function that blocks waits for it. When its patience ends the function fails, and what was
 * done for this caller alone (checking a model, an export) is stopped. */
struct draftd_patience {
    int64_t deadline_ms;     /* of the monotonic clock */
    const atomic_bool *gone; /* becomes true when the caller has left; NULL: it stays until the deadline */
};
struct draftd_patience draftd_within(int ms); /* from now */

struct draftd_config {
    const char *state_dir; /* jobs, database, lock; made with mode 0700 */
    const char *socket;    /* unix socket path */
    const char *worker;    /* path of draft-engine */
    const char *demo_dir;  /* the built-in model, or NULL */
    int max_queue;         /* 0: 512 */
    int threads;           /* a worker's default; 0: all */
    int hang_seconds;      /* a worker silent for so long is killed; 0: 600 */
    int drain_seconds;     /* at SIGTERM; 0: 60 */
    int probe_seconds;     /* a GPU has so long to answer, and one that did not is left alone as long; 0: 60 */
    bool log_json, verbose;
};

/* Opens the state (lock, database, migrations, reconciliation of what was running) and starts the daemon's own thread.
 */
struct draftd *draftd_create(const struct draftd_config *config, struct draft_error *err);
/* Refuses new work from now on, checkpoints and stops the workers, within drain_seconds. blocks */
void draftd_drain(struct draftd *d);
/* No other thread is inside any more. Workers that were not drained are killed; the next start goes on from their
 * checkpoints. NULL is fine. */
void draftd_destroy(struct draftd *d);
bool draftd_is_draining(struct draftd *d);

/* JobService. CreateJob blocks (an inspecting worker opens what the spec names). */
bool draftd_create_job(struct draftd *d, const Draftd__V1__CreateJobRequest *request, struct draftd_patience patience,
                       Draftd__V1__CreateJobResponse **reply, struct draft_error *err);
bool draftd_get_job(struct draftd *d, const char *job_id, Draftd__V1__Job **job, struct draft_error *err);
bool draftd_list_jobs(struct draftd *d, const Draftd__V1__ListJobsRequest *request,
                      Draftd__V1__ListJobsResponse **reply, struct draft_error *err);
bool draftd_cancel_job(struct draftd *d, const char *job_id, Draftd__V1__Job **job, struct draft_error *err);
bool draftd_pause_job(struct draftd *d, const char *job_id, struct draftd_patience patience, Draftd__V1__Job **job,
                      struct draft_error *err); /* blocks */
bool draftd_resume_job(struct draftd *d, const char *job_id, struct draftd_patience patience, Draftd__V1__Job **job,
                       struct draft_error *err);                                       /* blocks */
bool draftd_delete_job(struct draftd *d, const char *job_id, struct draft_error *err); /* blocks while it is large */

/* MetricService */
bool draftd_list_metrics(struct draftd *d, const char *job_id, Draftd__V1__ListMetricsResponse **reply,
                         struct draft_error *err);
bool draftd_query_metrics(struct draftd *d, const Draftd__V1__QueryMetricsRequest *request,
                          Draftd__V1__QueryMetricsResponse **reply, struct draft_error *err);

/* PreviewService */
bool draftd_create_preview(struct draftd *d, const Draftd__V1__CreatePreviewRequest *request,
                           Draftd__V1__Preview **preview, struct draft_error *err);
bool draftd_get_preview(struct draftd *d, const char *preview_id, Draftd__V1__Preview **preview,
                        struct draft_error *err);
bool draftd_list_previews(struct draftd *d, const Draftd__V1__ListPreviewsRequest *request,
                          Draftd__V1__ListPreviewsResponse **reply, struct draft_error *err);
/* The PNG's path, malloc'd. */
bool draftd_picture_path(struct draftd *d, const char *preview_id, int index, char **path, struct draft_error *err);

/* CheckpointService */
bool draftd_list_checkpoints(struct draftd *d, const char *job_id, Draftd__V1__ListCheckpointsResponse **reply,
                             struct draft_error *err);
bool draftd_create_checkpoint(struct draftd *d, const char *job_id, struct draftd_patience patience,
                              Draftd__V1__Checkpoint **checkpoint, struct draft_error *err); /* blocks */
/* The path of a checkpoint whose content was just compared with its checksum (malloc'd; the file stays the job's) and
 * what is recorded of it (the caller's). blocks */
bool draftd_read_checkpoint(struct draftd *d, const Draftd__V1__ReadCheckpointRequest *request, char **path,
                            Draftd__V1__Checkpoint **checkpoint, struct draft_error *err);
/* Makes the file (in the state folder) and gives its path and the name to save it under, both malloc'd; the caller
 * unlinks the path when it has read it. blocks */
bool draftd_export_lora(struct draftd *d, const Draftd__V1__ExportLoraRequest *request, struct draftd_patience patience,
                        char **path, char **file_name, struct draft_error *err);

/* SystemService */
bool draftd_server_info(struct draftd *d, Draftd__V1__GetServerInfoResponse **reply, struct draft_error *err);
bool draftd_probe_devices(struct draftd *d, const char *device, struct draftd_patience patience,
                          Draftd__V1__ProbeDevicesResponse **reply, struct draft_error *err); /* blocks */

/*
 * Watching. A watcher is told, from the daemon's thread and under no lock of its own, that something new may be there;
 * it then asks for it. So a slow reader costs nothing: it asks when it can send again.
 */
struct draftd_watcher;
/* job_id NULL or "": all jobs. preview_id: follow one preview instead. `wake` may come from any thread and must be
 * quick. */
struct draftd_watcher *draftd_watch(struct draftd *d, const char *job_id, const char *preview_id,
                                    int64_t start_revision, void (*wake)(void *context), void *context,
                                    struct draft_error *err);
/* The next message to send: *message stays NULL when there is none now: then wait for `wake`. *end: the stream is over
 * (with err set and false returned: by an error); it never comes together with a message. Job watchers get
 * WatchJobsResponse, preview watchers WatchPreviewResponse. */
bool draftd_watch_next(struct draftd_watcher *watcher, ProtobufCMessage **message, bool *end, struct draft_error *err);
/* After it returns, `wake` is not called any more. Every watcher must be gone before draftd_destroy(). */
void draftd_unwatch(struct draftd_watcher *watcher);

#endif
