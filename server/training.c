#include "training.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "checkpoints.h"
#include "job.h"
#include "log.h"
#include "message.h"
#include "previews.h"

enum { MAX_METRICS = 256, MAX_NOTICES = 1000, MAX_BACKOFF_MS = 60000 };

#define QUEUED    DRAFTD__V1__JOB__STATE__STATE_QUEUED
#define PREPARING DRAFTD__V1__JOB__STATE__STATE_PREPARING
#define RUNNING   DRAFTD__V1__JOB__STATE__STATE_RUNNING
#define PAUSED    DRAFTD__V1__JOB__STATE__STATE_PAUSED
#define CANCELLED DRAFTD__V1__JOB__STATE__STATE_CANCELLED
#define SUCCEEDED DRAFTD__V1__JOB__STATE__STATE_SUCCEEDED
#define FAILED    DRAFTD__V1__JOB__STATE__STATE_FAILED

void draftd_training_stop(struct draftd *d, struct draftd_live_job *job, enum draftd_stop why)
{
    if (why <= job->stop || job->worker == NULL)
        return;
    job->stop = why;
    bool save = why == DRAFTD_STOP_PAUSE || why == DRAFTD_STOP_DRAIN;
    int64_t grace = why == DRAFTD_STOP_DRAIN ? d->drain_ms : why == DRAFTD_STOP_PAUSE ? 0 : DRAFTD_GRACE_MS;
    draftd_worker_stop(d, job->worker, save, grace);
}

/* What the worker reports cannot be kept: training on would be for nothing. Its last checkpoint stays. */
static void stop_unrecorded(struct draftd *d, struct draftd_live_job *job, const struct draft_error *why)
{
    draftd_log(DRAFTD_ERROR, job->id, "its progress cannot be recorded, it is stopped: %s", why->message);
    if (job->trouble.code == DRAFT_OK)
        job->trouble = *why;
    draftd_training_stop(d, job, DRAFTD_STOP_DISK_FULL);
}

static void changed(struct draftd *d, struct draftd_live_job *job)
{
    job->progress_count = ++d->ticks;
    draftd_tell(d, job->number, 0);
}

static bool started(struct draftd *d, struct draftd_live_job *job, const Draftd__Worker__Started *report,
                    struct draft_error *err)
{
    if (job->state != PREPARING && job->state != DRAFTD__V1__JOB__STATE__STATE_CANCELLING)
        return draft_fail(err, DRAFT_INTERNAL, "a second start");
    if (report->step < 0 || report->total_steps < 1 || report->step > report->total_steps)
        return draft_fail(err, DRAFT_INTERNAL, "a start at step %lld of %lld", (long long)report->step,
                          (long long)report->total_steps);
    job->progress.step = report->step;
    job->progress.total_steps = report->total_steps;
    if (job->state != PREPARING)
        return true;
    struct draftd_move move = {.to = RUNNING};
    struct draft_error failure = {0};
    bool ok = draftd_begin(d, DRAFTD_DURABLE, &failure);
    if (ok && !(draftd_store_total_steps(d->store, job->number, report->total_steps, &failure) &&
                draftd_move_write(d, job, &move, &failure))) {
        draftd_rollback(d);
        ok = false;
    }
    if (ok && draftd_commit(d, &failure)) {
        draftd_moved(d, job, &move);
        draftd_previews_offer(d, job);
    } else {
        stop_unrecorded(d, job, &failure);
    }
    return true;
}

static bool progress(struct draftd *d, struct draftd_live_job *job, const Draftd__Worker__Progress *report,
                     struct draft_error *err)
{
    if (report->step < 0 || report->phase_done < 0 || report->phase_total < 0)
        return draft_fail(err, DRAFT_INTERNAL, "progress below zero");
    draftd_clean_text(job->phase, sizeof job->phase, report->phase);
    if (job->state == RUNNING && report->step <= job->progress.total_steps)
        job->progress.step = report->step;
    job->progress.phase_done = report->phase_done;
    job->progress.phase_total = report->phase_total;
    changed(d, job);
    return true;
}

static bool is_series_name(const char *name)
{
    size_t length = strnlen(name, 65);
    if (length == 0 || length > 64 || !draft_utf8_valid(name, length, NULL))
        return false;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)name[i] <= 0x20 || name[i] == 0x7f)
            return false;
    return true;
}

static void remember_latest(struct draftd_live_job *job, const Draftd__Worker__Metrics *report)
{
    for (size_t i = 0; i < report->n_names; i++) {
        if (strcmp(report->names[i], "reward") == 0)
            job->progress.reward = report->values[i];
        else if (strcmp(report->names[i], "kl") == 0)
            job->progress.kl = report->values[i];
        else if (strcmp(report->names[i], "eval/lpips") == 0)
            job->progress.lpips = report->values[i];
    }
    if (!report->evaluation && isfinite(report->seconds) && report->seconds > 0)
        job->seconds[job->steps_timed++ % DRAFTD_STEP_TIMES] = report->seconds;
    if (!report->evaluation)
        job->progress.step = report->step;
}

static bool metrics(struct draftd *d, struct draftd_live_job *job, const Draftd__Worker__Metrics *report,
                    struct draft_error *err)
{
    if (report->n_names != report->n_values || report->n_names > MAX_METRICS)
        return draft_fail(err, DRAFT_INTERNAL, "metrics with %zu names and %zu values", report->n_names,
                          report->n_values);
    if (report->step < 0 || report->step > job->progress.total_steps)
        return draft_fail(err, DRAFT_INTERNAL, "metrics of step %lld of %lld", (long long)report->step,
                          (long long)job->progress.total_steps);
    for (size_t i = 0; i < report->n_names; i++)
        if (!is_series_name(report->names[i]))
            return draft_fail(err, DRAFT_INTERNAL, "a metric without a sound name");
    remember_latest(job, report);
    struct draft_error failure = {0};
    int64_t now = draftd_now_us();
    Draftd__V1__Progress latest = job->progress;
    draftd_job_estimate(job, &latest);
    bool ok = draftd_begin(d, DRAFTD_RELAXED, &failure);
    if (ok) {
        for (size_t i = 0; ok && i < report->n_names; i++)
            ok = draftd_store_metric(d->store, job->number, report->names[i], report->step, job->attempt, now,
                                     report->values[i], &failure);
        ok = ok && draftd_store_progress(d->store, job->number, &latest, &failure);
        if (!ok)
            draftd_rollback(d);
        else
            ok = draftd_commit(d, &failure);
    }
    if (!ok) {
        stop_unrecorded(d, job, &failure);
        return true;
    }
    job->metrics_step = report->step;
    job->metrics_count = ++d->ticks;
    job->metrics_untold = true;
    changed(d, job);
    return true;
}

static bool notice(struct draftd *d, struct draftd_live_job *job, const Draftd__Worker__Notice *report)
{
    char message[512];
    draftd_clean_text(message, sizeof message, report->message);
    if (job->notices++ >= MAX_NOTICES)
        return true;
    draftd_log(DRAFTD_WARNING, job->id, "step %lld: %s", (long long)report->step, message);
    struct draft_error failure = {0};
    if (draftd_begin(d, DRAFTD_RELAXED, &failure)) {
        if (draftd_event(d, DRAFTD__V1__JOB_EVENT__KIND__KIND_NOTICE, job->number, report->step, 0, message, &failure))
            draftd_commit(d, &failure);
        else
            draftd_rollback(d);
    }
    if (failure.code)
        stop_unrecorded(d, job, &failure);
    return true;
}

static bool saved(struct draftd *d, struct draftd_live_job *job, const Draftd__Worker__Saved *report,
                  struct draft_error *err)
{
    bool fault;
    struct draft_error failure = {0};
    if (draftd_checkpoint_record(d, job, report, &fault, &failure))
        return true;
    if (!fault) {
        stop_unrecorded(d, job, &failure);
        return true;
    }
    if (err)
        *err = failure;
    return false;
}

bool draftd_training_report(struct draftd *d, struct draftd_worker *worker, const Draftd__Worker__Report *report,
                            struct draft_error *err)
{
    struct draftd_live_job *job = draftd_live_job(d, worker->job);
    if (job == NULL || job->worker != worker)
        return true;
    bool begun = job->state != PREPARING || job->trouble.code != DRAFT_OK;
    switch (report->kind_case) {
    case DRAFTD__WORKER__REPORT__KIND_STARTED:
        return started(d, job, report->started, err);
    case DRAFTD__WORKER__REPORT__KIND_PROGRESS:
        return progress(d, job, report->progress, err);
    case DRAFTD__WORKER__REPORT__KIND_NOTICE:
        return notice(d, job, report->notice);
    case DRAFTD__WORKER__REPORT__KIND_METRICS:
        return begun ? metrics(d, job, report->metrics, err)
                     : draft_fail(err, DRAFT_INTERNAL, "metrics before its start");
    case DRAFTD__WORKER__REPORT__KIND_SAVED:
        return begun ? saved(d, job, report->saved, err)
                     : draft_fail(err, DRAFT_INTERNAL, "a checkpoint before its start");
    case DRAFTD__WORKER__REPORT__KIND_PREVIEW:
        return draftd_preview_report(d, worker, report->preview, err);
    default:
        return draft_fail(err, DRAFT_INTERNAL, "a frame that does not belong to training");
    }
}

static void finish(struct draftd *d, struct draftd_live_job *job, Draftd__V1__Job__State to, const char *code,
                   const char *reason)
{
    struct draftd_move move = {.to = to, .reason = reason, .reason_code = code, .ends = true};
    draftd_move_for_sure(d, job, &move);
}

void draftd_training_crashed(struct draftd *d, struct draftd_live_job *job, const char *sentence,
                             const char *reason_code)
{
    char reason[1024];
    bool again = job->crashes < job->max_retries;
    bool ran = job->state != QUEUED;
    if (again) {
        int in_a_row = job->crashes - job->crashes_before;
        int64_t backoff = in_a_row < 6 ? (int64_t)1000 << in_a_row : MAX_BACKOFF_MS;
        job->not_before_ms = draftd_now_ms() + backoff;
        snprintf(reason, sizeof reason, "%.850s; tried again from its last checkpoint (%d of %d)", sentence,
                 job->crashes + 1, job->max_retries);
    } else if (job->max_retries > 0) {
        snprintf(reason, sizeof reason, "%.850s; given up after %d tries", sentence, job->crashes + 1);
    } else {
        snprintf(reason, sizeof reason, "%.850s", sentence);
    }
    struct draftd_move move = {
        .to = again ? QUEUED : FAILED, .reason = reason, .reason_code = reason_code, .crashed = true, .ends = ran};
    draftd_move_for_sure(d, job, &move);
}

/* The job's worker said why it ended. */
static void ended_by_error(struct draftd *d, struct draftd_live_job *job, const struct draft_error *result)
{
    switch (result->code) {
    case DRAFT_DISK_FULL:
        finish(d, job, PAUSED, "DISK_FULL", result->message);
        break;
    case DRAFT_IO:
    case DRAFT_UNAVAILABLE:
    case DRAFT_INTERNAL:
    case DRAFT_DEVICE_LOST:
        draftd_training_crashed(d, job, result->message, draftd_reason_code(result));
        break;
    default: /* the same again would end the same way */
        finish(d, job, FAILED, draftd_reason_code(result), result->message);
    }
}

/* Trouble that somebody else can end, after which the job goes on where it was. */
static bool passes(const struct draft_error *trouble)
{
    return trouble->code == DRAFT_DISK_FULL || trouble->code == DRAFT_UNAVAILABLE;
}

static void ended_by_stop(struct draftd *d, struct draftd_live_job *job, const char *crash)
{
    char reason[1024];
    switch (job->stop) {
    case DRAFTD_STOP_DRAIN:
        finish(d, job, QUEUED, "", "the daemon was shut down; the job goes on at its next start");
        break;
    case DRAFTD_STOP_PAUSE:
        snprintf(reason, sizeof reason, "paused at step %lld%s%.800s", (long long)job->progress.step,
                 crash ? "; while saving, " : "", crash ? crash : "");
        finish(d, job, PAUSED, "", reason);
        break;
    default:
        snprintf(reason, sizeof reason, "its progress could not be recorded: %.900s", job->trouble.message);
        finish(d, job, passes(&job->trouble) ? PAUSED : FAILED, draftd_reason_code(&job->trouble), reason);
    }
}

void draftd_training_end(struct draftd *d, struct draftd_worker *worker)
{
    struct draftd_live_job *job = draftd_live_job(d, worker->job);
    if (job == NULL || job->worker != worker)
        return;
    char crash[1024];
    const char *code;
    bool crashed = !worker->finished;
    draftd_worker_explain(d, worker, job->memory_bytes, crash, sizeof crash, &code);
    if (crashed)
        draftd_log(DRAFTD_WARNING, job->id, "%s", crash);
    bool done = worker->finished && worker->result.code == DRAFT_OK && !worker->stopped;
    if (done && job->state == PREPARING) { /* no frame may be missing from a success */
        crashed = true;
        snprintf(crash, sizeof crash, "the worker finished without ever starting");
    }
    draftd_previews_orphaned(d, worker, crashed && worker->killed != DRAFTD_KILLED_UNWANTED ? crash : NULL);
    job->worker = NULL;
    if (job->stop == DRAFTD_STOP_CANCEL)
        finish(d, job, CANCELLED, "", "cancelled on request");
    else if (done && !crashed && job->trouble.code == DRAFT_OK)
        finish(d, job, SUCCEEDED, "", "");
    else if (job->stop != DRAFTD_STOP_NONE &&
             (crashed || worker->stopped || worker->result.code == DRAFT_CANCELLED || job->trouble.code))
        ended_by_stop(d, job, crashed ? crash : NULL);
    else if (crashed)
        draftd_training_crashed(d, job, crash, code);
    else if (worker->result.code)
        ended_by_error(d, job, &worker->result);
    else
        draftd_training_crashed(d, job, "the worker stopped without being told to", "WORKER_CRASHED");
}
