/*
 * What the daemon holds in memory, and the rules of touching it.
 *
 * The database is the truth about jobs; memory has what is in motion: jobs that are not over or paused, worker
 * processes, previews to be made, watchers. Everything here is guarded by draftd.lock, unless it is marked constant.
 * Functions of server/ that take a struct draftd need the lock held, except those of daemon.h, which take it.
 *
 * The daemon's own thread (loop.c) reads workers, keeps time, starts jobs and wakes watchers. Other threads change
 * state and kick it. Threads that wait for a worker or a state wait on `changed`.
 */
#ifndef DRAFTD_STATE_H
#define DRAFTD_STATE_H

#include <pthread.h>
#include <sys/types.h>

#include "daemon.h"
#include "device_list.h"
#include "store/store.h"
#include "worker.pb-c.h"

enum { DRAFTD_INSPECTORS = 2, DRAFTD_SAMPLERS = 1, DRAFTD_STEP_TIMES = 10, DRAFTD_SLOTS = 4096 };

struct draftd_worker;
struct draftd_start;

/* Why a training worker was told to stop. The strongest asked for wins: cancel over pause over drain. */
enum draftd_stop { DRAFTD_STOP_NONE, DRAFTD_STOP_DRAIN, DRAFTD_STOP_PAUSE, DRAFTD_STOP_DISK_FULL, DRAFTD_STOP_CANCEL };

/* A job that is queued or has a worker. */
struct draftd_live_job {
    struct draftd_live_job *next, *previous; /* in the order of rank */
    struct draftd_live_job *next_in_slot;
    int64_t number, rank;
    int64_t position; /* in the queue, from 1, when d->positions_known; 0: it does not wait */
    char id[32];
    Draftd__V1__JobSpec *spec;
    char *fingerprint;
    uint64_t memory_bytes, gpu_memory_bytes, trained_parameters;
    Draftd__V1__Job__State state;
    int attempt, crashes, max_retries;
    int crashes_before;    /* of those that came before its last checkpoint: it got on, the back-off begins anew */
    int64_t not_before_ms; /* back-off after a crash */

    struct draftd_worker *worker;
    enum draftd_stop stop;
    struct draft_error trouble; /* why the daemon stopped it by itself or could not start it */
    int notices;                /* of this attempt */
    uint64_t saves;             /* checkpoints recorded by this daemon: CreateCheckpoint waits for the next one */
    bool save_asked;            /* of the worker, which has not sent any since: one answers all who wait */
    int64_t metrics_step;       /* points were written up to here ... */
    uint64_t metrics_count;     /* ... and the value of draftd.ticks then; 0: none by this daemon */
    bool metrics_untold;        /* no kept event says so yet */

    Draftd__V1__Progress progress;
    char phase[32];          /* what progress.phase points to */
    uint64_t progress_count; /* draftd.ticks when it last changed */
    double seconds[DRAFTD_STEP_TIMES];
    int steps_timed;

    /* A move the database refused (disk full), tried again every second; shown to clients as if it were made. */
    struct draftd_unsaved *unsaved;
};

/* A job that is being deleted, piece by piece: it may not be resumed meanwhile. */
struct draftd_deletion {
    struct draftd_deletion *next;
    int64_t job;
};

/* A preview that is not over. */
struct draftd_live_preview {
    struct draftd_live_preview *next; /* oldest first */
    int64_t number, job;
    Draftd__V1__PreviewSpec *spec;
    int tries, total;
    struct draftd_worker *worker; /* that makes it; NULL: pending */
    int64_t step, phase_done, phase_total;
    int64_t not_before_ms;
};

struct draftd {
    /* constant */
    char *state_dir, *socket, *worker_path, *demo_dir;
    int max_queue, threads, hang_ms, drain_ms, probe_ms;
    int64_t start_time_us;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct draftd_store *store;
    bool draining, quit;
    int64_t retry_ms;   /* when moves that could not be recorded are tried again */
    bool reserve;       /* state_dir/reserve is allocated ... */
    int64_t reserve_ms; /* ... or when that is tried again */

    pthread_t thread;
    bool thread_runs;
    int epoll, kick_fd;
    bool kicked;

    struct draftd_live_job *jobs, *last_job;
    struct draftd_live_job *slots[DRAFTD_SLOTS]; /* the same by number */
    int queued;                                  /* how many of them are QUEUED */
    bool positions_known;                        /* as long as the queue stays as it is */
    struct draftd_deletion *deletions;
    struct draftd_live_preview *previews;
    struct draftd_worker *workers;
    struct draftd_start *coming; /* the job that starts next, its checkpoint being read (scheduler.c); NULL: none */
    struct draftd_devices devices;
    uint64_t next_worker; /* id; never used again */
    int inspectors, samplers, exporters;

    int64_t revision;      /* of the newest event that is committed */
    int64_t next_revision; /* of the newest event of the open transaction */
    int events_since_prune;
    uint64_t ticks; /* grows with every change that is told but not kept: progress, metrics, preview progress */
    bool progress_untold;
    int64_t progress_told_ms;
    struct draftd_watcher *watchers;
    struct draftd_watcher *to_wake;
};

/* daemon.c */
void draftd_kick(struct draftd *d); /* the daemon's thread looks at everything again */
/* Waits for `changed`; false when the caller's patience is over. */
bool draftd_wait(struct draftd *d, struct draftd_patience patience);
bool draftd_accepts_work(struct draftd *d, struct draft_error *err); /* false while draining */

/* transactions with events: a commit publishes their revisions and wakes the watchers (events.c) */
bool draftd_begin(struct draftd *d, enum draftd_durability durability, struct draft_error *err);
bool draftd_event(struct draftd *d, Draftd__V1__JobEvent__Kind kind, int64_t job, int64_t step, int64_t preview,
                  const char *message, struct draft_error *err);
bool draftd_commit(struct draftd *d, struct draft_error *err);
void draftd_rollback(struct draftd *d);
/* Something changed that no event is kept for. job 0: no job's. */
void draftd_tell(struct draftd *d, int64_t job, int64_t preview);

#endif
