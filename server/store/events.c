/* The events watchers are told, in the order of their revision. */
#include <stdlib.h>
#include <string.h>

#include "message.h"
#include "store/sql.h"
#include "store/store.h"

bool draftd_store_add_event(struct draftd_store *store, Draftd__V1__JobEvent__Kind kind, int64_t job, int64_t step,
                            int64_t preview, const char *message, int64_t *revision, struct draft_error *err)
{
    struct sql *sql = &store->writer;
    if (kind == DRAFTD__V1__JOB_EVENT__KIND__KIND_DELETED) {
        if (!sql_run(sql, err, "INSERT INTO events (time_us, kind, job, state) VALUES (?, ?, ?, 0)", "ini",
                     draftd_now_us(), (int)kind, job))
            return false;
        *revision = sqlite3_last_insert_rowid(sql->db);
        return true;
    }
    if (!sql_run(sql, err,
                 "INSERT INTO events (time_us, kind, job, state, reason, reason_code, attempt, step, preview, message)"
                 " SELECT ?, ?, job, state, reason, reason_code, attempt, ?, ?, ? FROM jobs WHERE job = ?",
                 "iniisi", draftd_now_us(), (int)kind, step, preview, message, job))
        return false;
    *revision = sqlite3_last_insert_rowid(sql->db);
    return sql_run(sql, err, "UPDATE jobs SET revision = ? WHERE job = ?", "ii", *revision, job);
}

bool draftd_store_next_event(struct draftd_store *store, int64_t job, int64_t revision,
                             struct draftd_store_event *event, struct draft_error *err)
{
    struct sql *sql = &store->writer;
#define EVENT_COLUMNS                                                                                                  \
    "SELECT revision, time_us, kind, job, state, reason, reason_code, attempt, step, preview, message FROM events "
    sqlite3_stmt *s =
        job ? sql_bind(sql, err, EVENT_COLUMNS "WHERE job = ? AND revision >= ? ORDER BY revision LIMIT 1", "ii", job,
                       revision)
            : sql_bind(sql, err, EVENT_COLUMNS "WHERE revision >= ? ORDER BY revision LIMIT 1", "i", revision);
    if (s == NULL || sql_step(sql, s, err) != 1)
        return false;
    event->revision = sql_int(s, 0);
    event->time_us = sql_int(s, 1);
    event->kind = (Draftd__V1__JobEvent__Kind)sql_int(s, 2);
    event->job = sql_int(s, 3);
    event->state = (Draftd__V1__Job__State)sql_int(s, 4);
    event->reason = draftd_strdup(sql_text(s, 5));
    event->reason_code = draftd_strdup(sql_text(s, 6));
    event->attempt = (int)sql_int(s, 7);
    event->step = sql_int(s, 8);
    event->preview = sql_int(s, 9);
    event->message = draftd_strdup(sql_text(s, 10));
    sql_done(s);
    return true;
}

void draftd_store_event_free(struct draftd_store_event *event)
{
    free(event->reason);
    free(event->reason_code);
    free(event->message);
}

bool draftd_store_revisions(struct draftd_store *store, int64_t *oldest, int64_t *newest, struct draft_error *err)
{
    struct sql *sql = &store->writer;
    /* sqlite_sequence remembers the newest one even when every event is forgotten */
    sqlite3_stmt *s = sql_bind(sql, err,
                               "SELECT ifnull((SELECT min(revision) FROM events), 0),"
                               " ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0)",
                               "");
    if (s == NULL || sql_step(sql, s, err) != 1)
        return false;
    *oldest = sql_int(s, 0);
    *newest = sql_int(s, 1);
    sql_done(s);
    return true;
}

bool draftd_store_prune_events(struct draftd_store *store, int64_t keep, struct draft_error *err)
{
    return sql_run(&store->writer, err, "DELETE FROM events WHERE revision <= (SELECT max(revision) FROM events) - ?",
                   "i", keep);
}
