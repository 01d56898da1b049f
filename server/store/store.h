/*
 * The daemon's database, and the only door to it: jobs, attempts, events, metrics, previews, checkpoints, in
 * <folder>/draftd.db.
 *
 * One connection in the process writes and checkpoints the write-ahead log (SQLite before 3.51.3 can damage a database
 * with two); everything here uses it and needs the daemon's lock, except the functions marked "reader", which use
 * read-only connections of their own and may be called from any thread.
 *
 * Changes happen between draftd_store_begin() and draftd_store_commit(). A failed call leaves the transaction open: the
 * caller rolls back. A full disk is DRAFT_DISK_FULL, a damaged database DRAFT_DATA_LOSS.
 */
#ifndef DRAFTD_STORE_H
#define DRAFTD_STORE_H

#include "base/error.h"
#include "draftd/v1/checkpoints.pb-c.h"
#include "draftd/v1/jobs.pb-c.h"
#include "draftd/v1/metrics.pb-c.h"
#include "draftd/v1/previews.pb-c.h"

struct draftd_store;

/* Takes the folder's lock (a second daemon is refused with the first one's pid), opens, migrates. The folder must
 * exist. */
struct draftd_store *draftd_store_open(const char *folder, struct draft_error *err);
void draftd_store_close(struct draftd_store *store); /* NULL is fine */

enum draftd_durability {
    DRAFTD_RELAXED, /* survives the death of the process; a power cut may lose the last ones (metrics) */
    DRAFTD_DURABLE, /* on disk when commit returns */
};
bool draftd_store_begin(struct draftd_store *store, enum draftd_durability durability, struct draft_error *err);
bool draftd_store_commit(struct draftd_store *store, struct draft_error *err); /* rolls back when it fails */
void draftd_store_rollback(struct draftd_store *store);

/* --- Jobs (jobs.c). Messages returned are the caller's. `progress` holds what was last written. --- */

/* Inserts job (its spec, state, reason, numbers) at the end of the queue and gives its number and rank. */
bool draftd_store_add_job(struct draftd_store *store, const Draftd__V1__Job *job, int64_t *number, int64_t *rank,
                          struct draft_error *err);
Draftd__V1__Job *draftd_store_job(struct draftd_store *store, int64_t number, struct draft_error *err);
/* states: a bit (1 << state) each. Newest first, numbers below `before` (0: all), at most `limit`. Appends to *jobs, an
 * array of draftd_message_append(). */
bool draftd_store_jobs(struct draftd_store *store, unsigned states, int64_t before, int limit, Draftd__V1__Job ***jobs,
                       size_t *count, struct draft_error *err);
/* How many jobs are in these states. */
bool draftd_store_count_jobs(struct draftd_store *store, unsigned states, int32_t *count, struct draft_error *err);

/* What the scheduler needs of a job that is not over. */
struct draftd_store_queued {
    int64_t number, rank;
    int crashes;
};
bool draftd_store_queue(struct draftd_store *store, unsigned states, void *context,
                        void (*each)(void *context, const struct draftd_store_queued *job), struct draft_error *err);

struct draftd_store_change {
    Draftd__V1__Job__State state;
    const char *reason, *reason_code;
    int64_t step;
    int attempt, crashes;
    bool requeue; /* to the end of the queue */
};
bool draftd_store_change_job(struct draftd_store *store, int64_t number, const struct draftd_store_change *change,
                             int64_t *rank, struct draft_error *err);
bool draftd_store_total_steps(struct draftd_store *store, int64_t number, int64_t total_steps, struct draft_error *err);
bool draftd_store_progress(struct draftd_store *store, int64_t number, const Draftd__V1__Progress *progress,
                           struct draft_error *err);
bool draftd_store_delete_job(struct draftd_store *store, int64_t number, struct draft_error *err);

/* --- Attempts: which process ran a job --- */
struct draftd_store_process {
    int pid;
    int64_t start; /* field 22 of /proc/PID/stat */
    char boot[40]; /* the boot's id; "" when unknown */
};
bool draftd_store_begin_attempt(struct draftd_store *store, int64_t job, int attempt, int64_t step,
                                const struct draftd_store_process *process, struct draft_error *err);
bool draftd_store_end_attempt(struct draftd_store *store, int64_t job, int attempt, int64_t step, const char *reason,
                              struct draft_error *err);
/* The process of an attempt that has no end yet; false without error when there is none. */
bool draftd_store_open_attempt(struct draftd_store *store, int64_t job, struct draftd_store_process *process,
                               int *attempt, struct draft_error *err);

/* --- Request ids --- */
/* *found: 0 unknown, 1 known with this hash, -1 known with another. *job or *preview: what it made; 0 when deleted. */
bool draftd_store_find_request(struct draftd_store *store, const char *id, const char *hash, int *found, int64_t *job,
                               int64_t *preview, struct draft_error *err);
bool draftd_store_add_request(struct draftd_store *store, const char *id, const char *hash, int64_t job,
                              int64_t preview, struct draft_error *err);

/* Forgets requests older than that: no client retries for so long. */
bool draftd_store_prune_requests(struct draftd_store *store, int64_t before_us, struct draft_error *err);

/* --- Events (events.c) --- */
struct draftd_store_event {
    int64_t revision, time_us, job, step, preview;
    Draftd__V1__JobEvent__Kind kind;
    Draftd__V1__Job__State state;
    int attempt;
    char *reason, *reason_code, *message; /* malloc'd when read */
};
/* Fills state, reason and attempt from the job's row (except of a deletion) and gives the revision. */
bool draftd_store_add_event(struct draftd_store *store, Draftd__V1__JobEvent__Kind kind, int64_t job, int64_t step,
                            int64_t preview, const char *message, int64_t *revision, struct draft_error *err);
/* The next event of a job (0: any) from a revision on. false without error when there is none. */
bool draftd_store_next_event(struct draftd_store *store, int64_t job, int64_t revision,
                             struct draftd_store_event *event, struct draft_error *err);
void draftd_store_event_free(struct draftd_store_event *event); /* its strings */
/* The oldest and newest revisions kept; 0, 0 when there was never any. */
bool draftd_store_revisions(struct draftd_store *store, int64_t *oldest, int64_t *newest, struct draft_error *err);
/* Forgets all but the newest `keep` events. */
bool draftd_store_prune_events(struct draftd_store *store, int64_t keep, struct draft_error *err);

/* --- Metrics (metrics.c) --- */
bool draftd_store_metric(struct draftd_store *store, int64_t job, const char *name, int64_t step, int attempt,
                         int64_t time_us, double value, struct draft_error *err);
/* Forgets some points of a job, at most `most`; *deleted: how many. */
bool draftd_store_delete_points(struct draftd_store *store, int64_t job, int64_t most, int64_t *deleted,
                                struct draft_error *err);
/* reader: each series of a job in the order of names. */
bool draftd_store_list_series(struct draftd_store *store, int64_t job, Draftd__V1__ListMetricsResponse *reply,
                              struct draft_error *err);
/* reader: the points of one series in the order of steps, and how many there are; `each` returns false to stop. */
bool draftd_store_count_points(struct draftd_store *store, int64_t job, const char *name, int64_t since_step,
                               int64_t *count, struct draft_error *err);
bool draftd_store_points(struct draftd_store *store, int64_t job, const char *name, int64_t since_step, void *context,
                         bool (*each)(void *context, int64_t step, double value, int64_t time_us, int attempt),
                         struct draft_error *err);

/* --- Checkpoints (checkpoints.c) --- */
bool draftd_store_add_checkpoint(struct draftd_store *store, int64_t job, const Draftd__V1__Checkpoint *checkpoint,
                                 const char *file, struct draft_error *err);
bool draftd_store_delete_checkpoint(struct draftd_store *store, int64_t job, int64_t step, struct draft_error *err);
/* Oldest first. `file` is the name in the job's checkpoints folder. */
bool draftd_store_checkpoints(struct draftd_store *store, int64_t job, void *context,
                              void (*each)(void *context, const Draftd__V1__Checkpoint *checkpoint, const char *file),
                              struct draft_error *err);

/* --- Previews (previews.c) --- */
bool draftd_store_add_preview(struct draftd_store *store, const Draftd__V1__Preview *preview, int64_t job,
                              int64_t *number, struct draft_error *err);
Draftd__V1__Preview *draftd_store_preview(struct draftd_store *store, int64_t number, struct draft_error *err);
/* Newest first, numbers below `before` (0: all). */
bool draftd_store_previews(struct draftd_store *store, int64_t job, int64_t before, int limit,
                           Draftd__V1__Preview ***previews, size_t *count, struct draft_error *err);
struct draftd_store_preview_change {
    Draftd__V1__Preview__State state;
    const char *reason;
    enum draft_code code;
    int64_t step;
    int tries;
};
bool draftd_store_change_preview(struct draftd_store *store, int64_t number,
                                 const struct draftd_store_preview_change *change, struct draft_error *err);
bool draftd_store_preview_code(struct draftd_store *store, int64_t number, enum draft_code *code,
                               struct draft_error *err);
bool draftd_store_add_picture(struct draftd_store *store, int64_t preview, const Draftd__V1__Picture *picture,
                              struct draft_error *err);
bool draftd_store_delete_pictures(struct draftd_store *store, int64_t preview, struct draft_error *err);
/* Every preview that is not over, oldest first. */
bool draftd_store_unfinished_previews(struct draftd_store *store, void *context,
                                      void (*each)(void *context, int64_t preview, int64_t job, int tries, int total,
                                                   const Draftd__V1__PreviewSpec *spec),
                                      struct draft_error *err);

#endif
