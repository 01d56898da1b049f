/* JobService but for CreateJob: get, list, cancel, pause, resume, delete. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoints.h"
#include "folders.h"
#include "job.h"
#include "log.h"
#include "message.h"
#include "previews.h"
#include "requests.h"
#include "space.h"
#include "submit.h"
#include "training.h"

/* Of a deletion: some 5 ms with the daemon's lock, then long enough for others to take it. */
enum { POINTS_AT_ONCE = 4096, PIECES_APART_US = 1000 };

#define QUEUED     DRAFTD__V1__JOB__STATE__STATE_QUEUED
#define PREPARING  DRAFTD__V1__JOB__STATE__STATE_PREPARING
#define RUNNING    DRAFTD__V1__JOB__STATE__STATE_RUNNING
#define PAUSED     DRAFTD__V1__JOB__STATE__STATE_PAUSED
#define CANCELLING DRAFTD__V1__JOB__STATE__STATE_CANCELLING
#define FAILED     DRAFTD__V1__JOB__STATE__STATE_FAILED
#define CANCELLED  DRAFTD__V1__JOB__STATE__STATE_CANCELLED

bool draftd_get_job(struct draftd *d, const char *job_id, Draftd__V1__Job **job, struct draft_error *err)
{
    int64_t number;
    if (!draftd_job_number(job_id, &number, err))
        return false;
    pthread_mutex_lock(&d->lock);
    *job = draftd_job_message(d, number, err);
    pthread_mutex_unlock(&d->lock);
    return *job != NULL;
}

bool draftd_list_jobs(struct draftd *d, const Draftd__V1__ListJobsRequest *request,
                      Draftd__V1__ListJobsResponse **reply, struct draft_error *err)
{
    unsigned states = request->n_states ? 0 : ~0u;
    for (size_t i = 0; i < request->n_states; i++) {
        if (request->states[i] < QUEUED || request->states[i] > CANCELLED)
            return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "states", "%d is no state of a job",
                                    (int)request->states[i]);
        states |= 1u << request->states[i];
    }
    int size;
    int64_t before;
    if (!draftd_page(request->page_size, request->page_token, states, &size, &before, err))
        return false;
    Draftd__V1__ListJobsResponse *list = draftd_message_new(&draftd__v1__list_jobs_response__descriptor);
    pthread_mutex_lock(&d->lock);
    bool ok = draftd_store_jobs(d->store, states, before, size + 1, &list->jobs, &list->n_jobs, err) &&
              draftd_store_count_jobs(d->store, states, &list->total_size, err);
    for (size_t i = 0; ok && i < list->n_jobs; i++)
        draftd_job_overlay(d, list->jobs[i]);
    pthread_mutex_unlock(&d->lock);
    if (!ok) {
        draftd_message_free(list);
        return false;
    }
    size_t fit = draftd_page_fit(list->jobs, list->n_jobs, size);
    if (fit < list->n_jobs) {
        list->next_page_token = draftd_page_token(draftd_parse_id("job", list->jobs[fit - 1]->id), states);
        while (list->n_jobs > fit)
            draftd_message_free(list->jobs[--list->n_jobs]);
    }
    *reply = list;
    return true;
}

/* A job that is paused or over, brought back into memory to be moved. Nothing is changed when the move fails. */
static struct draftd_live_job *wake_for(struct draftd *d, const Draftd__V1__Job *row)
{
    return draftd_job_wake(d, row, 0, 0);
}

static bool move_sleeping(struct draftd *d, const Draftd__V1__Job *row, const struct draftd_move *move,
                          struct draft_error *err)
{
    struct draftd_live_job *job = wake_for(d, row);
    if (draftd_move(d, job, move, err))
        return true;
    draftd_job_forget(d, job);
    return false;
}

static bool cancel(struct draftd *d, int64_t number, struct draft_error *err)
{
    Draftd__V1__Job *row = draftd_job_message(d, number, err);
    if (row == NULL)
        return false;
    struct draftd_live_job *job = draftd_live_job(d, number);
    struct draftd_move at_once = {.to = CANCELLED, .reason = "cancelled on request"};
    bool ok = true;
    if (draftd_state_is_end(row->state) || row->state == CANCELLING) {
        if (row->state != CANCELLING)
            ok = draft_fail(err, DRAFT_FAILED_PRECONDITION, "job-%lld has ended already (%s)", (long long)number,
                            draftd_state_name(row->state));
    } else if (job == NULL) {
        ok = move_sleeping(d, row, &at_once, err);
    } else if (job->unsaved) {
        ok = draft_fail(err, DRAFT_UNAVAILABLE, "the last change of job-%lld is not on disk yet; try again",
                        (long long)number);
    } else if (job->worker == NULL) {
        ok = draftd_move(d, job, &at_once, err);
    } else {
        struct draftd_move move = {.to = CANCELLING, .reason = "stops on request"};
        ok = draftd_move(d, job, &move, err);
        if (ok)
            draftd_training_stop(d, job, DRAFTD_STOP_CANCEL);
    }
    draftd_message_free(row);
    return ok;
}

bool draftd_cancel_job(struct draftd *d, const char *job_id, Draftd__V1__Job **job, struct draft_error *err)
{
    int64_t number;
    if (!draftd_job_number(job_id, &number, err))
        return false;
    pthread_mutex_lock(&d->lock);
    *job = cancel(d, number, err) ? draftd_job_message(d, number, err) : NULL;
    pthread_mutex_unlock(&d->lock);
    return *job != NULL;
}

/* Waits until the worker has saved and gone. */
static bool wait_paused(struct draftd *d, int64_t number, int attempt, struct draftd_patience patience,
                        struct draft_error *err)
{
    for (;;) {
        struct draftd_live_job *job = draftd_live_job(d, number);
        if (job == NULL || job->attempt != attempt || job->worker == NULL) {
            Draftd__V1__Job *row = draftd_store_job(d->store, number, err);
            if (row == NULL)
                return false;
            bool paused = row->state == PAUSED;
            if (!paused && job && job->unsaved)
                draft_fail(err, DRAFT_DISK_FULL,
                           "job-%lld has stopped, but that cannot be recorded yet: the disk is full",
                           (long long)number);
            else if (!paused)
                draft_fail(err, DRAFT_FAILED_PRECONDITION, "job-%lld ended before it could be paused (%s)",
                           (long long)number, draftd_state_name(row->state));
            draftd_message_free(row);
            return paused;
        }
        if (!draftd_wait(d, patience))
            return draft_fail(err, DRAFT_UNAVAILABLE,
                              "job-%lld is still saving its state and pauses when that is done; look at it again later",
                              (long long)number);
    }
}

static bool pause_job(struct draftd *d, int64_t number, struct draftd_patience patience, struct draft_error *err)
{
    Draftd__V1__Job *row = draftd_job_message(d, number, err);
    if (row == NULL)
        return false;
    Draftd__V1__Job__State state = row->state;
    draftd_message_free(row);
    struct draftd_live_job *job = draftd_live_job(d, number);
    if (state == PAUSED && job == NULL)
        return true;
    if (job && job->unsaved)
        return draft_fail(err, DRAFT_UNAVAILABLE, "the last change of job-%lld is not on disk yet; try again",
                          (long long)number);
    if (state == QUEUED && job && job->worker == NULL) {
        struct draftd_move move = {.to = PAUSED, .reason = "paused while it waited"};
        return draftd_move(d, job, &move, err);
    }
    if ((state != RUNNING && state != PREPARING) || job == NULL)
        return draft_fail(err, DRAFT_FAILED_PRECONDITION, "job-%lld is %s; only a queued or running job can be paused",
                          (long long)number, draftd_state_name(state));
    int attempt = job->attempt;
    draftd_training_stop(d, job, DRAFTD_STOP_PAUSE);
    return wait_paused(d, number, attempt, patience, err);
}

bool draftd_pause_job(struct draftd *d, const char *job_id, struct draftd_patience patience, Draftd__V1__Job **job,
                      struct draft_error *err)
{
    int64_t number;
    if (!draftd_job_number(job_id, &number, err))
        return false;
    pthread_mutex_lock(&d->lock);
    *job = pause_job(d, number, patience, err) ? draftd_job_message(d, number, err) : NULL;
    pthread_mutex_unlock(&d->lock);
    return *job != NULL;
}

static bool being_deleted(const struct draftd *d, int64_t number)
{
    const struct draftd_deletion *deletion = d->deletions;
    while (deletion && deletion->job != number)
        deletion = deletion->next;
    return deletion != NULL;
}

static bool may_resume(struct draftd *d, const Draftd__V1__Job *row, struct draft_error *err)
{
    if (row->state != PAUSED && row->state != FAILED)
        return draft_fail(err, DRAFT_FAILED_PRECONDITION, "%s is %s; only a paused or failed job can be resumed",
                          row->id, draftd_state_name(row->state));
    if (draftd_live_job(d, draftd_parse_id("job", row->id)))
        return draft_fail(err, DRAFT_UNAVAILABLE,
                          "the last change of %s is not on disk yet; free some space and try again", row->id);
    if (being_deleted(d, draftd_parse_id("job", row->id)))
        return draft_fail(err, DRAFT_FAILED_PRECONDITION, "%s is being deleted", row->id);
    return d->queued < d->max_queue ||
           draft_fail(err, DRAFT_RESOURCE_EXHAUSTED, "the queue is full: %d jobs wait", d->queued);
}

static Draftd__V1__Job *resumable(struct draftd *d, int64_t number, struct draft_error *err)
{
    if (!draftd_accepts_work(d, err))
        return NULL;
    Draftd__V1__Job *row = draftd_job_message(d, number, err);
    if (row == NULL || may_resume(d, row, err))
        return row;
    draftd_message_free(row);
    return NULL;
}

bool draftd_resume_job(struct draftd *d, const char *job_id, struct draftd_patience patience, Draftd__V1__Job **job,
                       struct draft_error *err)
{
    int64_t number;
    if (!draftd_job_number(job_id, &number, err))
        return false;
    *job = NULL;
    pthread_mutex_lock(&d->lock);
    Draftd__V1__Job *row = resumable(d, number, err);
    pthread_mutex_unlock(&d->lock);
    if (row == NULL)
        return false;
    char *folder = draftd_job_folder(d->state_dir, number);
    char *copy = draftd_format("%s/dataset.jsonl", folder);
    struct draftd_dataset dataset = {0};
    Draftd__Worker__Inspected *found = NULL;
    bool ok = draftd_dataset_read(copy, &dataset, err) &&
              draftd_inspect(d, DRAFTD_INSPECT_FILES, row->spec, &dataset, copy, patience, &found, err);
    if (ok && strcmp(found->fingerprint, row->fingerprint) != 0)
        ok = draft_fail_field(err, DRAFT_FAILED_PRECONDITION, "fingerprint",
                              "WEIGHTS_CHANGED: the model or reward files of %s are not those it was submitted with "
                              "(fingerprint %.16s..., now %.16s...); put them back, or submit a new job",
                              row->id, row->fingerprint, found->fingerprint);
    draftd_message_free(row);
    draftd_message_free(found);
    draftd_dataset_free(&dataset);
    free(copy);
    free(folder);
    if (!ok)
        return false;
    pthread_mutex_lock(&d->lock);
    row = resumable(d, number, err); /* others may have been faster meanwhile */
    struct draftd_move move = {.to = QUEUED, .requeue = true, .forgive = true};
    if (row && draftd_space_check(d, row->spec, row->trained_parameters, draftd_checkpoint_count(d, number), err) &&
        move_sleeping(d, row, &move, err))
        *job = draftd_job_message(d, number, err);
    draftd_message_free(row);
    pthread_mutex_unlock(&d->lock);
    return *job != NULL;
}

/* One piece of the points in a transaction of its own; *left: there may be more. */
static bool delete_points(struct draftd *d, int64_t number, bool *left, struct draft_error *err)
{
    int64_t deleted = 0;
    if (!draftd_begin(d, DRAFTD_RELAXED, err))
        return false;
    if (!draftd_store_delete_points(d->store, number, POINTS_AT_ONCE, &deleted, err)) {
        draftd_rollback(d);
        return false;
    }
    *left = deleted == POINTS_AT_ONCE;
    return draftd_commit(d, err);
}

static bool delete_rows(struct draftd *d, int64_t number, struct draft_error *err)
{
    for (bool left = true; left;) { /* a job has up to millions of points: the lock is free between the pieces */
        if (!draftd_accepts_work(d, err) || !delete_points(d, number, &left, err))
            return false;
        if (left) {
            pthread_mutex_unlock(&d->lock);
            usleep(PIECES_APART_US);
            pthread_mutex_lock(&d->lock);
        }
    }
    if (!draftd_begin(d, DRAFTD_DURABLE, err))
        return false;
    if (!draftd_store_delete_job(d->store, number, err) ||
        !draftd_event(d, DRAFTD__V1__JOB_EVENT__KIND__KIND_DELETED, number, 0, 0, "", err)) {
        draftd_rollback(d);
        return false;
    }
    return draftd_commit(d, err);
}

static bool may_delete(struct draftd *d, const Draftd__V1__Job *row, struct draft_error *err)
{
    if (row->state != PAUSED && !draftd_state_is_end(row->state))
        return draft_fail(err, DRAFT_FAILED_PRECONDITION, "%s is %s; cancel it first", row->id,
                          draftd_state_name(row->state));
    int64_t number = draftd_parse_id("job", row->id);
    if (draftd_live_job(d, number))
        return draft_fail(err, DRAFT_UNAVAILABLE, "the last change of %s is not on disk yet; try again", row->id);
    return !being_deleted(d, number) || draft_fail(err, DRAFT_UNAVAILABLE, "%s is being deleted already", row->id);
}

bool draftd_delete_job(struct draftd *d, const char *job_id, struct draft_error *err)
{
    struct draftd_deletion self;
    if (!draftd_job_number(job_id, &self.job, err))
        return false;
    pthread_mutex_lock(&d->lock);
    Draftd__V1__Job *row = draftd_job_message(d, self.job, err);
    bool ok = row && may_delete(d, row, err);
    char *folder = draftd_job_folder(d->state_dir, self.job);
    char *trash = draftd_format("%s/trash/job-%lld", d->state_dir, (long long)self.job);
    if (ok) {
        self.next = d->deletions;
        d->deletions = &self;
        ok = delete_rows(d, self.job, err);
        struct draftd_deletion **at = &d->deletions;
        while (*at != &self)
            at = &(*at)->next;
        *at = self.next;
    }
    if (ok) { /* out of sight now, out of the disk without the lock; a crash in between is swept at the next start */
        draftd_previews_forget(d, self.job);
        if (rename(folder, trash) != 0 && errno != ENOENT)
            draftd_log(DRAFTD_WARNING, row->id, "cannot move its folder away: %s", strerror(errno));
        draftd_log(DRAFTD_INFO, row->id, "deleted");
        pthread_cond_broadcast(&d->changed);
    }
    pthread_mutex_unlock(&d->lock);
    if (ok)
        draftd_remove_tree(trash);
    draftd_message_free(row);
    free(folder);
    free(trash);
    return ok;
}
