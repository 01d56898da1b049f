#include "restart.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "checkpoints.h"
#include "folders.h"
#include "job.h"
#include "log.h"
#include "message.h"
#include "previews.h"
#include "process.h"
#include "requests.h"

#define QUEUED     DRAFTD__V1__JOB__STATE__STATE_QUEUED
#define PREPARING  DRAFTD__V1__JOB__STATE__STATE_PREPARING
#define RUNNING    DRAFTD__V1__JOB__STATE__STATE_RUNNING
#define CANCELLING DRAFTD__V1__JOB__STATE__STATE_CANCELLING
#define CANCELLED  DRAFTD__V1__JOB__STATE__STATE_CANCELLED

struct found {
    struct draftd_store_queued *job;
    size_t count;
};

static void note(void *context, const struct draftd_store_queued *job)
{
    struct found *found = context;
    found->job = draftd_grow(found->job, (found->count + 1) * sizeof *found->job);
    found->job[found->count++] = *job;
}

/* A job that was in a worker's hands goes on from its last checkpoint, in its old place. That is no crash of its own.
 */
static bool reconcile(struct draftd *d, struct draftd_live_job *job, struct draft_error *err)
{
    struct draftd_store_process process;
    struct draft_error failure = {0};
    int attempt;
    bool open = draftd_store_open_attempt(d->store, job->number, &process, &attempt, &failure);
    if (failure.code && err) {
        *err = failure;
        return false;
    }
    if (open)
        draftd_process_end(&process, job->id);
    if (job->state == QUEUED)
        return true;
    struct draftd_move move = {.to = QUEUED, .reason = "the daemon was started anew", .ends = open};
    if (job->state == CANCELLING) {
        move.to = CANCELLED;
        move.reason = "cancelled on request";
    }
    return draftd_move(d, job, &move, err);
}

static bool restore_jobs(struct draftd *d, struct draft_error *err)
{
    struct found found = {0};
    unsigned states = 1u << QUEUED | 1u << PREPARING | 1u << RUNNING | 1u << CANCELLING;
    bool ok = draftd_store_queue(d->store, states, &found, note, err);
    for (size_t i = 0; ok && i < found.count; i++) {
        Draftd__V1__Job *row = draftd_store_job(d->store, found.job[i].number, err);
        ok = row && reconcile(d, draftd_job_wake(d, row, found.job[i].rank, found.job[i].crashes), err);
        draftd_message_free(row);
    }
    free(found.job);
    return ok;
}

/* Folders of jobs the database does not know: a crash between naming and committing, or after a deletion. */
static void sweep_jobs(struct draftd *d)
{
    char *parent = draftd_format("%s/jobs", d->state_dir);
    DIR *dir = opendir(parent);
    for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;) {
        int64_t number = draftd_parse_id("job", entry->d_name);
        struct draft_error err = {0};
        Draftd__V1__Job *row = number ? draftd_store_job(d->store, number, &err) : NULL;
        if (row) {
            draftd_checkpoint_sweep(d, number);
            draftd_previews_sweep(d, number);
        } else if (number && err.code == DRAFT_NOT_FOUND) {
            char *path = draftd_format("%s/%s", parent, entry->d_name);
            draftd_log(DRAFTD_INFO, NULL, "removing %s, which no job owns", path);
            draftd_remove_tree(path);
            free(path);
        }
        draftd_message_free(row);
    }
    if (dir)
        closedir(dir);
    free(parent);
}

static bool forget_old_requests(struct draftd *d, struct draft_error *err)
{
    if (!draftd_begin(d, DRAFTD_DURABLE, err))
        return false;
    if (draftd_store_prune_requests(d->store, draftd_now_us() - DRAFTD_REQUESTS_KEPT_US, err))
        return draftd_commit(d, err);
    draftd_rollback(d);
    return false;
}

bool draftd_restart(struct draftd *d, struct draft_error *err)
{
    static const char *const folders[] = {"jobs", "incoming", "exports", "trash"};
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        char *path = draftd_format("%s/%s", d->state_dir, folders[i]);
        bool ok = draftd_make_folder(path, err);
        if (ok && i > 0)
            draftd_empty_folder(path);
        free(path);
        if (!ok)
            return false;
    }
    int64_t oldest;
    if (!draftd_store_revisions(d->store, &oldest, &d->revision, err) || !forget_old_requests(d, err) ||
        !restore_jobs(d, err) || !draftd_previews_restore(d, err))
        return false;
    sweep_jobs(d);
    return true;
}
