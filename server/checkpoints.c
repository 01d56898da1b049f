#include "checkpoints.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checksum.h"
#include "folders.h"
#include "job.h"
#include "log.h"
#include "message.h"
#include "space.h"
#include "spec.h"
#include "worker.h"

/* The rows of one job, oldest first, with their paths. */
struct rows {
    struct row {
        int64_t step;
        uint64_t bytes;
        char checksum[40];
        char *path;
    } * *row;
    size_t count;
    struct draftd *d;
    int64_t job;
};

static void keep_row(void *context, const Draftd__V1__Checkpoint *checkpoint, const char *file)
{
    struct rows *rows = context;
    struct row *row = draftd_new(sizeof *row);
    row->step = checkpoint->step;
    row->bytes = checkpoint->bytes;
    snprintf(row->checksum, sizeof row->checksum, "%s", checkpoint->checksum);
    row->path = draftd_checkpoint_path(rows->d->state_dir, rows->job, file);
    draftd_message_append(&rows->row, &rows->count, row);
}

static bool read_rows(struct draftd *d, int64_t job, struct rows *rows, struct draft_error *err)
{
    *rows = (struct rows){.d = d, .job = job};
    return draftd_store_checkpoints(d->store, job, rows, keep_row, err);
}

static void free_rows(struct rows *rows)
{
    for (size_t i = 0; i < rows->count; i++) {
        free(rows->row[i]->path);
        free(rows->row[i]);
    }
    free(rows->row);
}

/* False: whether it is whole cannot be told now (no descriptors, no memory, no permission), which says nothing against
 * it. *fault: NULL, or what is wrong with it, in words. */
static bool examine(const struct row *row, bool verify, const char **fault, struct draft_error *err)
{
    struct stat st;
    *fault = NULL;
    if (stat(row->path, &st) != 0) {
        *fault = "is missing";
        return errno == ENOENT || errno == ENOTDIR || draft_fail_errno(err, "cannot look at %s", row->path);
    }
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != row->bytes)
        *fault = "has another size than recorded";
    if (*fault || !verify)
        return true;
    char hex[DRAFT_CHECKSUM_SIZE];
    struct draft_error why = {0};
    if (draft_checksum_file(row->path, hex, NULL, &why)) {
        *fault = strcmp(hex, row->checksum) == 0 ? NULL : "is damaged (its checksum differs)";
        return true;
    }
    *fault = "cannot be read";
    if (why.code == DRAFT_IO && errno == EIO) /* the disk itself: an older one may lie on better blocks */
        return true;
    if (err)
        *err = why;
    return false;
}

static void forget(struct draftd *d, int64_t job, const struct row *row, const char *fault)
{
    char *message =
        draftd_format("the checkpoint of step %lld %s; the one before it is used", (long long)row->step, fault);
    char about[32];
    snprintf(about, sizeof about, "job-%lld", (long long)job);
    draftd_log(DRAFTD_WARNING, about, "%s (%s)", message, row->path);
    struct draft_error err = {0};
    if (draftd_begin(d, DRAFTD_DURABLE, &err)) {
        if (draftd_store_delete_checkpoint(d->store, job, row->step, &err) &&
            draftd_event(d, DRAFTD__V1__JOB_EVENT__KIND__KIND_NOTICE, job, row->step, 0, message, &err))
            draftd_commit(d, &err);
        else
            draftd_rollback(d);
    }
    free(message);
}

bool draftd_checkpoint_choose(struct draftd *d, int64_t job, int64_t step, bool verify,
                              struct draftd_checkpoint *checkpoint, struct draft_error *err)
{
    struct rows rows;
    *checkpoint = (struct draftd_checkpoint){0};
    bool ok = read_rows(d, job, &rows, err), found = false;
    for (size_t i = rows.count; ok && !found && i-- > 0;) {
        const struct row *row = rows.row[i];
        if (step >= 0 && row->step != step)
            continue;
        if (verify)
            pthread_mutex_unlock(&d->lock);
        const char *fault;
        ok = examine(row, verify, &fault, err);
        if (verify)
            pthread_mutex_lock(&d->lock);
        if (!ok)
            break;
        if (fault && step >= 0)
            ok = draft_fail(err, DRAFT_DATA_LOSS, "the checkpoint of step %lld %s", (long long)step, fault);
        else if (fault && verify)
            forget(d, job, row, fault);
        found = fault == NULL;
        if (found) {
            checkpoint->step = row->step;
            checkpoint->path = draftd_strdup(row->path);
        }
    }
    if (ok && !found && step >= 0)
        ok = draft_fail_field(err, DRAFT_NOT_FOUND, "step", "job-%lld has no checkpoint of step %lld", (long long)job,
                              (long long)step);
    free_rows(&rows);
    return ok;
}

static bool in_use(const struct draftd *d, const char *path)
{
    for (const struct draftd_worker *worker = d->workers; worker; worker = worker->next)
        if (!worker->exited && worker->checkpoint && strcmp(worker->checkpoint, path) == 0)
            return true;
    return false;
}

/* Rows first: a file without a row is swept at the next start, a row without a file would be a lie. */
static void prune(struct draftd *d, struct draftd_live_job *job)
{
    struct rows rows;
    struct draft_error err = {0};
    size_t keep = draftd_spec_checkpoints_kept(job->spec);
    bool ok = read_rows(d, job->number, &rows, &err);
    for (size_t i = 0; ok && i + keep < rows.count; i++) {
        if (in_use(d, rows.row[i]->path))
            continue; /* goes with the next one */
        ok = draftd_begin(d, DRAFTD_DURABLE, &err);
        if (ok && !draftd_store_delete_checkpoint(d->store, job->number, rows.row[i]->step, &err)) {
            draftd_rollback(d);
            ok = false;
        }
        ok = ok && draftd_commit(d, &err);
        if (ok && unlink(rows.row[i]->path) < 0)
            draftd_log(DRAFTD_WARNING, job->id, "cannot remove %s: %s", rows.row[i]->path, strerror(errno));
    }
    if (!ok)
        draftd_log(DRAFTD_WARNING, job->id, "old checkpoints stay: %s", err.message);
    free_rows(&rows);
}

/* The file's name, when the path is <job's folder>/checkpoints/<a plain name>. */
static const char *name_in_folder(struct draftd *d, const struct draftd_live_job *job, const char *path)
{
    char *folder = draftd_checkpoint_path(d->state_dir, job->number, "");
    size_t length = strlen(folder);
    const char *name = strncmp(path, folder, length) == 0 ? path + length : NULL;
    free(folder);
    if (name == NULL || strlen(name) > 100 || name[0] == '.' || name[0] == '\0')
        return NULL;
    for (const char *c = name; *c; c++)
        if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || strchr("-_.", *c)))
            return NULL;
    return name;
}

static bool is_checksum(const char *text)
{
    return strlen(text) == 32 && strspn(text, "0123456789abcdef") == 32;
}

static char *path_of_step(struct draftd *d, int64_t job, int64_t step)
{
    struct rows rows;
    char *path = NULL;
    if (read_rows(d, job, &rows, NULL))
        for (size_t i = 0; i < rows.count; i++)
            if (rows.row[i]->step == step)
                path = draftd_strdup(rows.row[i]->path);
    free_rows(&rows);
    return path;
}

static bool write_row(struct draftd *d, const struct draftd_live_job *job, const Draftd__V1__Checkpoint *checkpoint,
                      const char *name, struct draft_error *err)
{
    if (!draftd_begin(d, DRAFTD_DURABLE, err))
        return false;
    if (draftd_store_add_checkpoint(d->store, job->number, checkpoint, name, err) &&
        (!job->metrics_untold ||
         draftd_event(d, DRAFTD__V1__JOB_EVENT__KIND__KIND_METRICS, job->number, job->metrics_step, 0, "", err)) &&
        draftd_event(d, DRAFTD__V1__JOB_EVENT__KIND__KIND_CHECKPOINT, job->number, checkpoint->step, 0, "", err))
        return draftd_commit(d, err);
    draftd_rollback(d);
    return false;
}

bool draftd_checkpoint_record(struct draftd *d, struct draftd_live_job *job, const Draftd__Worker__Saved *saved,
                              bool *fault, struct draft_error *err)
{
    struct stat st;
    const char *name = name_in_folder(d, job, saved->path);
    *fault = true;
    if (name == NULL)
        return draft_fail(err, DRAFT_INTERNAL, "a checkpoint outside its folder");
    if (stat(saved->path, &st) != 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != saved->bytes)
        return draft_fail(err, DRAFT_INTERNAL, "a checkpoint %s that is not there or has another size", name);
    if (!is_checksum(saved->checksum) || saved->step < 0)
        return draft_fail(err, DRAFT_INTERNAL, "a checkpoint without a sound checksum or step");
    *fault = false;

    Draftd__V1__Checkpoint checkpoint = DRAFTD__V1__CHECKPOINT__INIT;
    checkpoint.step = saved->step;
    checkpoint.bytes = saved->bytes;
    checkpoint.checksum = saved->checksum;
    checkpoint.create_time_us = draftd_now_us();
    checkpoint.attempt = job->attempt;
    char *before = path_of_step(d, job->number, saved->step);
    struct draft_error failure = {0};
    bool ok = write_row(d, job, &checkpoint, name, &failure);
    if (!ok && draftd_reserve_give(d, &failure)) {
        failure = (struct draft_error){0};
        ok = write_row(d, job, &checkpoint, name, &failure);
    }
    if (ok) {
        job->metrics_untold = false;
        job->saves++;
        job->save_asked = false;
        job->crashes_before = job->crashes;
        draftd_log(DRAFTD_INFO, job->id, "checkpoint of step %lld, %llu bytes", (long long)saved->step,
                   (unsigned long long)saved->bytes);
        if (before && strcmp(before, saved->path) != 0)
            unlink(before); /* the same step saved again under another name */
        prune(d, job);
        pthread_cond_broadcast(&d->changed);
    } else if (err && err->code == DRAFT_OK) {
        *err = failure;
    }
    free(before);
    return ok;
}

void draftd_checkpoint_sweep(struct draftd *d, int64_t job)
{
    struct rows rows;
    char *folder = draftd_checkpoint_path(d->state_dir, job, "");
    DIR *dir = read_rows(d, job, &rows, NULL) ? opendir(folder) : NULL;
    for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;) {
        char *path = draftd_format("%s%s", folder, entry->d_name);
        bool named = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
        for (size_t i = 0; !named && i < rows.count; i++)
            named = strcmp(rows.row[i]->path, path) == 0;
        if (!named) {
            draftd_log(DRAFTD_INFO, NULL, "removing %s, which nothing names", path);
            draftd_remove_tree(path);
        }
        free(path);
    }
    if (dir)
        closedir(dir);
    free(folder);
    free_rows(&rows);
}

/* --- CheckpointService --- */

static void count_one(void *context, const Draftd__V1__Checkpoint *checkpoint, const char *file)
{
    (void)checkpoint, (void)file;
    ++*(size_t *)context;
}

size_t draftd_checkpoint_count(struct draftd *d, int64_t job)
{
    size_t count = 0;
    draftd_store_checkpoints(d->store, job, &count, count_one, NULL);
    return count;
}

static void append_checkpoint(void *context, const Draftd__V1__Checkpoint *checkpoint, const char *file)
{
    (void)file;
    Draftd__V1__ListCheckpointsResponse *reply = context;
    draftd_message_append(&reply->checkpoints, &reply->n_checkpoints, draftd_message_copy(checkpoint));
}

static bool list(struct draftd *d, int64_t job, Draftd__V1__ListCheckpointsResponse **reply, struct draft_error *err)
{
    Draftd__V1__Job *row = draftd_store_job(d->store, job, err);
    if (row == NULL)
        return false;
    draftd_message_free(row);
    *reply = draftd_message_new(&draftd__v1__list_checkpoints_response__descriptor);
    if (draftd_store_checkpoints(d->store, job, *reply, append_checkpoint, err))
        return true;
    draftd_message_free(*reply);
    *reply = NULL;
    return false;
}

bool draftd_list_checkpoints(struct draftd *d, const char *job_id, Draftd__V1__ListCheckpointsResponse **reply,
                             struct draft_error *err)
{
    int64_t job;
    if (!draftd_job_number(job_id, &job, err))
        return false;
    pthread_mutex_lock(&d->lock);
    bool ok = list(d, job, reply, err);
    pthread_mutex_unlock(&d->lock);
    return ok;
}

static bool newest(struct draftd *d, int64_t job, Draftd__V1__Checkpoint **checkpoint, struct draft_error *err)
{
    Draftd__V1__ListCheckpointsResponse *all;
    if (!list(d, job, &all, err))
        return false;
    if (all->n_checkpoints)
        *checkpoint = draftd_message_copy(all->checkpoints[all->n_checkpoints - 1]);
    draftd_message_free(all);
    return *checkpoint || draft_fail(err, DRAFT_NOT_FOUND, "job-%lld has no checkpoint", (long long)job);
}

static void ask_to_save(struct draftd *d, struct draftd_live_job *job)
{
    if (job->save_asked)
        return;
    job->save_asked = true;
    Draftd__Worker__Save save = DRAFTD__WORKER__SAVE__INIT;
    Draftd__Worker__Command command = DRAFTD__WORKER__COMMAND__INIT;
    command.kind_case = DRAFTD__WORKER__COMMAND__KIND_SAVE;
    command.save = &save;
    draftd_worker_send(d, job->worker, &command);
}

static bool create(struct draftd *d, int64_t number, struct draftd_patience patience,
                   Draftd__V1__Checkpoint **checkpoint, struct draft_error *err)
{
    Draftd__V1__Job *row = draftd_job_message(d, number, err);
    if (row == NULL)
        return false;
    bool running = row->state == DRAFTD__V1__JOB__STATE__STATE_RUNNING;
    const char *state = draftd_state_name(row->state);
    draftd_message_free(row);
    struct draftd_live_job *job = draftd_live_job(d, number);
    if (!running || job == NULL || job->worker == NULL)
        return draft_fail(err, DRAFT_FAILED_PRECONDITION, "job-%lld is %s; only a running job can save a checkpoint",
                          (long long)number, state);
    uint64_t saves = job->saves;
    int attempt = job->attempt;
    ask_to_save(d, job);
    for (;;) {
        job = draftd_live_job(d, number); /* it may end while the lock is released */
        if (job == NULL || job->attempt != attempt || job->worker == NULL)
            return draft_fail(err, DRAFT_FAILED_PRECONDITION, "job-%lld stopped running before it could save",
                              (long long)number);
        if (job->saves != saves)
            return newest(d, number, checkpoint, err);
        if (!draftd_wait(d, patience))
            return draft_fail(err, DRAFT_UNAVAILABLE,
                              "job-%lld has not reached a step boundary yet; it saves there, ask for the list later",
                              (long long)number);
    }
}

bool draftd_create_checkpoint(struct draftd *d, const char *job_id, struct draftd_patience patience,
                              Draftd__V1__Checkpoint **checkpoint, struct draft_error *err)
{
    int64_t job;
    if (!draftd_job_number(job_id, &job, err))
        return false;
    *checkpoint = NULL;
    pthread_mutex_lock(&d->lock);
    bool ok = create(d, job, patience, checkpoint, err);
    pthread_mutex_unlock(&d->lock);
    return ok;
}

struct recorded {
    int64_t step;
    const char *file;                   /* the name within the folder; NULL: any */
    Draftd__V1__Checkpoint *checkpoint; /* out; NULL when no row has both */
};

static void keep_recorded(void *context, const Draftd__V1__Checkpoint *checkpoint, const char *file)
{
    struct recorded *recorded = context;
    if (checkpoint->step == recorded->step && (!recorded->file || strcmp(file, recorded->file) == 0))
        recorded->checkpoint = draftd_message_copy(checkpoint);
}

/* Reading changes nothing: a damaged newest one is refused here and forgotten only when a job would start from it. */
static bool choose_whole(struct draftd *d, int64_t job, int64_t step, struct draftd_checkpoint *chosen,
                         Draftd__V1__Checkpoint **checkpoint, struct draft_error *err)
{
    Draftd__V1__Job *row = draftd_store_job(d->store, job, err);
    if (row == NULL)
        return false;
    draftd_message_free(row);
    if (step < 0) {
        struct draftd_checkpoint newest_there;
        if (!draftd_checkpoint_choose(d, job, -1, false, &newest_there, err))
            return false;
        if (newest_there.path == NULL)
            return draft_fail(
                err, DRAFT_FAILED_PRECONDITION,
                "job-%lld has no checkpoint yet; while it runs, draft checkpoints job-%lld --save makes one",
                (long long)job, (long long)job);
        free(newest_there.path);
        step = newest_there.step;
    }
    struct draft_error why = {0};
    bool whole = draftd_checkpoint_choose(d, job, step, true, chosen, &why);
    struct recorded recorded = {.step = step, .file = whole ? strrchr(chosen->path, '/') + 1 : NULL};
    bool ok = draftd_store_checkpoints(d->store, job, &recorded, keep_recorded, err);
    if (ok && !recorded.checkpoint && (whole || why.code == DRAFT_DATA_LOSS)) { /* no damage: pruned, or saved again */
        ok = draft_fail(err, DRAFT_UNAVAILABLE,
                        "the checkpoint of step %lld was replaced or removed meanwhile; try again", (long long)step);
    } else if (ok && !whole) {
        if (err)
            *err = why;
        ok = false;
    }
    if (ok)
        *checkpoint = recorded.checkpoint;
    else
        draftd_message_free(recorded.checkpoint);
    return ok;
}

bool draftd_read_checkpoint(struct draftd *d, const Draftd__V1__ReadCheckpointRequest *request, char **path,
                            Draftd__V1__Checkpoint **checkpoint, struct draft_error *err)
{
    int64_t job, step = -1;
    struct draftd_checkpoint chosen = {0};
    if (!draftd_job_number(request->job_id, &job, err))
        return false;
    if (request->step_opt_case == DRAFTD__V1__READ_CHECKPOINT_REQUEST__STEP_OPT_STEP) {
        step = request->step;
        if (step < 0)
            return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "step", "a step is never negative");
    }
    pthread_mutex_lock(&d->lock);
    bool ok = choose_whole(d, job, step, &chosen, checkpoint, err);
    pthread_mutex_unlock(&d->lock);
    if (ok)
        *path = chosen.path;
    else
        free(chosen.path);
    return ok;
}
