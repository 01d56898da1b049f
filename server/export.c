/* ExportLora: a worker turns a checkpoint into a file, the RPC streams it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/utf8.h"
#include "checkpoints.h"
#include "folders.h"
#include "job.h"
#include "message.h"
#include "worker.h"

enum { EXPORTERS = 2 };

/* "my-job-step-000200.safetensors": of a display name what every file system takes. The file that diffusers finds in a
 * folder has one name. */
static char *file_name(const Draftd__V1__Job *job, int64_t step, bool diffusers)
{
    char name[64];
    size_t n = 0;
    if (diffusers)
        return draftd_strdup("pytorch_lora_weights.safetensors");
    for (const char *c = job->spec->display_name; *c && n < sizeof name - 1; c++) {
        bool plain = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || *c == '_';
        if (plain || (n > 0 && name[n - 1] != '-'))
            name[n++] = plain ? *c : '-';
    }
    while (n > 0 && name[n - 1] == '-')
        n--;
    name[n] = '\0';
    return draftd_format("%s-step-%06lld.safetensors", n ? name : job->id, (long long)step);
}

static bool is_merged(const Draftd__V1__ExportLoraRequest *request)
{
    return request->format == DRAFTD__V1__EXPORT_LORA_REQUEST__FORMAT__FORMAT_MERGED ||
           request->format == DRAFTD__V1__EXPORT_LORA_REQUEST__FORMAT__FORMAT_MERGED_SINGLE;
}

static void send_export(struct draftd *d, struct draftd_worker *worker, const Draftd__V1__ExportLoraRequest *request,
                        const Draftd__V1__Job *job, const char *checkpoint, const char *path)
{
    char kinds[256] = "";
    for (size_t i = 0, n = 0; i < job->spec->n_rewards && n < sizeof kinds; i++)
        n += (size_t)snprintf(kinds + n, sizeof kinds - n, "%s%s", i ? "," : "", job->spec->rewards[i]->kind);
    Draftd__Worker__Export export = DRAFTD__WORKER__EXPORT__INIT;
    export.checkpoint = (char *)checkpoint; /* packing reads them only */
    export.path = (char *)path;
    if (is_merged(request))
        export.merged = job->spec;
    export.single_file = request->format == DRAFTD__V1__EXPORT_LORA_REQUEST__FORMAT__FORMAT_MERGED_SINGLE;
    export.ema = request->ema;
    export.diffusers = request->format == DRAFTD__V1__EXPORT_LORA_REQUEST__FORMAT__FORMAT_DIFFUSERS;
    export.f32 = request->f32;
    export.job_id = job->id;
    export.reward = kinds;
    export.kl_coeff =
        job->spec->kl_coeff_opt_case == DRAFTD__V1__JOB_SPEC__KL_COEFF_OPT_KL_COEFF ? job->spec->kl_coeff : 1;
    Draftd__Worker__Command command = DRAFTD__WORKER__COMMAND__INIT;
    command.kind_case = DRAFTD__WORKER__COMMAND__KIND_EXPORT;
    command.export = &export;
    draftd_worker_send(d, worker, &command);
}

static bool run(struct draftd *d, const Draftd__V1__ExportLoraRequest *request, const Draftd__V1__Job *job,
                const char *checkpoint, const char *path, struct draftd_patience patience, struct draft_error *err)
{
    struct draftd_worker *worker = draftd_worker_start(d, DRAFTD_TASK_EXPORT, job->id, NULL, err);
    if (worker == NULL)
        return false;
    worker->waited_for = true;
    worker->checkpoint = draftd_strdup(checkpoint);
    send_export(d, worker, request, job, checkpoint, path);
    if (!draftd_worker_wait(d, worker, patience))
        return draft_fail(err, DRAFT_UNAVAILABLE, "the export took longer than the call's deadline; try again");
    bool ok = worker->finished && worker->result.code == DRAFT_OK;
    if (!worker->finished) {
        char why[1024];
        const char *code;
        draftd_worker_explain(d, worker, 0, why, sizeof why, &code);
        draft_fail(err, DRAFT_INTERNAL, "the export failed: %s", why);
    } else if (!ok && err && err->code == DRAFT_OK) {
        *err = worker->result;
    }
    draftd_worker_free(d, worker);
    struct stat st;
    return ok && ((stat(path, &st) == 0 && st.st_size > 0) ||
                  draft_fail(err, DRAFT_INTERNAL, "the worker reported an export that is not there"));
}

static bool export_step(struct draftd *d, int64_t number, const Draftd__V1__ExportLoraRequest *request,
                        struct draftd_patience patience, const char *path, char **name, struct draft_error *err)
{
    struct draftd_checkpoint checkpoint = {0};
    int64_t step = request->step_opt_case == DRAFTD__V1__EXPORT_LORA_REQUEST__STEP_OPT_STEP ? request->step : -1;
    if (request->step_opt_case == DRAFTD__V1__EXPORT_LORA_REQUEST__STEP_OPT_STEP && step < 0)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "step", "a step is never negative");
    while (d->exporters >= EXPORTERS)
        if (!draftd_wait(d, patience))
            return draft_fail(err, DRAFT_UNAVAILABLE, "other exports are being made; try again");
    Draftd__V1__Job *job = draftd_store_job(d->store, number, err);
    bool ok = job && draftd_checkpoint_choose(d, number, step, false, &checkpoint, err);
    if (ok && checkpoint.path == NULL)
        ok = draft_fail(err, DRAFT_FAILED_PRECONDITION,
                        "%s has no checkpoint yet; while it runs, draft checkpoints %s --save makes one", job->id,
                        job->id);
    if (ok) {
        d->exporters++;
        ok = run(d, request, job, checkpoint.path, path, patience, err);
        d->exporters--;
        pthread_cond_broadcast(&d->changed);
    }
    if (ok)
        *name = file_name(job, checkpoint.step,
                          request->format == DRAFTD__V1__EXPORT_LORA_REQUEST__FORMAT__FORMAT_DIFFUSERS);
    draftd_message_free(job);
    free(checkpoint.path);
    return ok;
}

static bool check_path(const char *path, bool merged, struct draft_error *err)
{
    enum { MAX_PATH = 4000 };
    size_t length = strlen(path);
    if (!merged)
        return length == 0 || draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "path",
                                               "only a merged model is written by draftd itself; leave the path empty");
    if (path[0] != '/')
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "path",
                                "a merged model needs the absolute path of a folder or file to make");
    if (length > MAX_PATH || !draft_utf8_valid(path, length, NULL))
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "path", "the path is longer than %d bytes or not UTF-8",
                                MAX_PATH);
    return access(path, F_OK) != 0 ||
           draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "path", "%s is there already; name one that is not", path);
}

bool draftd_export_lora(struct draftd *d, const Draftd__V1__ExportLoraRequest *request, struct draftd_patience patience,
                        char **path, char **name, struct draft_error *err)
{
    int64_t number;
    if (!draftd_job_number(request->job_id, &number, err))
        return false;
    if (request->format < DRAFTD__V1__EXPORT_LORA_REQUEST__FORMAT__FORMAT_UNSPECIFIED ||
        request->format > DRAFTD__V1__EXPORT_LORA_REQUEST__FORMAT__FORMAT_MERGED_SINGLE)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "format", "%d is no format", (int)request->format);
    bool merged = is_merged(request);
    if (!check_path(request->path, merged, err))
        return false;
    pthread_mutex_lock(&d->lock);
    char *folder = draftd_format("%s/exports/%lld-%llu", d->state_dir, (long long)number,
                                 (unsigned long long)++d->next_worker); /* a number that is used once */
    char *file = merged ? draftd_strdup(request->path) : draftd_format("%s.safetensors", folder);
    bool ok = export_step(d, number, request, patience, file, name, err);
    pthread_mutex_unlock(&d->lock);
    free(folder);
    if (ok) {
        *path = file;
        return true;
    }
    if (!merged) /* a worker that makes a folder makes it whole or not at all */
        unlink(file);
    free(file);
    return false;
}
