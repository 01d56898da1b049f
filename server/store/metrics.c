/* Points of series. SQLite has no NaN, so a kind stands beside the value. */
#include <math.h>
#include <stdlib.h>

#include "message.h"
#include "store/sql.h"
#include "store/store.h"

enum kind { FINITE, NOT_A_NUMBER, PLUS_INFINITY, MINUS_INFINITY };

static enum kind kind_of(double value)
{
    if (isnan(value))
        return NOT_A_NUMBER;
    if (isinf(value))
        return value > 0 ? PLUS_INFINITY : MINUS_INFINITY;
    return FINITE;
}

static double value_of(sqlite3_stmt *s, int value_column, int kind_column)
{
    switch ((enum kind)sql_int(s, kind_column)) {
    case PLUS_INFINITY:
        return INFINITY;
    case MINUS_INFINITY:
        return -INFINITY;
    case NOT_A_NUMBER:
        return NAN;
    default:
        return sql_double(s, value_column);
    }
}

bool draftd_store_metric(struct draftd_store *store, int64_t job, const char *name, int64_t step, int attempt,
                         int64_t time_us, double value, struct draft_error *err)
{
    struct sql *sql = &store->writer;
    return sql_run(sql, err, "INSERT OR IGNORE INTO series (name) VALUES (?)", "s", name) &&
           sql_run(sql, err,
                   "INSERT OR REPLACE INTO metrics (job, series, step, attempt, time_us, value, kind)"
                   " SELECT ?, series, ?, ?, ?, ?, ? FROM series WHERE name = ?",
                   "iinidns", job, step, attempt, time_us, kind_of(value) == FINITE ? value : (double)NAN,
                   (int)kind_of(value), name);
}

bool draftd_store_delete_points(struct draftd_store *store, int64_t job, int64_t most, int64_t *deleted,
                                struct draft_error *err)
{
    if (!sql_run(&store->writer, err,
                 "DELETE FROM metrics WHERE job = ?1 AND (series, step) IN (SELECT series, step FROM metrics"
                 " WHERE job = ?1 LIMIT ?2)",
                 "ii", job, most))
        return false;
    *deleted = sqlite3_changes64(store->writer.db);
    return true;
}

bool draftd_store_list_series(struct draftd_store *store, int64_t job, Draftd__V1__ListMetricsResponse *reply,
                              struct draft_error *err)
{
    struct sql *sql = draftd_store_take_reader(store, err);
    if (sql == NULL)
        return false;
    /* The maximum's row gives the bare columns of that row: a documented rule of SQLite. */
    sqlite3_stmt *s =
        sql_bind(sql, err,
                 "SELECT name, count(*), (SELECT min(step) FROM metrics AS first WHERE first.job = m.job AND"
                 " first.series = m.series), max(step), value, kind FROM metrics AS m JOIN series USING (series)"
                 " WHERE job = ? GROUP BY m.series ORDER BY name",
                 "i", job);
    int rc = s ? 1 : -1;
    while (s && (rc = sql_step(sql, s, err)) == 1) {
        Draftd__V1__ListMetricsResponse__Series *series =
            draftd_message_new(&draftd__v1__list_metrics_response__series__descriptor);
        draftd_message_string(&series->name, sql_text(s, 0));
        series->points = sql_int(s, 1);
        series->first_step = sql_int(s, 2);
        series->last_step = sql_int(s, 3);
        series->last_value = value_of(s, 4, 5);
        draftd_message_append(&reply->series, &reply->n_series, series);
    }
    draftd_store_put_reader(store, sql);
    return rc == 0;
}

bool draftd_store_count_points(struct draftd_store *store, int64_t job, const char *name, int64_t since_step,
                               int64_t *count, struct draft_error *err)
{
    struct sql *sql = draftd_store_take_reader(store, err);
    if (sql == NULL)
        return false;
    sqlite3_stmt *s = sql_bind(sql, err,
                               "SELECT count(*) FROM metrics WHERE job = ? AND step >= ?"
                               " AND series = (SELECT series FROM series WHERE name = ?)",
                               "iis", job, since_step, name);
    bool ok = s && sql_step(sql, s, err) == 1;
    if (ok) {
        *count = sql_int(s, 0);
        sql_done(s);
    }
    draftd_store_put_reader(store, sql);
    return ok;
}

bool draftd_store_points(struct draftd_store *store, int64_t job, const char *name, int64_t since_step, void *context,
                         bool (*each)(void *context, int64_t step, double value, int64_t time_us, int attempt),
                         struct draft_error *err)
{
    struct sql *sql = draftd_store_take_reader(store, err);
    if (sql == NULL)
        return false;
    sqlite3_stmt *s = sql_bind(sql, err,
                               "SELECT step, value, kind, time_us, attempt FROM metrics WHERE job = ? AND step >= ?"
                               " AND series = (SELECT series FROM series WHERE name = ?) ORDER BY step",
                               "iis", job, since_step, name);
    int rc = s ? 1 : -1;
    while (s && (rc = sql_step(sql, s, err)) == 1) {
        if (!each(context, sql_int(s, 0), value_of(s, 1, 2), sql_int(s, 3), (int)sql_int(s, 4))) {
            sql_done(s);
            rc = 0;
            break;
        }
    }
    draftd_store_put_reader(store, sql);
    return rc == 0;
}
