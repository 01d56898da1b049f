#include "previews.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checkpoints.h"
#include "devices.h"
#include "folders.h"
#include "job.h"
#include "log.h"
#include "message.h"

#define PENDING   DRAFTD__V1__PREVIEW__STATE__STATE_PENDING
#define RUNNING   DRAFTD__V1__PREVIEW__STATE__STATE_RUNNING
#define SUCCEEDED DRAFTD__V1__PREVIEW__STATE__STATE_SUCCEEDED
#define FAILED    DRAFTD__V1__PREVIEW__STATE__STATE_FAILED

static void forget(struct draftd *d, struct draftd_live_preview *preview)
{
    struct draftd_live_preview **link = &d->previews;
    while (*link != preview)
        link = &(*link)->next;
    *link = preview->next;
    draftd_message_free(preview->spec);
    free(preview);
}

/* What a watcher of the job reads after the preview's id. The caller frees. */
static char *told(Draftd__V1__Preview__State state, const char *reason)
{
    switch (state) {
    case RUNNING:
        return draftd_strdup("is being drawn");
    case SUCCEEDED:
        return draftd_strdup("is ready");
    case FAILED:
        return draftd_format("failed: %s", reason);
    default:
        return draftd_strdup(DRAFTD_PREVIEW_WAITS);
    }
}

static bool write_change(struct draftd *d, struct draftd_live_preview *preview, Draftd__V1__Preview__State state,
                         enum draft_code code, const char *reason, struct draft_error *err)
{
    struct draftd_store_preview_change change = {state, reason, code, preview->step, preview->tries};
    if (!draftd_begin(d, DRAFTD_DURABLE, err))
        return false;
    char *message = told(state, reason);
    bool ok = (state != PENDING || draftd_store_delete_pictures(d->store, preview->number, err)) &&
              draftd_store_change_preview(d->store, preview->number, &change, err) &&
              draftd_event(d, DRAFTD__V1__JOB_EVENT__KIND__KIND_PREVIEW, preview->job, preview->step, preview->number,
                           message, err);
    free(message);
    if (!ok) {
        draftd_rollback(d);
        return false;
    }
    return draftd_commit(d, err);
}

/* Changes a preview's state; one that is over leaves memory. When the database refuses (disk full) the preview waits
 * and is made again later: nobody was told that it is there. */
static void change(struct draftd *d, struct draftd_live_preview *preview, Draftd__V1__Preview__State state,
                   enum draft_code code, const char *reason)
{
    char about[32];
    snprintf(about, sizeof about, "preview-%lld", (long long)preview->number);
    struct draft_error err = {0};
    if (!write_change(d, preview, state, code, reason, &err)) {
        draftd_log(DRAFTD_ERROR, about, "its state cannot be recorded: %s", err.message);
        preview->worker = NULL;
        preview->not_before_ms = draftd_now_ms() + 5000;
        return;
    }
    if (state == FAILED)
        draftd_log(DRAFTD_WARNING, about, "failed: %s", reason);
    if (state == PENDING)
        preview->phase_done = preview->phase_total = 0;
    if (state == SUCCEEDED || state == FAILED)
        forget(d, preview);
    draftd_kick(d);
}

static struct draftd_live_preview *find(struct draftd *d, int64_t number)
{
    struct draftd_live_preview *preview = d->previews;
    while (preview && preview->number != number)
        preview = preview->next;
    return preview;
}

static void add(struct draftd *d, int64_t number, int64_t job, int tries, int total,
                const Draftd__V1__PreviewSpec *spec)
{
    struct draftd_live_preview *preview = draftd_new(sizeof *preview);
    preview->number = number;
    preview->job = job;
    preview->tries = tries;
    preview->total = total;
    preview->spec = draftd_message_copy(spec);
    struct draftd_live_preview **link = &d->previews;
    while (*link)
        link = &(*link)->next;
    *link = preview;
}

void draftd_preview_add(struct draftd *d, int64_t number, int64_t job, int total, const Draftd__V1__PreviewSpec *spec)
{
    add(d, number, job, 0, total, spec);
}

static bool wants_checkpoint(const struct draftd_live_preview *preview)
{
    return preview->spec->checkpoint_step_opt_case == DRAFTD__V1__PREVIEW_SPEC__CHECKPOINT_STEP_OPT_CHECKPOINT_STEP;
}

/* The worker's order for a preview; its folder is made. The caller frees *folder. */
static bool prepare(struct draftd *d, struct draftd_live_preview *preview, char id[32], char **folder,
                    Draftd__Worker__Preview *order, struct draft_error *err)
{
    snprintf(id, 32, "preview-%lld", (long long)preview->number);
    *folder = draftd_preview_folder(d->state_dir, preview->job, preview->number);
    draftd__worker__preview__init(order);
    order->preview_id = id;
    order->spec = preview->spec;
    order->folder = *folder;
    return draftd_make_folder(*folder, err);
}

/* To the running job's worker. One whose folder cannot be made has failed, and is gone. */
static void offer(struct draftd *d, struct draftd_live_job *job, struct draftd_live_preview *preview)
{
    char id[32], *folder;
    Draftd__Worker__Preview order;
    struct draft_error err = {0};
    if (job->worker == NULL || job->state != DRAFTD__V1__JOB__STATE__STATE_RUNNING || job->stop != DRAFTD_STOP_NONE)
        return;
    if (prepare(d, preview, id, &folder, &order, &err)) {
        Draftd__Worker__Command command = DRAFTD__WORKER__COMMAND__INIT;
        command.kind_case = DRAFTD__WORKER__COMMAND__KIND_PREVIEW;
        command.preview = &order;
        draftd_worker_send(d, job->worker, &command);
        preview->worker = job->worker;
    } else {
        change(d, preview, FAILED, err.code, err.message);
    }
    free(folder);
}

void draftd_previews_offer(struct draftd *d, struct draftd_live_job *job)
{
    for (struct draftd_live_preview *preview = d->previews, *next; preview; preview = next) {
        next = preview->next;
        if (preview->job == job->number && preview->worker == NULL && !wants_checkpoint(preview))
            offer(d, job, preview);
    }
}

static bool keep_picture(struct draftd *d, struct draftd_live_preview *preview,
                         const Draftd__Worker__PreviewReport *report, struct draft_error *err)
{
    char *path = draftd_picture_file(d->state_dir, preview->job, preview->number, report->index);
    struct stat st;
    bool there = report->index >= 0 && report->index < preview->total && stat(path, &st) == 0 && S_ISREG(st.st_mode) &&
                 (uint64_t)st.st_size == report->bytes && st.st_size > 0;
    free(path);
    if (!there)
        return draft_fail(err, DRAFT_INTERNAL, "picture %d of a preview, which is not there", report->index);
    char prompt[2048];
    draftd_clean_text(prompt, sizeof prompt, report->prompt);
    Draftd__V1__Picture picture = DRAFTD__V1__PICTURE__INIT;
    picture.index = report->index;
    picture.prompt = prompt;
    picture.seed = report->seed;
    picture.height = report->height;
    picture.width = report->width;
    picture.reward = report->reward;
    picture.bytes = report->bytes;
    struct draft_error failure = {0};
    if (draftd_begin(d, DRAFTD_DURABLE, &failure)) {
        if (draftd_store_add_picture(d->store, preview->number, &picture, &failure))
            draftd_commit(d, &failure);
        else
            draftd_rollback(d);
    }
    if (failure.code) /* found missing at the end, and made again */
        draftd_log(DRAFTD_ERROR, NULL, "a picture of preview-%lld cannot be recorded: %s", (long long)preview->number,
                   failure.message);
    return true;
}

static void finish(struct draftd *d, struct draftd_live_preview *preview, const Draftd__Worker__PreviewReport *report)
{
    char message[512];
    preview->worker = NULL;
    if (report->code == DRAFT_CANCELLED) { /* its worker stops, not the preview */
        preview->not_before_ms = draftd_now_ms() + 500;
        change(d, preview, PENDING, DRAFT_OK, "waits for another worker");
        return;
    }
    if (report->code != DRAFT_OK) {
        bool known = report->code > DRAFT_OK && report->code <= DRAFT_DEVICE_LOST;
        draftd_clean_text(message, sizeof message, report->message);
        change(d, preview, FAILED, known ? (enum draft_code)report->code : DRAFT_INTERNAL,
               message[0] ? message : "the worker gave no reason");
        return;
    }
    Draftd__V1__Preview *row = draftd_store_preview(d->store, preview->number, NULL);
    bool whole = row && row->n_pictures == (size_t)preview->total;
    draftd_message_free(row);
    if (whole)
        change(d, preview, SUCCEEDED, DRAFT_OK, "");
    else if (++preview->tries < DRAFTD_PREVIEW_TRIES)
        change(d, preview, PENDING, DRAFT_OK, "not all pictures were made; tried again");
    else
        change(d, preview, FAILED, DRAFT_INTERNAL, "the worker did not make all pictures");
}

bool draftd_preview_report(struct draftd *d, struct draftd_worker *worker, const Draftd__Worker__PreviewReport *report,
                           struct draft_error *err)
{
    struct draftd_live_preview *preview = find(d, draftd_parse_id("preview", report->preview_id));
    if (preview == NULL || preview->worker != worker)
        return true; /* deleted with its job, or given up */
    if (report->phase_done < 0 || report->phase_total < 0 || report->step < 0)
        return draft_fail(err, DRAFT_INTERNAL, "a preview's progress below zero");
    bool first = preview->phase_total == 0;
    preview->step = report->step;
    preview->phase_done = report->phase_done;
    preview->phase_total = report->phase_total ? report->phase_total : 1;
    if (first && !report->done) {
        change(d, preview, RUNNING, DRAFT_OK, "");
        if (preview->worker == NULL)
            return true;
    }
    if (report->has_picture && !keep_picture(d, preview, report, err))
        return false;
    int64_t number = preview->number, job = preview->job;
    if (report->done)
        finish(d, preview, report);
    ++d->ticks;
    draftd_tell(d, job, number);
    return true;
}

void draftd_previews_orphaned(struct draftd *d, struct draftd_worker *worker, const char *crash)
{
    char reason[1024];
    for (struct draftd_live_preview *preview = d->previews, *next; preview; preview = next) {
        next = preview->next;
        if (preview->worker != worker)
            continue;
        preview->worker = NULL;
        bool begun = preview->phase_total > 0 || worker->task == DRAFTD_TASK_SAMPLE;
        if (crash && begun && ++preview->tries >= DRAFTD_PREVIEW_TRIES) {
            snprintf(reason, sizeof reason, "given up after %d tries: %.900s", preview->tries, crash);
            change(d, preview, FAILED, DRAFT_INTERNAL, reason);
        } else if (begun) {
            preview->not_before_ms = draftd_now_ms() + (crash ? 1000 : 0);
            change(d, preview, PENDING, DRAFT_OK,
                   crash ? "its worker crashed; tried again" : "waits for another worker");
        }
    }
}

/* --- Sampling workers --- */

static void sampler_end(struct draftd *d, struct draftd_worker *worker)
{
    d->samplers--;
    char crash[1024];
    const char *code;
    draftd_worker_explain(d, worker, 0, crash, sizeof crash, &code);
    struct draftd_live_preview *preview = find(d, worker->preview);
    if (preview && preview->worker == worker && worker->finished && worker->result.code && !d->draining) {
        preview->worker = NULL;
        change(d, preview, FAILED, worker->result.code, worker->result.message);
    }
    bool unwanted = worker->killed == DRAFTD_KILLED_UNWANTED || d->draining;
    draftd_previews_orphaned(d, worker,
                             unwanted           ? NULL
                             : worker->finished ? "the worker ended without a result"
                                                : crash);
}

static bool sampler_report(struct draftd *d, struct draftd_worker *worker, const Draftd__Worker__Report *report,
                           struct draft_error *err)
{
    switch (report->kind_case) {
    case DRAFTD__WORKER__REPORT__KIND_PREVIEW:
        return draftd_preview_report(d, worker, report->preview, err);
    case DRAFTD__WORKER__REPORT__KIND_STARTED:
    case DRAFTD__WORKER__REPORT__KIND_PROGRESS:
    case DRAFTD__WORKER__REPORT__KIND_NOTICE:
        return true;
    default:
        return draft_fail(err, DRAFT_INTERNAL, "a frame that does not belong to a preview");
    }
}

static void sample(struct draftd *d, struct draftd_live_preview *preview)
{
    char id[32], *folder = NULL;
    Draftd__Worker__Preview order;
    struct draftd_checkpoint checkpoint = {0};
    struct draft_error err = {0};
    int64_t step = wants_checkpoint(preview) ? preview->spec->checkpoint_step : -1;
    Draftd__V1__Job *job = draftd_store_job(d->store, preview->job, &err);
    char *job_folder = draftd_job_folder(d->state_dir, preview->job);
    char *dataset = draftd_format("%s/dataset.jsonl", job_folder);
    char *log = draftd_format("%s/log/preview-%lld.log", job_folder, (long long)preview->number);
    struct draftd_worker *worker = NULL;
    if (job && (step == 0 || draftd_checkpoint_choose(d, preview->job, step, false, &checkpoint, &err)) &&
        prepare(d, preview, id, &folder, &order, &err))
        worker = draftd_worker_start(d, DRAFTD_TASK_SAMPLE, id, log, &err);
    if (worker) {
        worker->job = preview->job;
        worker->device = draftd_device_for_preview(d, job->spec->device, job->gpu_memory_bytes);
        worker->preview = preview->number;
        worker->checkpoint = checkpoint.path ? draftd_strdup(checkpoint.path) : NULL;
        worker->report = sampler_report;
        worker->end = sampler_end;
        d->samplers++;
        preview->worker = worker;
        preview->step = checkpoint.step;
        Draftd__Worker__Train train = DRAFTD__WORKER__TRAIN__INIT;
        train.job_id = job->id;
        train.spec = job->spec;
        train.dataset = dataset;
        train.folder = job_folder;
        if (checkpoint.path)
            train.checkpoint = checkpoint.path;
        train.attempt = job->attempt;
        train.fingerprint = job->fingerprint;
        draftd_message_string(&job->spec->device, worker->device == DRAFTD_NO_DEVICE
                                                      ? draftd_device_name(d, DRAFTD_CPU)
                                                      : draftd_device_name(d, worker->device));
        if (job->spec->threads == 0)
            job->spec->threads = d->threads;
        Draftd__Worker__Sample task = DRAFTD__WORKER__SAMPLE__INIT;
        task.job = &train;
        task.preview = &order;
        Draftd__Worker__Command command = DRAFTD__WORKER__COMMAND__INIT;
        command.kind_case = DRAFTD__WORKER__COMMAND__KIND_SAMPLE;
        command.sample = &task;
        draftd_worker_send(d, worker, &command);
    } else {
        change(d, preview, FAILED, err.code, err.message);
    }
    free(folder);
    free(job_folder);
    free(dataset);
    free(log);
    free(checkpoint.path);
    draftd_message_free(job);
}

void draftd_previews_schedule(struct draftd *d, int64_t now_ms, int64_t *next_ms)
{
    if (d->draining || d->quit)
        return;
    for (struct draftd_live_preview *preview = d->previews, *next; preview; preview = next) {
        next = preview->next;
        if (preview->worker)
            continue;
        if (preview->not_before_ms > now_ms) {
            if (preview->not_before_ms < *next_ms)
                *next_ms = preview->not_before_ms;
            continue;
        }
        struct draftd_live_job *job = draftd_live_job(d, preview->job);
        if (job && !wants_checkpoint(preview))
            offer(d, job, preview); /* a queued job's preview waits for it */
        else if (d->samplers < DRAFTD_SAMPLERS)
            sample(d, preview);
    }
}

static void restore_one(void *context, int64_t number, int64_t job, int tries, int total,
                        const Draftd__V1__PreviewSpec *spec)
{
    add(context, number, job, tries, total, spec);
}

bool draftd_previews_restore(struct draftd *d, struct draft_error *err)
{
    if (!draftd_store_unfinished_previews(d->store, d, restore_one, err))
        return false;
    for (struct draftd_live_preview *preview = d->previews; preview; preview = preview->next)
        if (!write_change(d, preview, PENDING, DRAFT_OK, "waits for a worker: the daemon was started anew", err))
            return false;
    return true;
}

/* "<index>.png", as draftd_picture_file() names it. */
static bool is_picture_name(const char *name)
{
    size_t digits = strspn(name, "0123456789");
    return digits > 0 && strcmp(name + digits, ".png") == 0;
}

static bool is_row_of(struct draftd *d, int64_t number, const char *job_id)
{
    struct draft_error err = {0};
    Draftd__V1__Preview *row = number ? draftd_store_preview(d->store, number, &err) : NULL;
    bool is = row ? strcmp(row->job_id, job_id) == 0 : number && err.code != DRAFT_NOT_FOUND;
    draftd_message_free(row);
    return is;
}

static void sweep_pictures(const char *folder)
{
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;) {
        if (is_picture_name(entry->d_name) || strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char *path = draftd_format("%s/%s", folder, entry->d_name);
        draftd_remove_tree(path);
        free(path);
    }
    if (dir)
        closedir(dir);
}

void draftd_previews_sweep(struct draftd *d, int64_t job)
{
    char *home = draftd_job_folder(d->state_dir, job), *folder = draftd_format("%s/previews", home);
    const char *job_id = strrchr(home, '/') + 1;
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char *path = draftd_format("%s/%s", folder, entry->d_name);
        if (is_row_of(d, draftd_parse_id("preview", entry->d_name), job_id)) {
            sweep_pictures(path);
        } else {
            draftd_log(DRAFTD_INFO, NULL, "removing %s, which nothing names", path);
            draftd_remove_tree(path);
        }
        free(path);
    }
    if (dir)
        closedir(dir);
    free(folder);
    free(home);
}

void draftd_previews_forget(struct draftd *d, int64_t job)
{
    for (struct draftd_worker *worker = d->workers; worker; worker = worker->next)
        if (worker->task == DRAFTD_TASK_SAMPLE && worker->job == job && !worker->exited)
            draftd_worker_kill(d, worker, DRAFTD_KILLED_UNWANTED, "its job was deleted");
    for (struct draftd_live_preview *preview = d->previews, *next; preview; preview = next) {
        next = preview->next;
        if (preview->job == job)
            forget(d, preview);
    }
}
