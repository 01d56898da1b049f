/*
 * A training job in its worker:
 *
 *   open -> restore -> Started -> { evaluation when due -> checkpoint when due -> what was asked for -> step } ->
 * Finished
 *
 * The order of frames is what makes a resumed job's series equal an undisturbed one's: everything measured up to a step
 * is sent before the checkpoint of that step is announced. A job that goes on from the checkpoint of step s evaluates
 * step s again when it is due and sends the same numbers.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "worker/open_job.h"
#include "worker/previews.h"
#include "worker/spec.h"
#include "worker/work.h"

struct training {
    struct draftd_work *work;
    const Draftd__Worker__Train *task;
    struct draft_engine *engine;
    int64_t every;      /* steps between checkpoints */
    int64_t saved_step; /* of the checkpoint that is safe; -1: none */
    char path[4096];    /* of the newest one this worker wrote; "": none */
    struct draft_saved saved;
};

static void send_started(const struct training *t)
{
    Draftd__Worker__Started started = DRAFTD__WORKER__STARTED__INIT;
    started.step = draft_engine_step_count(t->engine);
    started.total_steps = draft_engine_total_steps(t->engine);
    Draftd__Worker__Report report = DRAFTD__WORKER__REPORT__INIT;
    report.kind_case = DRAFTD__WORKER__REPORT__KIND_STARTED;
    report.started = &started;
    draftd_line_send(t->work->line, &report);
}

static void send_metrics(const struct training *t, struct draft_report *numbers, bool evaluation)
{
    char *name[DRAFT_MAX_METRICS];
    double value[DRAFT_MAX_METRICS];
    for (int i = 0; i < numbers->count; i++) {
        name[i] = numbers->metric[i].name;
        value[i] = numbers->metric[i].value;
    }
    Draftd__Worker__Metrics metrics = DRAFTD__WORKER__METRICS__INIT;
    metrics.step = numbers->step;
    metrics.n_names = metrics.n_values = (size_t)numbers->count;
    metrics.names = name;
    metrics.values = value;
    metrics.seconds = evaluation ? 0 : numbers->seconds;
    metrics.evaluation = evaluation;
    Draftd__Worker__Report report = DRAFTD__WORKER__REPORT__INIT;
    report.kind_case = DRAFTD__WORKER__REPORT__KIND_METRICS;
    report.metrics = &metrics;
    draftd_line_send(t->work->line, &report);
}

static void send_notice(const struct training *t, const struct draft_report *numbers)
{
    Draftd__Worker__Notice notice = DRAFTD__WORKER__NOTICE__INIT;
    notice.step = numbers->step;
    notice.message = (char *)(uintptr_t)numbers->note;
    Draftd__Worker__Report report = DRAFTD__WORKER__REPORT__INIT;
    report.kind_case = DRAFTD__WORKER__REPORT__KIND_NOTICE;
    report.notice = &notice;
    draftd_line_send(t->work->line, &report);
}

/* The frame leaves only when the file is safe on disk. */
static bool save(struct training *t, struct draft_error *err)
{
    int64_t step = draft_engine_step_count(t->engine);
    if (!t->path[0] || t->saved_step != step) {
        char folder[4000];
        if ((size_t)snprintf(folder, sizeof folder, "%s/checkpoints", t->task->folder) >= sizeof folder)
            return draft_fail(err, DRAFT_INVALID_ARGUMENT, "the job's folder has too long a name");
        if (mkdir(folder, 0700) < 0 && errno != EEXIST)
            return draft_fail_errno(err, "the folder %s cannot be made", folder);
        snprintf(t->path, sizeof t->path, "%s/step-%08" PRId64 ".safetensors", folder, step);
        if (!draft_engine_save(t->engine, t->path, &t->saved, err)) {
            t->path[0] = 0;
            return false;
        }
        t->saved_step = step;
    }
    Draftd__Worker__Saved saved = DRAFTD__WORKER__SAVED__INIT;
    saved.step = step;
    saved.path = t->path;
    saved.bytes = t->saved.bytes;
    saved.checksum = t->saved.checksum;
    Draftd__Worker__Report report = DRAFTD__WORKER__REPORT__INIT;
    report.kind_case = DRAFTD__WORKER__REPORT__KIND_SAVED;
    report.saved = &saved;
    draftd_line_send(t->work->line, &report);
    return true;
}

static bool save_due(const struct training *t)
{
    int64_t step = draft_engine_step_count(t->engine);
    if (step == t->saved_step)
        return false;
    return step == draft_engine_total_steps(t->engine) || (step > 0 && step % t->every == 0);
}

/* Commands that came since the last step. False only when a checkpoint asked for could not be written. */
static bool serve(struct training *t, struct draft_error *err)
{
    bool ok = true;
    for (Draftd__Worker__Command *c; ok && (c = draftd_line_next(t->work->line, false));) {
        if (c->kind_case == DRAFTD__WORKER__COMMAND__KIND_PREVIEW)
            draftd_preview_run(t->work, t->engine, t->task->job_id, c->preview);
        else if (c->kind_case == DRAFTD__WORKER__COMMAND__KIND_SAVE)
            ok = save(t, err);
        draftd__worker__command__free_unpacked(c, NULL);
    }
    return ok;
}

/* What is left in the queue at the end: a Save is answered by the checkpoint of the stop itself. */
static void refuse_rest(struct training *t)
{
    struct draft_error err = {0};
    draft_fail(&err, DRAFT_CANCELLED, "the job ended before this preview was made");
    for (Draftd__Worker__Command *c; (c = draftd_line_next(t->work->line, false));) {
        if (c->kind_case == DRAFTD__WORKER__COMMAND__KIND_PREVIEW)
            draftd_preview_refuse(t->work, c->preview, &err);
        draftd__worker__command__free_unpacked(c, NULL);
    }
}

static bool stopping(const struct training *t)
{
    return draftd_line_stop(t->work->line) != DRAFTD_STOP_NO;
}

/* Up to the next stop, failure or the end. *stopped: work in hand was left because of a Stop; the engine is at a step's
 * boundary all the same. */
static bool run(struct training *t, bool *stopped, struct draft_error *err)
{
    static struct draft_report numbers;
    for (;;) {
        t->work->step = draft_engine_step_count(t->engine);
        if (draft_engine_evaluation_due(t->engine)) {
            if (!draft_engine_evaluate(t->engine, &numbers, err))
                break;
            send_metrics(t, &numbers, true);
        }
        if ((save_due(t) && !save(t, err)) || !serve(t, err))
            break;
        if (stopping(t)) {
            *stopped = true;
            return true;
        }
        if (draft_engine_step_count(t->engine) >= draft_engine_total_steps(t->engine))
            return true;
        bool done = draft_engine_step(t->engine, &numbers, err);
        if (numbers.count > 0) /* also of a step that was skipped, and of the last straw */
            send_metrics(t, &numbers, false);
        if (numbers.note[0])
            send_notice(t, &numbers);
        if (!done)
            break;
    }
    *stopped = err->code == DRAFT_CANCELLED && stopping(t);
    return *stopped;
}

bool draftd_work_train(struct draftd_work *work, const Draftd__Worker__Train *task, bool *stopped,
                       struct draft_error *err)
{
    struct draftd_open_job job;
    bool ok = draftd_open_job(&job, work, task, false, err);
    if (ok) {
        struct training t = {.work = work,
                             .task = task,
                             .engine = job.engine,
                             .every = draftd_spec_checkpoint_every(task->spec),
                             .saved_step = task->checkpoint[0] ? draft_engine_step_count(job.engine) : -1};
        send_started(&t);
        ok = run(&t, stopped, err);
        if (ok && *stopped) {
            *err = (struct draft_error){0};
            ok = draftd_line_stop(work->line) != DRAFTD_STOP_SAVE || save(&t, err);
        }
        if (!ok)
            draft_engine_say_what_fits(job.engine, err);
        refuse_rest(&t);
    } else if (err->code == DRAFT_CANCELLED && draftd_line_stop(work->line) != DRAFTD_STOP_NO) {
        *stopped = true; /* while loading: nothing was done, so nothing is lost */
        *err = (struct draft_error){0};
        ok = true;
    }
    draftd_open_job_close(&job);
    return ok;
}
