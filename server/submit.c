#include "submit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices.h"
#include "folders.h"
#include "job.h"
#include "log.h"
#include "message.h"
#include "requests.h"
#include "space.h"
#include "spec.h"
#include "worker.h"

/* Prompts go along in the frame up to this size; beyond it the worker reads the copy. */
enum { PROMPTS_IN_FRAME = 8 << 20 };

/* An inspecting worker's slot: few at a time, each holds a model's headers in memory. Needs the lock. */
static bool take_slot(struct draftd *d, struct draftd_patience patience, struct draft_error *err)
{
    while (d->inspectors >= DRAFTD_INSPECTORS)
        if (!draftd_wait(d, patience))
            return draft_fail(err, DRAFT_UNAVAILABLE, "others are being checked before this one; try again");
    d->inspectors++;
    return true;
}

static void send_inspect(struct draftd *d, struct draftd_worker *worker, enum draftd_inspection what,
                         const Draftd__V1__JobSpec *spec, const struct draftd_dataset *dataset, const char *copy)
{
    Draftd__Worker__Inspect inspect = DRAFTD__WORKER__INSPECT__INIT;
    inspect.files_only = what == DRAFTD_INSPECT_FILES;
    inspect.spec = (Draftd__V1__JobSpec *)spec; /* packing reads it only */
    inspect.dataset = (char *)copy;
    inspect.gpu_memory_bytes = draftd_device_memory(d, spec->device);
    if (dataset && dataset->bytes + 8 * dataset->count < PROMPTS_IN_FRAME) {
        inspect.prompts = dataset->prompts;
        inspect.n_prompts = dataset->count;
    }
    Draftd__Worker__Command command = DRAFTD__WORKER__COMMAND__INIT;
    command.kind_case = DRAFTD__WORKER__COMMAND__KIND_INSPECT;
    command.inspect = &inspect;
    draftd_worker_send(d, worker, &command);
}

/* What the worker found, made fit for the database and for clients. */
static bool take_inspected(struct draftd_worker *worker, enum draftd_inspection what,
                           Draftd__Worker__Inspected **inspected, struct draft_error *err)
{
    Draftd__Worker__Inspected *found = worker->inspected;
    if (found == NULL || strlen(found->fingerprint) > 64 ||
        (what == DRAFTD_INSPECT_ALL && (found->total_steps < 1 || found->height < 1 || found->width < 1)))
        return draft_fail(err, DRAFT_INTERNAL, "the checker gave no sound answer; its log is in the daemon's log");
    char text[512];
    draftd_clean_text(text, sizeof text, found->fingerprint);
    draftd_message_string(&found->fingerprint, text);
    for (size_t i = 0; i < found->n_warnings; i++) {
        draftd_clean_text(text, sizeof text, found->warnings[i]);
        free(found->warnings[i]);
        found->warnings[i] = draftd_strdup(text);
    }
    *inspected = found;
    worker->inspected = NULL;
    return true;
}

static bool names(const struct draft_error *err, const char *path)
{
    return *path && strstr(err->message, path);
}

/* The field at fault, when the worker names a file of a folder that the spec names but not the field. */
static void blame(const Draftd__V1__JobSpec *spec, struct draft_error *err)
{
    if (err->field[0])
        return;
    if (spec->evaluation && names(err, spec->evaluation->lpips))
        snprintf(err->field, sizeof err->field, "spec.evaluation.lpips");
    for (size_t i = 0; i < spec->n_rewards && err->field[0] == '\0'; i++)
        if (names(err, spec->rewards[i]->path))
            snprintf(err->field, sizeof err->field, "spec.rewards[%zu]", i);
    for (size_t i = 0; i < spec->n_base_loras && err->field[0] == '\0'; i++)
        if (names(err, spec->base_loras[i]->path))
            snprintf(err->field, sizeof err->field, "spec.base_loras[%zu].path", i);
    if (err->field[0] == '\0' && spec->lora && names(err, spec->lora->continue_from))
        snprintf(err->field, sizeof err->field, "spec.lora.continue_from");
    if (err->field[0] == '\0' && names(err, spec->model))
        snprintf(err->field, sizeof err->field, "spec.model");
}

static bool inspect(struct draftd *d, enum draftd_inspection what, const Draftd__V1__JobSpec *spec,
                    const struct draftd_dataset *dataset, const char *copy, struct draftd_patience patience,
                    Draftd__Worker__Inspected **inspected, struct draft_error *err)
{
    struct draftd_worker *worker = draftd_worker_start(d, DRAFTD_TASK_INSPECT, "inspect", NULL, err);
    if (worker == NULL)
        return false;
    worker->waited_for = true;
    send_inspect(d, worker, what, spec, dataset, copy);
    if (!draftd_worker_wait(d, worker, patience))
        return draft_fail(err, DRAFT_UNAVAILABLE,
                          "checking the model took longer than the call's deadline; try again with a longer one");
    bool ok = true;
    if (d->draining && (!worker->finished || worker->result.code)) {
        ok = draftd_accepts_work(d, err);
    } else if (!worker->finished) {
        char why[1024];
        const char *code;
        draftd_worker_explain(d, worker, 0, why, sizeof why, &code);
        if (strcmp(code, "OUT_OF_MEMORY") == 0) /* perhaps nothing is wrong with the model */
            ok = draft_fail(err, DRAFT_OUT_OF_MEMORY, "could not check the model: %s", why);
        else if (strcmp(code, "WORKER_HUNG") == 0)
            ok = draft_fail(err, DRAFT_UNAVAILABLE, "could not check the model: %s; try again", why);
        else
            ok = draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "spec.model",
                                  "could not read the model: the checker crashed: %s", why);
    } else if (worker->result.code) {
        blame(spec, &worker->result);
        if (err && err->code == DRAFT_OK)
            *err = worker->result;
        ok = false;
    }
    ok = ok && take_inspected(worker, what, inspected, err);
    draftd_worker_free(d, worker);
    return ok;
}

bool draftd_inspect(struct draftd *d, enum draftd_inspection what, const Draftd__V1__JobSpec *spec,
                    const struct draftd_dataset *dataset, const char *copy, struct draftd_patience patience,
                    Draftd__Worker__Inspected **inspected, struct draft_error *err)
{
    pthread_mutex_lock(&d->lock);
    bool ok = take_slot(d, patience, err);
    if (ok) {
        ok = inspect(d, what, spec, dataset, copy, patience, inspected, err);
        d->inspectors--;
        pthread_cond_broadcast(&d->changed);
    }
    pthread_mutex_unlock(&d->lock);
    return ok;
}

/* The job's folder, complete but for its name, in incoming/. The caller frees *folder and removes the tree. */
static bool stage(struct draftd *d, const struct draftd_dataset *dataset, char **folder, struct draft_error *err)
{
    static const char *const inside[] = {"checkpoints", "previews", "log"};
    *folder = draftd_format("%s/incoming/XXXXXX", d->state_dir);
    if (mkdtemp(*folder) == NULL) {
        draft_fail_errno(err, "cannot make a folder in %s/incoming", d->state_dir);
        free(*folder);
        *folder = NULL;
        return false;
    }
    for (size_t i = 0; i < sizeof inside / sizeof inside[0]; i++) {
        char *path = draftd_format("%s/%s", *folder, inside[i]);
        bool ok = draftd_make_folder(path, err);
        free(path);
        if (!ok)
            return false;
    }
    char *path = draftd_format("%s/dataset.jsonl", *folder);
    bool ok = draftd_dataset_write(dataset, path, err);
    free(path);
    return ok;
}

static Draftd__V1__Job *describe(const Draftd__V1__JobSpec *spec, const struct draftd_dataset *dataset,
                                 const Draftd__Worker__Inspected *inspected)
{
    Draftd__V1__Job *job = draftd_message_new(&draftd__v1__job__descriptor);
    job->spec = draftd_message_copy(spec);
    job->state = DRAFTD__V1__JOB__STATE__STATE_QUEUED;
    job->create_time_us = job->update_time_us = draftd_now_us();
    job->prompt_count = (int32_t)dataset->count;
    draftd_message_string(&job->fingerprint, inspected->fingerprint);
    job->trained_parameters = inspected->trained_parameters;
    job->memory_bytes = inspected->memory_bytes;
    job->gpu_memory_bytes = inspected->gpu_memory_bytes;
    job->picture_height = inspected->height;
    job->picture_width = inspected->width;
    for (size_t i = 0; i < inspected->n_warnings && i < 64; i++)
        draftd_message_append(&job->warnings, &job->n_warnings, draftd_strdup(inspected->warnings[i]));
    job->progress = draftd_message_new(&draftd__v1__progress__descriptor);
    job->progress->total_steps = inspected->total_steps;
    job->progress->eta_seconds = -1;
    job->progress->reward = job->progress->kl = job->progress->lpips = __builtin_nan("");
    return job;
}

static bool check_room(struct draftd *d, struct draft_error *err)
{
    return d->queued < d->max_queue ||
           draft_fail(
               err, DRAFT_RESOURCE_EXHAUSTED,
               "the queue is full: %d jobs wait; cancel one or wait until one starts (--max-queue sets the limit)",
               d->queued);
}

/* Row, request id and event in one transaction; the folder gets its name before the commit: a crash in between leaves a
 * folder without a row, which the next start sweeps, never a row without a folder. */
static bool commit_job(struct draftd *d, Draftd__V1__Job *job, const char *folder, const char *request_id,
                       const char *hash, int64_t *number, int64_t *rank, struct draft_error *err)
{
    if (!draftd_begin(d, DRAFTD_DURABLE, err))
        return false;
    char *home = NULL, *parent = draftd_format("%s/jobs", d->state_dir);
    bool ok = draftd_store_add_job(d->store, job, number, rank, err) &&
              (*request_id == '\0' || draftd_store_add_request(d->store, request_id, hash, *number, 0, err)) &&
              draftd_event(d, DRAFTD__V1__JOB_EVENT__KIND__KIND_STATE, *number, 0, 0, "", err);
    if (ok) {
        home = draftd_job_folder(d->state_dir, *number);
        ok = rename(folder, home) == 0 || draft_fail_errno(err, "cannot make the job's folder %s", home);
    }
    if (ok) {
        ok = draftd_sync_folder(home, err) && draftd_sync_folder(parent, err);
        if (!ok)
            draftd_rollback(d);
        else
            ok = draftd_commit(d, err);
        if (!ok)
            draftd_remove_tree(home);
    } else {
        draftd_rollback(d);
    }
    free(home);
    free(parent);
    return ok;
}

static bool keep(struct draftd *d, Draftd__V1__Job *job, const char *folder, const char *request_id, const char *hash,
                 Draftd__V1__Job **reply, struct draft_error *err)
{
    int64_t number, rank;
    if (!draftd_accepts_work(d, err) || !draftd_find_request(d, request_id, hash, true, &number, err))
        return false;
    if (number == 0) { /* else the same request on another thread was faster */
        if (!check_room(d, err) || !commit_job(d, job, folder, request_id, hash, &number, &rank, err))
            return false;
        Draftd__V1__Job *row = draftd_store_job(d->store, number, err);
        if (row == NULL)
            return false;
        draftd_job_wake(d, row, rank, 0);
        draftd_log(DRAFTD_INFO, row->id, "submitted: %d prompts, %lld steps", job->prompt_count,
                   (long long)job->progress->total_steps);
        draftd_message_free(row);
        draftd_kick(d);
    }
    *reply = draftd_job_message(d, number, err);
    return *reply != NULL;
}

static bool known_request(struct draftd *d, const char *request_id, const char *hash, Draftd__V1__Job **job,
                          struct draft_error *err)
{
    int64_t number;
    pthread_mutex_lock(&d->lock);
    bool ok = draftd_accepts_work(d, err) && draftd_find_request(d, request_id, hash, true, &number, err);
    if (ok && number)
        ok = (*job = draftd_job_message(d, number, err)) != NULL;
    else if (ok)
        ok = check_room(d, err); /* before the work, and again when it is done */
    pthread_mutex_unlock(&d->lock);
    return ok;
}

static bool submit(struct draftd *d, const Draftd__V1__CreateJobRequest *request, const char *hash,
                   struct draftd_patience patience, Draftd__V1__Job **reply, struct draft_error *err)
{
    struct draftd_dataset dataset = {0};
    Draftd__Worker__Inspected *inspected = NULL;
    char *folder = NULL, *copy = NULL;
    if (!draftd_dataset_read(request->spec->dataset, &dataset, err)) {
        snprintf(err->field, sizeof err->field, "spec.dataset");
        return false;
    }
    bool ok = stage(d, &dataset, &folder, err);
    if (ok) {
        copy = draftd_format("%s/dataset.jsonl", folder);
        ok = draftd_inspect(d, DRAFTD_INSPECT_ALL, request->spec, &dataset, copy, patience, &inspected, err);
    }
    ok = ok && draftd_space_check(d, request->spec, inspected->trained_parameters, 0, err);
    if (ok) {
        Draftd__V1__Job *job = describe(request->spec, &dataset, inspected);
        if (request->validate_only) {
            *reply = job;
        } else {
            pthread_mutex_lock(&d->lock);
            ok = keep(d, job, folder, request->request_id, hash, reply, err);
            pthread_mutex_unlock(&d->lock);
            draftd_message_free(job);
        }
    }
    if (folder)
        draftd_remove_tree(folder); /* gone already when it was given its name */
    free(folder);
    free(copy);
    draftd_message_free(inspected);
    draftd_dataset_free(&dataset);
    return ok;
}

bool draftd_create_job(struct draftd *d, const Draftd__V1__CreateJobRequest *request, struct draftd_patience patience,
                       Draftd__V1__CreateJobResponse **reply, struct draft_error *err)
{
    struct draft_error failure = {0};
    Draftd__V1__Job *job = NULL;
    char hash[DRAFTD_HASH_SIZE];
    bool ok = draftd_spec_check(request->spec, &failure) && draftd_check_request_id(request->request_id, &failure);
    if (ok) {
        draftd_hash_request("job", &request->spec->base, hash);
        ok = known_request(d, request->validate_only ? "" : request->request_id, hash, &job, &failure);
        ok = ok && (job || draftd_device_exists(d, request->spec->device, patience, &failure));
        if (ok && job == NULL)
            ok = submit(d, request, hash, patience, &job, &failure);
    }
    if (ok) {
        *reply = draftd_message_new(&draftd__v1__create_job_response__descriptor);
        (*reply)->job = job;
    } else if (err && err->code == DRAFT_OK) {
        *err = failure;
    }
    return ok;
}
