/* Rows of checkpoints; the files are the daemon's business. */
#include "message.h"
#include "store/sql.h"
#include "store/store.h"

bool draftd_store_add_checkpoint(struct draftd_store *store, int64_t job, const Draftd__V1__Checkpoint *checkpoint,
                                 const char *file, struct draft_error *err)
{
    return sql_run(&store->writer, err,
                   "INSERT OR REPLACE INTO checkpoints (job, step, attempt, file, bytes, checksum, create_us)"
                   " VALUES (?,?,?,?,?,?,?)",
                   "iinsisi", job, checkpoint->step, (int)checkpoint->attempt, file, (int64_t)checkpoint->bytes,
                   checkpoint->checksum, checkpoint->create_time_us);
}

bool draftd_store_delete_checkpoint(struct draftd_store *store, int64_t job, int64_t step, struct draft_error *err)
{
    return sql_run(&store->writer, err, "DELETE FROM checkpoints WHERE job = ? AND step = ?", "ii", job, step);
}

bool draftd_store_checkpoints(struct draftd_store *store, int64_t job, void *context,
                              void (*each)(void *context, const Draftd__V1__Checkpoint *checkpoint, const char *file),
                              struct draft_error *err)
{
    struct sql *sql = &store->writer;
    sqlite3_stmt *s = sql_bind(
        sql, err, "SELECT step, attempt, file, bytes, checksum, create_us FROM checkpoints WHERE job = ? ORDER BY step",
        "i", job);
    if (s == NULL)
        return false;
    int rc;
    while ((rc = sql_step(sql, s, err)) == 1) {
        Draftd__V1__Checkpoint *checkpoint = draftd_message_new(&draftd__v1__checkpoint__descriptor);
        checkpoint->job_id = draftd_format("job-%lld", (long long)job);
        checkpoint->step = sql_int(s, 0);
        checkpoint->attempt = (int32_t)sql_int(s, 1);
        checkpoint->bytes = (uint64_t)sql_int(s, 3);
        draftd_message_string(&checkpoint->checksum, sql_text(s, 4));
        checkpoint->create_time_us = sql_int(s, 5);
        each(context, checkpoint, sql_text(s, 2));
        draftd_message_free(checkpoint);
    }
    return rc == 0;
}
