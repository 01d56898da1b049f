/* One job on each device: the one that waits longest of those that may have it, except those that wait after a crash.
 * One is started at a time: its checkpoint is read, then its worker spawned. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints.h"
#include "devices.h"
#include "folders.h"
#include "job.h"
#include "log.h"
#include "message.h"
#include "space.h"
#include "training.h"

/* The spec goes with what the daemon decides in it: the device, and threads where the job asks for none. */
static void send_train(struct draftd *d, struct draftd_live_job *job, const char *checkpoint)
{
    Draftd__Worker__Train train = DRAFTD__WORKER__TRAIN__INIT;
    Draftd__Worker__Command command = DRAFTD__WORKER__COMMAND__INIT;
    char *folder = draftd_job_folder(d->state_dir, job->number);
    char *dataset = draftd_format("%s/dataset.jsonl", folder);
    train.job_id = job->id;
    train.dataset = dataset;
    train.folder = folder;
    if (checkpoint)
        train.checkpoint = (char *)checkpoint; /* packing reads it only */
    train.attempt = job->attempt;
    train.fingerprint = job->fingerprint;
    command.kind_case = DRAFTD__WORKER__COMMAND__KIND_TRAIN;
    command.train = &train;
    Draftd__V1__JobSpec spec = *job->spec;
    spec.device = (char *)draftd_device_name(d, job->worker->device); /* packing reads it only */
    if (spec.threads == 0)
        spec.threads = d->threads;
    train.spec = &spec;
    draftd_worker_send(d, job->worker, &command);
    free(dataset);
    free(folder);
}

/* The worker is spawned first and waits for its command, so that the attempt's row can name its process: if the daemon
 * dies in between, the worker sees the socket close. */
static void start(struct draftd *d, struct draftd_live_job *job, int device, const struct draftd_checkpoint *checkpoint)
{
    char *folder = draftd_job_folder(d->state_dir, job->number);
    char *log = draftd_format("%s/log/attempt-%d.log", folder, job->attempt + 1);
    free(folder);
    struct draft_error err = {0};
    struct draftd_worker *worker = draftd_worker_start(d, DRAFTD_TASK_TRAIN, job->id, log, &err);
    free(log);
    if (worker == NULL) {
        draftd_training_crashed(d, job, err.message, "WORKER_CRASHED");
        return;
    }
    worker->job = job->number;
    worker->device = device;
    worker->checkpoint = checkpoint->path ? draftd_strdup(checkpoint->path) : NULL;
    job->progress.step = checkpoint->step;
    job->stop = DRAFTD_STOP_NONE;
    job->trouble = (struct draft_error){0};
    job->steps_timed = 0;
    job->notices = 0;
    job->save_asked = false;
    struct draftd_move move = {.to = DRAFTD__V1__JOB__STATE__STATE_PREPARING, .begins = &worker->process};
    if (!draftd_move(d, job, &move, &err)) {
        draftd_log(DRAFTD_ERROR, job->id, "cannot start: %s", err.message);
        draftd_worker_kill(d, worker, DRAFTD_KILLED_UNWANTED, "its start could not be recorded");
        job->not_before_ms = draftd_now_ms() + 5000;
        return;
    }
    job->worker = worker;
    worker->report = draftd_training_report;
    worker->end = draftd_training_end;
    send_train(d, job, checkpoint->path);
}

static int device_for(const struct draftd *d, const struct draftd_live_job *job)
{
    char why[16]; /* for those who ask about the job: job.c */
    return draftd_device_choose(d, job->spec->device, job->gpu_memory_bytes, why, sizeof why);
}

/* --- Reading its checkpoint first, on a thread of its own: full training's has 10 GB, and the daemon's thread has no
 * seconds to spare --- */

struct draftd_start {
    struct draftd *d;
    pthread_t thread;
    int64_t job;
    bool over; /* what follows is there */
    bool chosen;
    struct draftd_checkpoint checkpoint;
    struct draft_error err; /* when not chosen */
};

static void *choose(void *argument)
{
    struct draftd_start *coming = argument;
    struct draftd *d = coming->d;
    pthread_mutex_lock(&d->lock);
    coming->chosen = draftd_checkpoint_choose(d, coming->job, -1, true, &coming->checkpoint, &coming->err);
    coming->over = true;
    draftd_kick(d);
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

static void later(struct draftd_live_job *job, int64_t now_ms, const struct draft_error *why)
{
    draftd_log(DRAFTD_ERROR, job->id, "cannot start: %s", why->message);
    job->trouble = *why;
    job->not_before_ms = now_ms + 5000;
}

static void prepare(struct draftd *d, struct draftd_live_job *job, int64_t now_ms)
{
    draftd_checkpoint_sweep(d, job->number); /* what an earlier worker was writing when it died */
    struct draftd_start *coming = draftd_new(sizeof *coming);
    coming->d = d;
    coming->job = job->number;
    errno = pthread_create(&coming->thread, NULL, choose, coming); /* signals are blocked, as in this thread */
    if (errno == 0) {
        d->coming = coming;
        return;
    }
    draft_fail_errno(&coming->err, "cannot start a thread that reads its checkpoint");
    later(job, now_ms, &coming->err);
    free(coming);
    draftd_kick(d); /* others can start meanwhile */
}

/* The job may be cancelled, paused, deleted by now, and its device be taken. */
static void start_prepared(struct draftd *d, struct draftd_start *coming, int64_t now_ms)
{
    struct draftd_live_job *job = draftd_live_job(d, coming->job);
    if (job == NULL || job->state != DRAFTD__V1__JOB__STATE__STATE_QUEUED || job->unsaved)
        return;
    if (!coming->chosen) {
        later(job, now_ms, &coming->err);
        return;
    }
    int device = device_for(d, job);
    if (device == DRAFTD_NO_DEVICE)
        return;
    struct draft_error err = {0};
    if (draftd_space_check(d, job->spec, job->trained_parameters, draftd_checkpoint_count(d, job->number), &err)) {
        start(d, job, device, &coming->checkpoint);
    } else {
        struct draftd_move move = {
            .to = DRAFTD__V1__JOB__STATE__STATE_PAUSED, .reason = err.message, .reason_code = "DISK_FULL"};
        draftd_move_for_sure(d, job, &move);
    }
}

static void forget(struct draftd_start *coming)
{
    pthread_join(coming->thread, NULL);
    free(coming->checkpoint.path);
    free(coming);
}

void draftd_schedule_end(struct draftd *d)
{
    if (d->coming)
        forget(d->coming);
    d->coming = NULL;
}

/* --- Which one --- */

static struct draftd_live_job *next_job(struct draftd *d, int64_t now_ms, int64_t *next_ms)
{
    struct draftd_live_job *next = NULL;
    for (struct draftd_live_job *job = d->jobs; job; job = job->next) {
        if (job->worker || job->state != DRAFTD__V1__JOB__STATE__STATE_QUEUED || job->unsaved)
            continue;
        if (job->not_before_ms > now_ms) {
            if (job->not_before_ms < *next_ms)
                *next_ms = job->not_before_ms;
            continue;
        }
        if (next == NULL && device_for(d, job) != DRAFTD_NO_DEVICE)
            next = job;
    }
    return next;
}

void draftd_schedule(struct draftd *d, int64_t now_ms, int64_t *next_ms)
{
    if (d->draining || d->quit || (d->coming && !d->coming->over))
        return;
    struct draftd_start *coming = d->coming;
    if (coming) {
        d->coming = NULL;
        start_prepared(d, coming, now_ms);
        forget(coming);
    }
    struct draftd_live_job *next = next_job(d, now_ms, next_ms);
    if (next)
        prepare(d, next, now_ms);
}
