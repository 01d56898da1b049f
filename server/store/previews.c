/* Rows of previews and their pictures. */
#include <stdlib.h>

#include "message.h"
#include "store/sql.h"
#include "store/store.h"

bool draftd_store_add_preview(struct draftd_store *store, const Draftd__V1__Preview *preview, int64_t job,
                              int64_t *number, struct draft_error *err)
{
    size_t size = protobuf_c_message_get_packed_size(&preview->spec->base);
    uint8_t *spec = draftd_new(size);
    protobuf_c_message_pack(&preview->spec->base, spec);
    bool ok = sql_run(
        &store->writer, err, "INSERT INTO previews (job, spec, state, reason, create_us, total) VALUES (?,?,?,?,?,?)",
        "ibnsin", job, spec, size, (int)preview->state, preview->reason, preview->create_time_us, (int)preview->total);
    free(spec);
    if (ok)
        *number = sqlite3_last_insert_rowid(store->writer.db);
    return ok;
}

static bool read_pictures(struct sql *sql, int64_t number, Draftd__V1__Preview *preview, struct draft_error *err)
{
    sqlite3_stmt *s = sql_bind(sql, err,
                               "SELECT picture, prompt, seed, height, width, reward, bytes FROM pictures"
                               " WHERE preview = ? ORDER BY picture",
                               "i", number);
    if (s == NULL)
        return false;
    int rc;
    while ((rc = sql_step(sql, s, err)) == 1) {
        Draftd__V1__Picture *picture = draftd_message_new(&draftd__v1__picture__descriptor);
        picture->index = (int32_t)sql_int(s, 0);
        draftd_message_string(&picture->prompt, sql_text(s, 1));
        picture->seed = (uint64_t)sql_int(s, 2);
        picture->height = (int32_t)sql_int(s, 3);
        picture->width = (int32_t)sql_int(s, 4);
        picture->reward = sql_double(s, 5);
        picture->bytes = (uint64_t)sql_int(s, 6);
        draftd_message_append(&preview->pictures, &preview->n_pictures, picture);
    }
    return rc == 0;
}

Draftd__V1__Preview *draftd_store_preview(struct draftd_store *store, int64_t number, struct draft_error *err)
{
    struct sql *sql = &store->writer;
    sqlite3_stmt *s = sql_bind(
        sql, err, "SELECT job, spec, state, reason, step, create_us, end_us, total FROM previews WHERE preview = ?",
        "i", number);
    if (s == NULL)
        return NULL;
    int rc = sql_step(sql, s, err);
    if (rc <= 0) {
        if (rc == 0)
            draft_fail_field(err, DRAFT_NOT_FOUND, "preview_id", "there is no preview-%lld", (long long)number);
        return NULL;
    }
    Draftd__V1__PreviewSpec *spec =
        draftd__v1__preview_spec__unpack(NULL, (size_t)sqlite3_column_bytes(s, 1), sqlite3_column_blob(s, 1));
    if (spec == NULL) {
        draft_fail(err, DRAFT_DATA_LOSS, "the database holds a damaged specification of preview-%lld",
                   (long long)number);
        sql_done(s);
        return NULL;
    }
    Draftd__V1__Preview *preview = draftd_message_new(&draftd__v1__preview__descriptor);
    preview->id = draftd_format("preview-%lld", (long long)number);
    preview->job_id = draftd_format("job-%lld", (long long)sql_int(s, 0));
    preview->spec = spec;
    preview->state = (Draftd__V1__Preview__State)sql_int(s, 2);
    draftd_message_string(&preview->reason, sql_text(s, 3));
    preview->step = sql_int(s, 4);
    preview->create_time_us = sql_int(s, 5);
    preview->end_time_us = sql_int(s, 6);
    preview->total = (int32_t)sql_int(s, 7);
    sql_done(s);
    if (read_pictures(sql, number, preview, err))
        return preview;
    draftd_message_free(preview);
    return NULL;
}

bool draftd_store_previews(struct draftd_store *store, int64_t job, int64_t before, int limit,
                           Draftd__V1__Preview ***previews, size_t *count, struct draft_error *err)
{
    struct sql *sql = &store->writer;
    for (int i = 0; i < limit; i++) {
        sqlite3_stmt *s = sql_bind(sql, err, "SELECT max(preview) FROM previews WHERE job = ? AND preview < ?", "ii",
                                   job, before > 0 ? before : INT64_MAX);
        if (s == NULL || sql_step(sql, s, err) != 1)
            return false;
        before = sql_int(s, 0);
        sql_done(s);
        if (before == 0)
            return true;
        Draftd__V1__Preview *preview = draftd_store_preview(store, before, err);
        if (preview == NULL)
            return false;
        draftd_message_append(previews, count, preview);
    }
    return true;
}

bool draftd_store_change_preview(struct draftd_store *store, int64_t number,
                                 const struct draftd_store_preview_change *change, struct draft_error *err)
{
    bool over = change->state == DRAFTD__V1__PREVIEW__STATE__STATE_SUCCEEDED ||
                change->state == DRAFTD__V1__PREVIEW__STATE__STATE_FAILED;
    return sql_run(
        &store->writer, err,
        "UPDATE previews SET state = ?, reason = ?, code = ?, step = ?, tries = ?, end_us = ? WHERE preview = ?",
        "nsninii", (int)change->state, change->reason, (int)change->code, change->step, change->tries,
        over ? draftd_now_us() : (int64_t)0, number);
}

bool draftd_store_preview_code(struct draftd_store *store, int64_t number, enum draft_code *code,
                               struct draft_error *err)
{
    struct sql *sql = &store->writer;
    sqlite3_stmt *s = sql_bind(sql, err, "SELECT code FROM previews WHERE preview = ?", "i", number);
    if (s == NULL || sql_step(sql, s, err) != 1)
        return false;
    *code = (enum draft_code)sql_int(s, 0);
    sql_done(s);
    return true;
}

bool draftd_store_add_picture(struct draftd_store *store, int64_t preview, const Draftd__V1__Picture *picture,
                              struct draft_error *err)
{
    return sql_run(&store->writer, err,
                   "INSERT OR REPLACE INTO pictures (preview, picture, prompt, seed, height, width, reward, bytes)"
                   " VALUES (?,?,?,?,?,?,?,?)",
                   "insinndi", preview, (int)picture->index, picture->prompt, (int64_t)picture->seed,
                   (int)picture->height, (int)picture->width, picture->reward, (int64_t)picture->bytes);
}

bool draftd_store_delete_pictures(struct draftd_store *store, int64_t preview, struct draft_error *err)
{
    return sql_run(&store->writer, err, "DELETE FROM pictures WHERE preview = ?", "i", preview);
}

bool draftd_store_unfinished_previews(struct draftd_store *store, void *context,
                                      void (*each)(void *context, int64_t preview, int64_t job, int tries, int total,
                                                   const Draftd__V1__PreviewSpec *spec),
                                      struct draft_error *err)
{
    struct sql *sql = &store->writer;
    sqlite3_stmt *s =
        sql_bind(sql, err, "SELECT preview, job, tries, total, spec FROM previews WHERE state <= ? ORDER BY preview",
                 "n", (int)DRAFTD__V1__PREVIEW__STATE__STATE_RUNNING);
    if (s == NULL)
        return false;
    int rc;
    while ((rc = sql_step(sql, s, err)) == 1) {
        Draftd__V1__PreviewSpec *spec =
            draftd__v1__preview_spec__unpack(NULL, (size_t)sqlite3_column_bytes(s, 4), sqlite3_column_blob(s, 4));
        if (spec == NULL) {
            draft_fail(err, DRAFT_DATA_LOSS, "the database holds a damaged specification of preview-%lld",
                       (long long)sql_int(s, 0));
            sql_done(s);
            return false;
        }
        each(context, sql_int(s, 0), sql_int(s, 1), (int)sql_int(s, 2), (int)sql_int(s, 3), spec);
        draftd_message_free(spec);
    }
    return rc == 0;
}
