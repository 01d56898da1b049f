/* Rows of jobs, attempts and request ids. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "message.h"
#include "store/sql.h"
#include "store/store.h"

static bool read_rank(struct sql *sql, int64_t number, int64_t *rank, struct draft_error *err)
{
    sqlite3_stmt *s = sql_bind(sql, err, "SELECT queue_rank FROM jobs WHERE job = ?", "i", number);
    if (s == NULL || sql_step(sql, s, err) != 1)
        return false;
    *rank = sql_int(s, 0);
    sql_done(s);
    return true;
}

bool draftd_store_add_job(struct draftd_store *store, const Draftd__V1__Job *job, int64_t *number, int64_t *rank,
                          struct draft_error *err)
{
    struct sql *sql = &store->writer;
    size_t size = protobuf_c_message_get_packed_size(&job->spec->base);
    uint8_t *spec = draftd_new(size);
    protobuf_c_message_pack(&job->spec->base, spec);
    char *warnings = draftd_strdup("");
    for (size_t i = 0; i < job->n_warnings; i++) {
        char *longer = draftd_format("%s%s\n", warnings, job->warnings[i]);
        free(warnings);
        warnings = longer;
    }
    bool ok =
        sql_run(sql, err,
                "INSERT INTO jobs (spec, state, reason, create_us, update_us, prompt_count, fingerprint, total_steps,"
                " trained_parameters, memory_bytes, gpu_memory_bytes, height, width, warnings, queue_rank)"
                " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?, (SELECT ifnull(max(queue_rank), 0) + 1 FROM jobs))",
                "bnsiinsiiiinns", spec, size, (int)job->state, job->reason, job->create_time_us, job->create_time_us,
                (int)job->prompt_count, job->fingerprint, job->progress->total_steps, (int64_t)job->trained_parameters,
                (int64_t)job->memory_bytes, (int64_t)job->gpu_memory_bytes, (int)job->picture_height,
                (int)job->picture_width, warnings);
    free(warnings);
    free(spec);
    if (!ok)
        return false;
    *number = sqlite3_last_insert_rowid(sql->db);
    return read_rank(sql, *number, rank, err);
}

#define JOB_COLUMNS                                                                                                    \
    "SELECT job, spec, state, reason, reason_code, create_us, update_us, start_us, end_us, attempt, prompt_count,"     \
    " fingerprint, total_steps, trained_parameters, memory_bytes, height, width, warnings, step, seconds_per_step,"    \
    " reward, kl, lpips, revision, gpu_memory_bytes FROM jobs "

static Draftd__V1__Job *read_job(sqlite3_stmt *s, struct draft_error *err)
{
    const void *blob = sqlite3_column_blob(s, 1);
    Draftd__V1__JobSpec *spec = draftd__v1__job_spec__unpack(NULL, (size_t)sqlite3_column_bytes(s, 1), blob);
    if (spec == NULL) {
        draft_fail(err, DRAFT_DATA_LOSS, "the database holds a damaged specification of job-%lld",
                   (long long)sql_int(s, 0));
        return NULL;
    }
    Draftd__V1__Job *job = draftd_message_new(&draftd__v1__job__descriptor);
    job->id = draftd_format("job-%lld", (long long)sql_int(s, 0));
    job->spec = spec;
    job->state = (Draftd__V1__Job__State)sql_int(s, 2);
    draftd_message_string(&job->reason, sql_text(s, 3));
    draftd_message_string(&job->reason_code, sql_text(s, 4));
    job->create_time_us = sql_int(s, 5);
    job->update_time_us = sql_int(s, 6);
    job->start_time_us = sql_int(s, 7);
    job->end_time_us = sql_int(s, 8);
    job->attempt = (int32_t)sql_int(s, 9);
    job->prompt_count = (int32_t)sql_int(s, 10);
    draftd_message_string(&job->fingerprint, sql_text(s, 11));
    job->trained_parameters = (uint64_t)sql_int(s, 13);
    job->memory_bytes = (uint64_t)sql_int(s, 14);
    job->picture_height = (int32_t)sql_int(s, 15);
    job->picture_width = (int32_t)sql_int(s, 16);
    const char *warnings = sql_text(s, 17);
    for (const char *end; (end = strchr(warnings, '\n')) != NULL; warnings = end + 1)
        draftd_message_append(&job->warnings, &job->n_warnings, draftd_format("%.*s", (int)(end - warnings), warnings));
    job->progress = draftd_message_new(&draftd__v1__progress__descriptor);
    job->progress->total_steps = sql_int(s, 12);
    job->progress->step = sql_int(s, 18);
    job->progress->seconds_per_step = sql_double(s, 19);
    job->progress->eta_seconds = -1;
    job->progress->reward = sql_double(s, 20);
    job->progress->kl = sql_double(s, 21);
    job->progress->lpips = sql_double(s, 22);
    job->revision = sql_int(s, 23);
    job->gpu_memory_bytes = (uint64_t)sql_int(s, 24);
    return job;
}

Draftd__V1__Job *draftd_store_job(struct draftd_store *store, int64_t number, struct draft_error *err)
{
    struct sql *sql = &store->writer;
    sqlite3_stmt *s = sql_bind(sql, err, JOB_COLUMNS "WHERE job = ?", "i", number);
    if (s == NULL)
        return NULL;
    int rc = sql_step(sql, s, err);
    if (rc <= 0) {
        if (rc == 0)
            draft_fail_field(err, DRAFT_NOT_FOUND, "job_id", "there is no job-%lld", (long long)number);
        return NULL;
    }
    Draftd__V1__Job *job = read_job(s, err);
    sql_done(s);
    return job;
}

bool draftd_store_jobs(struct draftd_store *store, unsigned states, int64_t before, int limit, Draftd__V1__Job ***jobs,
                       size_t *count, struct draft_error *err)
{
    struct sql *sql = &store->writer;
    sqlite3_stmt *s = sql_bind(sql, err, JOB_COLUMNS "WHERE job < ? AND (1 << state) & ? ORDER BY job DESC LIMIT ?",
                               "iin", before > 0 ? before : INT64_MAX, (int64_t)states, limit);
    if (s == NULL)
        return false;
    int rc;
    while ((rc = sql_step(sql, s, err)) == 1) {
        Draftd__V1__Job *job = read_job(s, err);
        if (job == NULL) {
            sql_done(s);
            return false;
        }
        draftd_message_append(jobs, count, job);
    }
    return rc == 0;
}

bool draftd_store_count_jobs(struct draftd_store *store, unsigned states, int32_t *count, struct draft_error *err)
{
    struct sql *sql = &store->writer;
    sqlite3_stmt *s = sql_bind(sql, err, "SELECT count(*) FROM jobs WHERE (1 << state) & ?", "i", (int64_t)states);
    if (s == NULL)
        return false;
    int rc = sql_step(sql, s, err);
    if (rc == 1)
        *count = (int32_t)sql_int(s, 0);
    sql_done(s);
    return rc == 1;
}

bool draftd_store_queue(struct draftd_store *store, unsigned states, void *context,
                        void (*each)(void *context, const struct draftd_store_queued *job), struct draft_error *err)
{
    struct sql *sql = &store->writer;
    sqlite3_stmt *s =
        sql_bind(sql, err, "SELECT job, queue_rank, crashes FROM jobs WHERE (1 << state) & ? ORDER BY queue_rank", "i",
                 (int64_t)states);
    if (s == NULL)
        return false;
    int rc;
    while ((rc = sql_step(sql, s, err)) == 1) {
        struct draftd_store_queued job = {sql_int(s, 0), sql_int(s, 1), (int)sql_int(s, 2)};
        each(context, &job);
    }
    return rc == 0;
}

static bool is_end(Draftd__V1__Job__State state)
{
    return state == DRAFTD__V1__JOB__STATE__STATE_SUCCEEDED || state == DRAFTD__V1__JOB__STATE__STATE_FAILED ||
           state == DRAFTD__V1__JOB__STATE__STATE_CANCELLED;
}

bool draftd_store_change_job(struct draftd_store *store, int64_t number, const struct draftd_store_change *change,
                             int64_t *rank, struct draft_error *err)
{
    struct sql *sql = &store->writer;
    int64_t now = draftd_now_us();
    bool runs = change->state == DRAFTD__V1__JOB__STATE__STATE_PREPARING;
    if (!sql_run(sql, err,
                 "UPDATE jobs SET state = ?, reason = ?, reason_code = ?, update_us = ?, end_us = ?, attempt = ?,"
                 " crashes = ?, step = ?, start_us = iif(start_us = 0, ?, start_us) WHERE job = ?",
                 "nssiinniii", (int)change->state, change->reason, change->reason_code, now,
                 is_end(change->state) ? now : (int64_t)0, change->attempt, change->crashes, change->step,
                 runs ? now : (int64_t)0, number))
        return false;
    if (!change->requeue)
        return true;
    if (!sql_run(sql, err,
                 "UPDATE jobs SET queue_rank = (SELECT ifnull(max(queue_rank), 0) + 1 FROM jobs) WHERE job = ?", "i",
                 number))
        return false;
    return read_rank(sql, number, rank, err);
}

bool draftd_store_total_steps(struct draftd_store *store, int64_t number, int64_t total_steps, struct draft_error *err)
{
    return sql_run(&store->writer, err, "UPDATE jobs SET total_steps = ? WHERE job = ?", "ii", total_steps, number);
}

bool draftd_store_progress(struct draftd_store *store, int64_t number, const Draftd__V1__Progress *progress,
                           struct draft_error *err)
{
    return sql_run(&store->writer, err,
                   "UPDATE jobs SET step = ?, seconds_per_step = ?, reward = ?, kl = ?, lpips = ?, update_us = ?"
                   " WHERE job = ?",
                   "iddddii", progress->step, progress->seconds_per_step, progress->reward, progress->kl,
                   progress->lpips, draftd_now_us(), number);
}

bool draftd_store_delete_job(struct draftd_store *store, int64_t number, struct draft_error *err)
{
    return sql_run(&store->writer, err, "DELETE FROM jobs WHERE job = ?", "i", number);
}

bool draftd_store_begin_attempt(struct draftd_store *store, int64_t job, int attempt, int64_t step,
                                const struct draftd_store_process *process, struct draft_error *err)
{
    return sql_run(
        &store->writer, err,
        "INSERT INTO attempts (job, attempt, start_us, start_step, pid, pid_start, boot) VALUES (?,?,?,?,?,?,?)",
        "iniinis", job, attempt, draftd_now_us(), step, process->pid, process->start, process->boot);
}

bool draftd_store_end_attempt(struct draftd_store *store, int64_t job, int attempt, int64_t step, const char *reason,
                              struct draft_error *err)
{
    return sql_run(&store->writer, err,
                   "UPDATE attempts SET end_us = ?, end_step = ?, reason = ? WHERE job = ? AND attempt = ?", "iisin",
                   draftd_now_us(), step, reason, job, attempt);
}

bool draftd_store_open_attempt(struct draftd_store *store, int64_t job, struct draftd_store_process *process,
                               int *attempt, struct draft_error *err)
{
    struct sql *sql = &store->writer;
    sqlite3_stmt *s = sql_bind(sql, err,
                               "SELECT pid, pid_start, boot, attempt FROM attempts WHERE job = ? AND end_us = 0"
                               " ORDER BY attempt DESC LIMIT 1",
                               "i", job);
    if (s == NULL || sql_step(sql, s, err) != 1)
        return false;
    process->pid = (int)sql_int(s, 0);
    process->start = sql_int(s, 1);
    snprintf(process->boot, sizeof process->boot, "%s", sql_text(s, 2));
    *attempt = (int)sql_int(s, 3);
    sql_done(s);
    return true;
}

bool draftd_store_find_request(struct draftd_store *store, const char *id, const char *hash, int *found, int64_t *job,
                               int64_t *preview, struct draft_error *err)
{
    struct sql *sql = &store->writer;
    sqlite3_stmt *s = sql_bind(sql, err, "SELECT hash, job, preview FROM requests WHERE request_id = ?", "s", id);
    if (s == NULL)
        return false;
    int rc = sql_step(sql, s, err);
    *found = 0;
    if (rc != 1)
        return rc == 0;
    *found = strcmp(sql_text(s, 0), hash) == 0 ? 1 : -1;
    *job = sql_int(s, 1);
    *preview = sql_int(s, 2);
    sql_done(s);
    return true;
}

bool draftd_store_add_request(struct draftd_store *store, const char *id, const char *hash, int64_t job,
                              int64_t preview, struct draft_error *err)
{
    return sql_run(
        &store->writer, err,
        "INSERT INTO requests (request_id, hash, job, preview, time_us) VALUES (?, ?, nullif(?, 0), nullif(?, 0), ?)",
        "ssiii", id, hash, job, preview, draftd_now_us());
}

bool draftd_store_prune_requests(struct draftd_store *store, int64_t before_us, struct draft_error *err)
{
    return sql_run(&store->writer, err, "DELETE FROM requests WHERE time_us < ?", "i", before_us);
}
