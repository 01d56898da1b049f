/*
 * Events and those who watch them. A kept event is a row of the database with a revision; a watcher is a position in
 * that order, so a slow one costs nothing and loses nothing. Progress and new points are told without being kept: a
 * watcher remembers the tick up to which it knows them, and gets the newest state of each job that changed since.
 */
#include "watch.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "job.h"
#include "log.h"
#include "message.h"
#include "requests.h"

enum { SNAPSHOT_JOBS = 256, SNAPSHOT_BYTES = 256 << 10 };

struct draftd_watcher {
    struct draftd_watcher *next, *next_to_wake;
    struct draftd *d;
    int64_t job, preview; /* 0: any; none */
    void (*wake)(void *context);
    void *context;
    bool pending, calling;

    int64_t next_revision;
    bool snapshot_due;
    int64_t snapshot_before; /* the next piece of the snapshot holds jobs below this number; 0: from the newest */
    uint64_t progress_seen, metrics_seen;

    bool dirty; /* of a preview */
    bool over;
    struct draft_error error; /* why it is over, if by an error */
};

static void mark(struct draftd_watcher *watcher)
{
    if (watcher->pending)
        return;
    struct draftd *d = watcher->d;
    watcher->pending = true;
    watcher->next_to_wake = d->to_wake;
    d->to_wake = watcher;
    draftd_kick(d);
}

bool draftd_begin(struct draftd *d, enum draftd_durability durability, struct draft_error *err)
{
    d->next_revision = d->revision;
    return draftd_store_begin(d->store, durability, err);
}

bool draftd_event(struct draftd *d, Draftd__V1__JobEvent__Kind kind, int64_t job, int64_t step, int64_t preview,
                  const char *message, struct draft_error *err)
{
    if (!draftd_store_add_event(d->store, kind, job, step, preview, message, &d->next_revision, err))
        return false;
    if (++d->events_since_prune >= 1000) {
        d->events_since_prune = 0;
        if (!draftd_store_prune_events(d->store, DRAFTD_EVENTS_KEPT, err) ||
            !draftd_store_prune_requests(d->store, draftd_now_us() - DRAFTD_REQUESTS_KEPT_US, err))
            return false;
    }
    /* Marked before the commit: the daemon's thread cannot wake them before the lock is free, and a watcher woken for
     * nothing asks and goes back to sleep. */
    for (struct draftd_watcher *watcher = d->watchers; watcher; watcher = watcher->next) {
        if (watcher->preview ? watcher->preview == preview : watcher->job == 0 || watcher->job == job) {
            watcher->dirty = true;
            mark(watcher);
        } else if (watcher->preview && kind == DRAFTD__V1__JOB_EVENT__KIND__KIND_DELETED) {
            watcher->dirty = true; /* perhaps its preview went with the job */
            mark(watcher);
        }
    }
    return true;
}

bool draftd_commit(struct draftd *d, struct draft_error *err)
{
    if (!draftd_store_commit(d->store, err))
        return false;
    d->revision = d->next_revision;
    return true;
}

void draftd_rollback(struct draftd *d)
{
    draftd_store_rollback(d->store);
    d->next_revision = d->revision;
}

void draftd_tell(struct draftd *d, int64_t job, int64_t preview)
{
    (void)job;
    if (preview)
        for (struct draftd_watcher *watcher = d->watchers; watcher; watcher = watcher->next)
            watcher->dirty |= watcher->preview == preview;
    if (!d->progress_untold) {
        d->progress_untold = true;
        draftd_kick(d);
    }
}

int draftd_wake_watchers(struct draftd *d)
{
    int wait = -1;
    if (d->progress_untold) {
        int64_t due = d->progress_told_ms + DRAFTD_TELL_MS - draftd_now_ms();
        if (due > 0) {
            wait = (int)due;
        } else {
            d->progress_untold = false;
            d->progress_told_ms = draftd_now_ms();
            for (struct draftd_watcher *watcher = d->watchers; watcher; watcher = watcher->next)
                if (watcher->preview == 0 || watcher->dirty)
                    mark(watcher);
        }
    }
    while (d->to_wake) {
        struct draftd_watcher *watcher = d->to_wake;
        d->to_wake = watcher->next_to_wake;
        watcher->pending = false;
        watcher->calling = true;
        pthread_mutex_unlock(&d->lock);
        watcher->wake(watcher->context);
        pthread_mutex_lock(&d->lock);
        watcher->calling = false;
        pthread_cond_broadcast(&d->changed); /* unwatch may be waiting */
    }
    return wait;
}

static bool check_revision(struct draftd *d, int64_t start, struct draft_error *err)
{
    int64_t oldest, newest;
    if (!draftd_store_revisions(d->store, &oldest, &newest, err))
        return false;
    if (start < 0)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "start_revision", "a revision is never negative");
    if (oldest == 0)
        oldest = newest + 1;
    if (start < oldest)
        return draft_fail_field(
            err, DRAFT_FAILED_PRECONDITION, "start_revision",
            "events before revision %lld are forgotten, %lld is too old; watch anew from a snapshot", (long long)oldest,
            (long long)start);
    if (start > newest + 1)
        return draft_fail_field(err, DRAFT_FAILED_PRECONDITION, "start_revision",
                                "the newest revision is %lld, there was no %lld; watch anew from a snapshot",
                                (long long)newest, (long long)start - 1);
    return true;
}

static bool check_target(struct draftd *d, const char *job_id, const char *preview_id, int64_t *job, int64_t *preview,
                         struct draft_error *err)
{
    if (preview_id && *preview_id) {
        char shown[64];
        draftd_clean_text(shown, sizeof shown, preview_id);
        *preview = draftd_parse_id("preview", preview_id);
        if (*preview == 0)
            return draft_fail_field(err, DRAFT_NOT_FOUND, "preview_id",
                                    "there is no preview \"%s\"; ids look like preview-7", shown);
        Draftd__V1__Preview *message = draftd_store_preview(d->store, *preview, err);
        draftd_message_free(message);
        return message != NULL;
    }
    if (job_id == NULL || *job_id == '\0')
        return true;
    if (!draftd_job_number(job_id, job, err))
        return false;
    Draftd__V1__Job *message = draftd_store_job(d->store, *job, err);
    draftd_message_free(message);
    return message != NULL;
}

struct draftd_watcher *draftd_watch(struct draftd *d, const char *job_id, const char *preview_id,
                                    int64_t start_revision, void (*wake)(void *context), void *context,
                                    struct draft_error *err)
{
    struct draftd_watcher *watcher = NULL;
    int64_t job = 0, preview = 0;
    pthread_mutex_lock(&d->lock);
    if (check_target(d, job_id, preview_id, &job, &preview, err) &&
        (start_revision == 0 || check_revision(d, start_revision, err))) {
        watcher = draftd_new(sizeof *watcher);
        watcher->d = d;
        watcher->job = job;
        watcher->preview = preview;
        watcher->wake = wake;
        watcher->context = context;
        watcher->dirty = true;
        watcher->snapshot_due = start_revision == 0;
        watcher->next_revision = start_revision;
        watcher->next = d->watchers;
        d->watchers = watcher;
        mark(watcher);
    }
    pthread_mutex_unlock(&d->lock);
    return watcher;
}

void draftd_unwatch(struct draftd_watcher *watcher)
{
    struct draftd *d = watcher->d;
    pthread_mutex_lock(&d->lock);
    while (watcher->calling)
        pthread_cond_wait(&d->changed, &d->lock);
    struct draftd_watcher **link = &d->watchers;
    while (*link != watcher)
        link = &(*link)->next;
    *link = watcher->next;
    if (watcher->pending) {
        for (link = &d->to_wake; *link != watcher;)
            link = &(*link)->next_to_wake;
        *link = watcher->next_to_wake;
    }
    pthread_mutex_unlock(&d->lock);
    free(watcher);
}

static Draftd__V1__WatchJobsResponse *new_response(int64_t revision)
{
    Draftd__V1__WatchJobsResponse *response = draftd_message_new(&draftd__v1__watch_jobs_response__descriptor);
    response->revision = revision;
    return response;
}

/* The jobs there are, newest first. One message unless there are very many, then several, each marked as a snapshot;
 * all carry the revision of the first, and events go on from there. */
static bool next_snapshot(struct draftd_watcher *watcher, ProtobufCMessage **message, struct draft_error *err)
{
    struct draftd *d = watcher->d;
    if (watcher->snapshot_before == 0) {
        watcher->next_revision = d->revision + 1;
        watcher->progress_seen = watcher->metrics_seen = d->ticks;
    }
    Draftd__V1__WatchJobsResponse *response = new_response(watcher->next_revision - 1);
    response->is_snapshot = true;
    if (watcher->job) {
        Draftd__V1__Job *job = draftd_job_message(d, watcher->job, err);
        if (job == NULL) {
            draftd_message_free(response);
            return false;
        }
        watcher->over = draftd_state_is_end(job->state);
        draftd_message_append(&response->snapshot, &response->n_snapshot, job);
        watcher->snapshot_due = false;
    } else {
        Draftd__V1__Job **jobs = NULL;
        size_t count = 0, bytes = 0, used = 0;
        if (!draftd_store_jobs(d->store, ~0u, watcher->snapshot_before, SNAPSHOT_JOBS, &jobs, &count, err)) {
            for (size_t i = 0; i < count; i++)
                draftd_message_free(jobs[i]);
            free(jobs);
            draftd_message_free(response);
            return false;
        }
        for (; used < count && (used == 0 || bytes < SNAPSHOT_BYTES); used++) {
            draftd_job_overlay(d, jobs[used]);
            bytes += protobuf_c_message_get_packed_size(&jobs[used]->base);
            watcher->snapshot_before = draftd_parse_id("job", jobs[used]->id);
            draftd_message_append(&response->snapshot, &response->n_snapshot, jobs[used]);
        }
        watcher->snapshot_due = used < count || count == SNAPSHOT_JOBS;
        for (size_t i = used; i < count; i++)
            draftd_message_free(jobs[i]);
        free(jobs);
    }
    *message = &response->base;
    return true;
}

static Draftd__V1__JobEvent *new_event(Draftd__V1__WatchJobsResponse *response, Draftd__V1__JobEvent__Kind kind,
                                       int64_t job, int64_t time_us)
{
    Draftd__V1__JobEvent *event = draftd_message_new(&draftd__v1__job_event__descriptor);
    event->kind = kind;
    event->job_id = draftd_format("job-%lld", (long long)job);
    event->time_us = time_us;
    response->event = event;
    return event;
}

/* A kept event as a message. The job in it is today's row with the event's own state: a late reader still sees every
 * state the job went through. */
static Draftd__V1__WatchJobsResponse *kept_event(struct draftd *d, const struct draftd_store_event *kept)
{
    Draftd__V1__WatchJobsResponse *response = new_response(kept->revision);
    Draftd__V1__JobEvent *event = new_event(response, kept->kind, kept->job, kept->time_us);
    event->step = kept->step;
    draftd_message_string(&event->message, kept->message);
    if (kept->preview)
        event->preview_id = draftd_format("preview-%lld", (long long)kept->preview);
    if (kept->kind != DRAFTD__V1__JOB_EVENT__KIND__KIND_STATE)
        return response;
    Draftd__V1__Job *job = draftd_job_message(d, kept->job, NULL);
    if (job == NULL) { /* deleted since */
        job = draftd_message_new(&draftd__v1__job__descriptor);
        job->id = draftd_strdup(event->job_id);
        job->progress = draftd_message_new(&draftd__v1__progress__descriptor);
    }
    if (job->revision != kept->revision) {
        job->progress->step = kept->step;
        draftd_message_string(&job->reason, kept->reason);
        if (kept->state != DRAFTD__V1__JOB__STATE__STATE_QUEUED)
            job->queue_position = 0;
    }
    job->state = kept->state;
    draftd_message_string(&job->reason_code, kept->reason_code);
    job->attempt = kept->attempt;
    job->revision = kept->revision;
    event->job = job;
    return response;
}

static bool next_kept(struct draftd_watcher *watcher, ProtobufCMessage **message, struct draft_error *err)
{
    struct draftd *d = watcher->d;
    if (watcher->next_revision > d->revision)
        return true;
    int64_t oldest, newest;
    if (!draftd_store_revisions(d->store, &oldest, &newest, err))
        return false;
    if (watcher->next_revision < oldest)
        return draft_fail_field(err, DRAFT_FAILED_PRECONDITION, "start_revision",
                                "the reader fell behind: events before revision %lld are forgotten; watch anew",
                                (long long)oldest);
    struct draftd_store_event kept;
    struct draft_error failure = {0};
    if (!draftd_store_next_event(d->store, watcher->job, watcher->next_revision, &kept, &failure)) {
        watcher->next_revision = d->revision + 1; /* none of this job */
        if (failure.code && err)
            *err = failure;
        return failure.code == DRAFT_OK;
    }
    watcher->next_revision = kept.revision + 1;
    if (watcher->job)
        watcher->over = kept.kind == DRAFTD__V1__JOB_EVENT__KIND__KIND_DELETED ||
                        (kept.kind == DRAFTD__V1__JOB_EVENT__KIND__KIND_STATE && draftd_state_is_end(kept.state));
    *message = &kept_event(d, &kept)->base;
    draftd_store_event_free(&kept);
    return true;
}

/* The oldest change after `seen` among the live jobs watched, told as it is now. */
static void next_untold(struct draftd_watcher *watcher, bool metrics, ProtobufCMessage **message)
{
    struct draftd *d = watcher->d;
    uint64_t *seen = metrics ? &watcher->metrics_seen : &watcher->progress_seen, best = UINT64_MAX;
    struct draftd_live_job *found = NULL;
    for (struct draftd_live_job *job = watcher->job ? draftd_live_job(d, watcher->job) : d->jobs; job;
         job = watcher->job ? NULL : job->next) {
        uint64_t count = metrics ? job->metrics_count : job->progress_count;
        if (count > *seen && count < best) {
            best = count;
            found = job;
        }
    }
    if (found == NULL)
        return;
    Draftd__V1__Job *job = metrics ? NULL : draftd_job_message(d, found->number, NULL);
    *seen = best;
    if (!metrics && job == NULL)
        return;
    Draftd__V1__WatchJobsResponse *response = new_response(watcher->next_revision - 1);
    Draftd__V1__JobEvent *event = new_event(
        response, metrics ? DRAFTD__V1__JOB_EVENT__KIND__KIND_METRICS : DRAFTD__V1__JOB_EVENT__KIND__KIND_PROGRESS,
        found->number, draftd_now_us());
    event->step = metrics ? found->metrics_step : found->progress.step;
    event->job = job;
    *message = &response->base;
}

static bool next_of_jobs(struct draftd_watcher *watcher, ProtobufCMessage **message, struct draft_error *err)
{
    if (watcher->snapshot_due)
        return next_snapshot(watcher, message, err);
    next_untold(watcher, true, message); /* points before the state that may end the stream */
    if (*message == NULL && !next_kept(watcher, message, err))
        return false;
    if (*message == NULL)
        next_untold(watcher, false, message);
    if (*message == NULL && watcher->job && draftd_live_job(watcher->d, watcher->job) == NULL) {
        Draftd__V1__Job *job = draftd_store_job(watcher->d->store, watcher->job, NULL);
        watcher->over = job == NULL || draftd_state_is_end(job->state); /* resumed after its end */
        draftd_message_free(job);
    }
    return true;
}

static bool next_of_preview(struct draftd_watcher *watcher, ProtobufCMessage **message, struct draft_error *err)
{
    struct draftd *d = watcher->d;
    if (!watcher->dirty)
        return true;
    watcher->dirty = false;
    Draftd__V1__Preview *preview = draftd_store_preview(d->store, watcher->preview, err);
    if (preview == NULL)
        return false;
    Draftd__V1__WatchPreviewResponse *response = draftd_message_new(&draftd__v1__watch_preview_response__descriptor);
    response->preview = preview;
    for (struct draftd_live_preview *live = d->previews; live; live = live->next)
        if (live->number == watcher->preview) {
            response->phase_done = live->phase_done;
            response->phase_total = live->phase_total;
        }
    *message = &response->base;
    watcher->over = preview->state == DRAFTD__V1__PREVIEW__STATE__STATE_SUCCEEDED ||
                    preview->state == DRAFTD__V1__PREVIEW__STATE__STATE_FAILED;
    if (preview->state == DRAFTD__V1__PREVIEW__STATE__STATE_FAILED) {
        enum draft_code code = DRAFT_INTERNAL;
        draftd_store_preview_code(d->store, watcher->preview, &code, NULL);
        draft_fail(&watcher->error, code ? code : DRAFT_INTERNAL, "%s failed: %s", preview->id, preview->reason);
    }
    return true;
}

bool draftd_watch_next(struct draftd_watcher *watcher, ProtobufCMessage **message, bool *end, struct draft_error *err)
{
    struct draftd *d = watcher->d;
    *message = NULL;
    *end = false;
    pthread_mutex_lock(&d->lock);
    bool over = watcher->over;
    if (!over) {
        bool ok = watcher->preview ? next_of_preview(watcher, message, &watcher->error)
                                   : next_of_jobs(watcher, message, &watcher->error);
        over = !ok || (watcher->over && *message == NULL);
        watcher->over |= over;
    }
    if (over) {
        *end = true;
        if (watcher->error.code && err && err->code == DRAFT_OK)
            *err = watcher->error;
    }
    bool ok = !over || watcher->error.code == DRAFT_OK;
    pthread_mutex_unlock(&d->lock);
    return ok;
}
