/*
 *             submit
 *               |
 *               v
 *   +------> QUEUED --------------------------------------------+-----> PAUSED, FAILED, CANCELLED at once
 *   |           | a device is free                              |
 *   |           v                                               |
 *   |       PREPARING ----------------+----> CANCELLING         |
 *   |           | the worker started  |         | worker gone   |
 *   |           v                     |         v               |
 *   |        RUNNING -----------------+     CANCELLED <---------+
 *   |           |
 *   |           +-- crash with retries left, drain, restart of the daemon ---> QUEUED (its old place)
 *   |           +-- all steps done ------> SUCCEEDED
 *   |           +-- pause, disk full ----> PAUSED ---cancel---> CANCELLED
 *   |           '-- error, no retry left -> FAILED
 *   |
 *   '--- resume: PAUSED, FAILED (the end of the queue)
 */
#include "job.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "devices.h"
#include "log.h"
#include "message.h"
#include "space.h"
#include "worker.h"

#define QUEUED     DRAFTD__V1__JOB__STATE__STATE_QUEUED
#define PREPARING  DRAFTD__V1__JOB__STATE__STATE_PREPARING
#define RUNNING    DRAFTD__V1__JOB__STATE__STATE_RUNNING
#define PAUSED     DRAFTD__V1__JOB__STATE__STATE_PAUSED
#define CANCELLING DRAFTD__V1__JOB__STATE__STATE_CANCELLING
#define SUCCEEDED  DRAFTD__V1__JOB__STATE__STATE_SUCCEEDED
#define FAILED     DRAFTD__V1__JOB__STATE__STATE_FAILED
#define CANCELLED  DRAFTD__V1__JOB__STATE__STATE_CANCELLED
#define BIT(state) (1u << (state))

static const struct {
    const char *name;
    unsigned to; /* the states it may move to */
} table[] = {
    [QUEUED] = {"queued", BIT(QUEUED) | BIT(PREPARING) | BIT(PAUSED) | BIT(FAILED) | BIT(CANCELLED)},
    [PREPARING] = {"preparing", BIT(RUNNING) | BIT(QUEUED) | BIT(PAUSED) | BIT(CANCELLING) | BIT(FAILED)},
    [RUNNING] = {"running", BIT(QUEUED) | BIT(PAUSED) | BIT(CANCELLING) | BIT(SUCCEEDED) | BIT(FAILED)},
    [PAUSED] = {"paused", BIT(QUEUED) | BIT(CANCELLED)},
    [CANCELLING] = {"cancelling", BIT(CANCELLED)},
    [SUCCEEDED] = {"succeeded", 0},
    [FAILED] = {"failed", BIT(QUEUED)},
    [CANCELLED] = {"cancelled", 0},
};

struct draftd_unsaved {
    struct draftd_move move;
    char reason[1024], reason_code[32];
};

bool draftd_state_is_end(Draftd__V1__Job__State state)
{
    return state == SUCCEEDED || state == FAILED || state == CANCELLED;
}

const char *draftd_state_name(Draftd__V1__Job__State state)
{
    return state >= QUEUED && state <= CANCELLED ? table[state].name : "unknown";
}

bool draftd_job_number(const char *job_id, int64_t *number, struct draft_error *err)
{
    *number = draftd_parse_id("job", job_id);
    if (*number)
        return true;
    char shown[64];
    draftd_clean_text(shown, sizeof shown, job_id);
    return job_id && *job_id
               ? draft_fail_field(err, DRAFT_NOT_FOUND, "job_id", "there is no job \"%s\"; ids look like job-12", shown)
               : draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "job_id", "the job's id is missing");
}

static struct draftd_live_job **slot_of(struct draftd *d, int64_t number)
{
    return &d->slots[(uint64_t)number % DRAFTD_SLOTS];
}

struct draftd_live_job *draftd_live_job(struct draftd *d, int64_t number)
{
    struct draftd_live_job *job = *slot_of(d, number);
    while (job && job->number != number)
        job = job->next_in_slot;
    return job;
}

/* From the end: a new job has the highest rank. */
static void enqueue(struct draftd *d, struct draftd_live_job *job)
{
    struct draftd_live_job *before = d->last_job;
    while (before && before->rank > job->rank)
        before = before->previous;
    job->previous = before;
    job->next = before ? before->next : d->jobs;
    *(before ? &before->next : &d->jobs) = job;
    *(job->next ? &job->next->previous : &d->last_job) = job;
    d->positions_known = false;
}

static void unlink_job(struct draftd *d, struct draftd_live_job *job)
{
    *(job->previous ? &job->previous->next : &d->jobs) = job->next;
    *(job->next ? &job->next->previous : &d->last_job) = job->previous;
    d->positions_known = false;
}

struct draftd_live_job *draftd_job_wake(struct draftd *d, const Draftd__V1__Job *row, int64_t rank, int crashes)
{
    struct draftd_live_job *job = draftd_new(sizeof *job);
    job->number = draftd_parse_id("job", row->id);
    snprintf(job->id, sizeof job->id, "%s", row->id);
    job->rank = rank;
    job->spec = draftd_message_copy(row->spec);
    job->fingerprint = draftd_strdup(row->fingerprint);
    job->memory_bytes = row->memory_bytes;
    job->gpu_memory_bytes = row->gpu_memory_bytes;
    job->trained_parameters = row->trained_parameters;
    job->state = row->state;
    job->attempt = row->attempt;
    job->crashes = job->crashes_before = crashes;
    job->max_retries = row->spec->max_retries == 0 ? 2 : row->spec->max_retries < 0 ? 0 : row->spec->max_retries;
    job->progress = *row->progress;
    job->progress.phase = job->phase;
    job->next_in_slot = *slot_of(d, job->number);
    *slot_of(d, job->number) = job;
    d->queued += job->state == QUEUED;
    enqueue(d, job);
    return job;
}

void draftd_job_forget(struct draftd *d, struct draftd_live_job *job)
{
    assert(job->worker == NULL);
    struct draftd_live_job **link = slot_of(d, job->number);
    while (*link != job)
        link = &(*link)->next_in_slot;
    *link = job->next_in_slot;
    d->queued -= job->state == QUEUED;
    unlink_job(d, job);
    draftd_message_free(job->spec);
    free(job->fingerprint);
    free(job->unsaved);
    free(job);
}

bool draftd_move_write(struct draftd *d, struct draftd_live_job *job, const struct draftd_move *move,
                       struct draft_error *err)
{
    assert(table[job->state].to & BIT(move->to));
    const char *reason = move->reason ? move->reason : "";
    struct draftd_store_change change = {
        .state = move->to,
        .reason = reason,
        .reason_code = move->reason_code ? move->reason_code : "",
        .step = job->progress.step,
        .attempt = job->attempt + (move->begins != NULL),
        .crashes = move->forgive ? 0 : job->crashes + move->crashed,
        .requeue = move->requeue,
    };
    if (move->begins &&
        !draftd_store_begin_attempt(d->store, job->number, change.attempt, job->progress.step, move->begins, err))
        return false;
    if (move->ends && !draftd_store_end_attempt(d->store, job->number, job->attempt, job->progress.step, reason, err))
        return false;
    if (move->ends && job->metrics_untold && /* so that a watcher that comes back later fetches the last points */
        !draftd_event(d, DRAFTD__V1__JOB_EVENT__KIND__KIND_METRICS, job->number, job->metrics_step, 0, "", err))
        return false;
    return draftd_store_change_job(d->store, job->number, &change, &job->rank, err) &&
           draftd_event(d, DRAFTD__V1__JOB_EVENT__KIND__KIND_STATE, job->number, job->progress.step, 0, "", err);
}

void draftd_moved(struct draftd *d, struct draftd_live_job *job, const struct draftd_move *move)
{
    const char *reason = move->reason ? move->reason : "";
    draftd_log(move->to == FAILED ? DRAFTD_WARNING : DRAFTD_INFO, job->id, "%s -> %s at step %lld%s%s",
               table[job->state].name, table[move->to].name, (long long)job->progress.step, *reason ? ": " : "",
               reason);
    d->queued += (move->to == QUEUED) - (job->state == QUEUED);
    d->positions_known = false;
    job->state = move->to;
    job->attempt += move->begins != NULL;
    job->crashes = move->forgive ? 0 : job->crashes + move->crashed;
    if (move->forgive)
        job->crashes_before = 0;
    if (move->ends) {
        job->metrics_untold = false;
        job->stop = DRAFTD_STOP_NONE;
        job->phase[0] = '\0';
    }
    if (move->requeue) {
        unlink_job(d, job);
        enqueue(d, job);
    }
    free(job->unsaved);
    job->unsaved = NULL;
    if (job->worker == NULL && (move->to == PAUSED || draftd_state_is_end(move->to)))
        draftd_job_forget(d, job);
    pthread_cond_broadcast(&d->changed);
    draftd_kick(d);
}

static bool try_move(struct draftd *d, struct draftd_live_job *job, const struct draftd_move *move,
                     struct draft_error *err)
{
    if (!draftd_begin(d, DRAFTD_DURABLE, err))
        return false;
    if (!draftd_move_write(d, job, move, err)) {
        draftd_rollback(d);
        return false;
    }
    if (!draftd_commit(d, err))
        return false;
    draftd_moved(d, job, move);
    return true;
}

bool draftd_move(struct draftd *d, struct draftd_live_job *job, const struct draftd_move *move, struct draft_error *err)
{
    struct draft_error failure = {0};
    if (try_move(d, job, move, &failure))
        return true;
    if (draftd_reserve_give(d, &failure)) {
        failure = (struct draft_error){0};
        if (try_move(d, job, move, &failure))
            return true;
    }
    if (err && err->code == DRAFT_OK)
        *err = failure;
    return false;
}

void draftd_move_for_sure(struct draftd *d, struct draftd_live_job *job, const struct draftd_move *move)
{
    struct draft_error err = {0};
    if (draftd_move(d, job, move, &err))
        return;
    draftd_log(DRAFTD_ERROR, job->id, "cannot record %s -> %s yet: %s", table[job->state].name, table[move->to].name,
               err.message);
    struct draftd_unsaved *unsaved = draftd_new(sizeof *unsaved);
    unsaved->move = *move;
    unsaved->move.begins = NULL; /* its memory is the caller's; moves that begin an attempt are never made for sure */
    snprintf(unsaved->reason, sizeof unsaved->reason, "%s", move->reason ? move->reason : "");
    snprintf(unsaved->reason_code, sizeof unsaved->reason_code, "%s", move->reason_code ? move->reason_code : "");
    unsaved->move.reason = unsaved->reason;
    unsaved->move.reason_code = unsaved->reason_code;
    free(job->unsaved);
    job->unsaved = unsaved;
    job->progress_count = ++d->ticks; /* no event is kept, yet watchers learn of it */
    draftd_tell(d, job->number, 0);
    pthread_cond_broadcast(&d->changed);
}

void draftd_retry_moves(struct draftd *d)
{
    for (struct draftd_live_job *job = d->jobs, *next; job; job = next) {
        next = job->next;
        struct draft_error err = {0};
        if (job->unsaved) {
            struct draftd_unsaved unsaved = *job->unsaved; /* draftd_moved() frees it */
            unsaved.move.reason = unsaved.reason;
            unsaved.move.reason_code = unsaved.reason_code;
            if (!draftd_move(d, job, &unsaved.move, &err))
                return; /* the disk is still full: for the others too */
        }
    }
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of the last steps' times, and what it says about the rest. */
void draftd_job_estimate(const struct draftd_live_job *job, Draftd__V1__Progress *progress)
{
    int n = job->steps_timed < DRAFTD_STEP_TIMES ? job->steps_timed : DRAFTD_STEP_TIMES;
    if (n > 0) {
        double sorted[DRAFTD_STEP_TIMES];
        memcpy(sorted, job->seconds, (size_t)n * sizeof sorted[0]);
        qsort(sorted, (size_t)n, sizeof sorted[0], compare_doubles);
        progress->seconds_per_step = n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
    }
    bool moving = job->state == PREPARING || job->state == RUNNING;
    progress->eta_seconds = moving && progress->seconds_per_step > 0
                                ? progress->seconds_per_step * (double)(progress->total_steps - progress->step)
                                : -1;
}

/* All positions at once: whoever lists a long queue asks for each. Those before a job are those that may get a device
 * it may get: of a certain GPU, those of it and of any; of any, those of all GPUs. */
static void find_positions(struct draftd *d)
{
    int64_t waiting[DRAFTD_MAX_DEVICES] = {0}, of_any = 0, of_gpus = 0;
    for (struct draftd_live_job *job = d->jobs; job; job = job->next) {
        job->position = 0;
        if (job->state != QUEUED)
            continue;
        int queue = draftd_device_queue(d, job->spec->device, job->gpu_memory_bytes);
        job->position = 1 + (queue == DRAFTD_CPU         ? waiting[DRAFTD_CPU]
                             : queue == DRAFTD_NO_DEVICE ? of_gpus
                                                         : waiting[queue] + of_any);
        of_any += queue == DRAFTD_NO_DEVICE;
        of_gpus += queue != DRAFTD_CPU;
        if (queue != DRAFTD_NO_DEVICE)
            waiting[queue]++;
    }
    d->positions_known = true;
}

static void describe_wait(struct draftd *d, const struct draftd_live_job *job, Draftd__V1__Job *message)
{
    char waits_for[900], *why;
    if (!d->positions_known)
        find_positions(d);
    int device = draftd_device_choose(d, job->spec->device, job->gpu_memory_bytes, waits_for, sizeof waits_for);
    message->queue_position = job->position;
    if (d->draining)
        why = draftd_strdup("waits for the daemon's next start: it is shutting down");
    else if (job->not_before_ms > draftd_now_ms())
        why =
            draftd_format("waits before trying again: %s", job->trouble.code ? job->trouble.message : message->reason);
    else if (device == DRAFTD_NO_DEVICE)
        why = draftd_format("waits for %s%s", waits_for, job->position > 1 ? ", others are before it" : "");
    else if (job->position > 1)
        why = draftd_format("waits for %s: others are before it", draftd_device_name(d, device));
    else
        why = draftd_strdup("starts in a moment");
    draftd_message_string(&message->reason, why);
    free(why);
}

void draftd_job_overlay(struct draftd *d, Draftd__V1__Job *message)
{
    const struct draftd_live_job *job = draftd_live_job(d, draftd_parse_id("job", message->id));
    if (job == NULL)
        return;
    Draftd__V1__Progress *progress = message->progress;
    int64_t total = progress->total_steps;
    free(progress->phase == (char *)protobuf_c_empty_string ? NULL : progress->phase);
    *progress = job->progress;
    progress->total_steps = job->progress.total_steps ? job->progress.total_steps : total;
    progress->phase = (char *)protobuf_c_empty_string;
    draftd_message_string(&progress->phase, job->phase);
    draftd_job_estimate(job, progress);
    draftd_message_string(&message->device, job->worker ? draftd_device_name(d, job->worker->device) : "");
    if (job->unsaved) {
        message->state = job->unsaved->move.to;
        draftd_message_string(&message->reason, job->unsaved->reason);
        draftd_message_string(&message->reason_code, job->unsaved->reason_code);
    } else if (job->state == QUEUED) {
        describe_wait(d, job, message);
    }
}

Draftd__V1__Job *draftd_job_message(struct draftd *d, int64_t number, struct draft_error *err)
{
    Draftd__V1__Job *job = draftd_store_job(d->store, number, err);
    if (job)
        draftd_job_overlay(d, job);
    return job;
}
