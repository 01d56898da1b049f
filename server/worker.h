/*
 * One worker process, seen from the daemon: spawning draft-engine with a socketpair on its fd 3, frames of
 * proto/worker.proto both ways, its stderr into a bounded log, its silence and its end. What the frames mean is its
 * owner's business (training.c, previews.c, the waiting thread of an inspection).
 *
 * Everything from the worker is hostile until checked: lengths, UTF-8, numbers.
 */
#ifndef DRAFTD_WORKER_H
#define DRAFTD_WORKER_H

#include "state.h"

enum { DRAFTD_FRAME_BYTES = 16 << 20, DRAFTD_LOG_BYTES = 1 << 20, DRAFTD_GRACE_MS = 5000 };

enum draftd_task { DRAFTD_TASK_INSPECT, DRAFTD_TASK_TRAIN, DRAFTD_TASK_SAMPLE, DRAFTD_TASK_EXPORT, DRAFTD_TASK_PROBE };

/* Why the daemon itself ended a worker. */
enum draftd_killed {
    DRAFTD_KILLED_NOT,
    DRAFTD_KILLED_HUNG,
    DRAFTD_KILLED_BAD_FRAME,
    DRAFTD_KILLED_UNWANTED, /* nobody waits for its result any more, or a stop took too long */
};

struct draftd_worker {
    struct draftd_worker *next;
    uint64_t id;
    enum draftd_task task;
    char about[32]; /* "job-3" */
    int64_t job, preview;
    int device;       /* that it has for itself; DRAFTD_NO_DEVICE: none */
    char *checkpoint; /* the path it was given: not to be removed under it */

    struct draftd_store_process process;
    int pidfd, socket, log_pipe, log_file; /* -1 when closed */
    uint8_t *in, *out;
    size_t in_used, in_size, out_used, out_size;
    size_t log_bytes;
    char line[256], last_line[256]; /* of stderr: being written; the last that was not empty */
    size_t line_used;

    int64_t heard_ms;
    int64_t term_at_ms, kill_at_ms; /* 0: never */
    enum draftd_killed killed;
    char killed_why[256];

    bool finished;             /* its last frame came */
    struct draft_error result; /* code DRAFT_OK: the task is done */
    bool stopped;
    Draftd__Worker__Inspected *inspected;
    Draftd__Worker__Probed *probed;
    bool exited;
    int status; /* as of waitpid */

    bool waited_for; /* a thread waits until `over` and frees it */
    bool over;

    /* Called by the daemon's thread with the lock held. report: false and a sentence for a frame that makes no sense;
     * the worker is killed then. end: it is gone; the worker is freed afterwards. Both may be NULL. */
    bool (*report)(struct draftd *d, struct draftd_worker *worker, const Draftd__Worker__Report *report,
                   struct draft_error *err);
    void (*end)(struct draftd *d, struct draftd_worker *worker);
};

/* log_path NULL: its stderr is only kept as the last line. */
struct draftd_worker *draftd_worker_start(struct draftd *d, enum draftd_task task, const char *about,
                                          const char *log_path, struct draft_error *err);
/* Queues a frame; a worker that does not read it is found by its silence. */
void draftd_worker_send(struct draftd *d, struct draftd_worker *worker, const Draftd__Worker__Command *command);
/* Sends Stop, and after grace_ms SIGTERM, and after DRAFTD_GRACE_MS more SIGKILL. grace_ms 0: no limit but the
 * heartbeat. */
void draftd_worker_stop(struct draftd *d, struct draftd_worker *worker, bool checkpoint, int64_t grace_ms);
void draftd_worker_kill(struct draftd *d, struct draftd_worker *worker, enum draftd_killed why, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Waits until it is over, as long as the caller does; then takes it out of the daemon's hands. true: over, *worker is
 * the caller's to draftd_worker_free(); false: it was killed and is forgotten. Only for waited_for workers. */
bool draftd_worker_wait(struct draftd *d, struct draftd_worker *worker, struct draftd_patience patience);
void draftd_worker_free(struct draftd *d, struct draftd_worker *worker);

/* Why a worker ended without a result: one sentence and the job's reason code. */
void draftd_worker_explain(struct draftd *d, const struct draftd_worker *worker, uint64_t memory_bytes, char *sentence,
                           size_t capacity, const char **reason_code);
/* "OUT_OF_MEMORY" ... of an error the worker reported. */
const char *draftd_reason_code(const struct draft_error *err);

/* The loop's side. `which`: 0 socket, 1 pidfd, 2 log. */
void draftd_worker_ready(struct draftd *d, uint64_t id, int which);
/* Silence and grace; gives the time of the next deadline, or INT64_MAX. */
int64_t draftd_workers_check(struct draftd *d, int64_t now_ms);
/* The daemon's thread did not run for the last `ms`: silence is counted anew, deadlines move along. */
void draftd_workers_excuse(struct draftd *d, int64_t now_ms, int64_t ms);

#endif
