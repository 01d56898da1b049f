/* One job on each device: the one that waits longest of those that may have it, except those that wait after a crash.
 */
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

void draftd_schedule(struct draftd *d, int64_t now_ms, int64_t *next_ms)
{
    struct draftd_live_job *next = NULL;
    if (d->draining || d->quit)
        return;
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
    if (next == NULL)
        return;
    int64_t number = next->number;
    struct draftd_checkpoint checkpoint;
    struct draft_error err = {0};
    draftd_checkpoint_sweep(d, number); /* what an earlier worker was writing when it died */
    if (draftd_checkpoint_choose(d, number, -1, true, &checkpoint, &err)) {
        next = draftd_live_job(d, number); /* the lock was free: it may be cancelled, paused, deleted by now */
        bool waits = next && next->state == DRAFTD__V1__JOB__STATE__STATE_QUEUED && !d->draining && !next->unsaved;
        int device = waits ? device_for(d, next) : DRAFTD_NO_DEVICE;
        waits &= device != DRAFTD_NO_DEVICE;
        if (waits &&
            draftd_space_check(d, next->spec, next->trained_parameters, draftd_checkpoint_count(d, number), &err)) {
            start(d, next, device, &checkpoint);
        } else if (waits) {
            struct draftd_move move = {
                .to = DRAFTD__V1__JOB__STATE__STATE_PAUSED, .reason = err.message, .reason_code = "DISK_FULL"};
            draftd_move_for_sure(d, next, &move);
        }
        free(checkpoint.path);
    } else {
        draftd_log(DRAFTD_ERROR, next->id, "cannot start: %s", err.message);
        next->not_before_ms = now_ms + 5000;
    }
    draftd_kick(d);
}
