/*
 * The database's shape. migrations/NNNN_name.sql are embedded in order; PRAGMA user_version is the number of the last
 * one applied. Forward only: a database of a newer draftd is refused, and an older one is copied aside before it is
 * changed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "log.h"
#include "message.h"
#include "store/sql.h"

#pragma GCC diagnostic ignored "-Woverlength-strings" /* a migration is one literal; gcc has no limit */
static const struct {
    int number;
    const char *name, *sql;
} migrations[] = {
#include "migrations.inc"
};
enum { MIGRATIONS = sizeof migrations / sizeof migrations[0] };

static bool user_version(struct sql *sql, int *version, struct draft_error *err)
{
    sqlite3_stmt *s = sql_bind(sql, err, "PRAGMA user_version", "");
    if (s == NULL || sql_step(sql, s, err) != 1)
        return false;
    *version = (int)sql_int(s, 0);
    sql_done(s);
    return true;
}

static bool copy_aside(struct draftd_store *store, int version, struct draft_error *err)
{
    char *path = draftd_format("%s/draftd.db.version-%04d", store->folder, version);
    unlink(path); /* a copy that an earlier, failed attempt left */
    struct sql copy = {0};
    bool ok = sqlite3_open_v2(path, &copy.db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) == SQLITE_OK;
    if (ok) {
        sqlite3_backup *backup = sqlite3_backup_init(copy.db, "main", store->writer.db, "main");
        ok = backup && sqlite3_backup_step(backup, -1) == SQLITE_DONE;
        if (backup)
            ok = sqlite3_backup_finish(backup) == SQLITE_OK && ok;
    }
    if (!ok) {
        sql_fail(&copy, err);
        draft_error_prefix(err, "copying the database to %s before changing it: ", path);
    }
    sql_close(&copy);
    free(path);
    return ok;
}

static bool apply(struct draftd_store *store, int index, struct draft_error *err)
{
    struct sql *sql = &store->writer;
    char set_version[48];
    snprintf(set_version, sizeof set_version, "PRAGMA user_version = %d", migrations[index].number);
    if (!sql_script(sql, "BEGIN EXCLUSIVE", err))
        return false;
    if (sql_script(sql, migrations[index].sql, err) && sql_script(sql, set_version, err) &&
        sql_script(sql, "COMMIT", err))
        return true;
    sqlite3_exec(sql->db, "ROLLBACK", NULL, NULL, NULL);
    draft_error_prefix(err, "migration %s: ", migrations[index].name);
    return false;
}

bool draftd_store_migrate(struct draftd_store *store, struct draft_error *err)
{
    int version;
    if (!user_version(&store->writer, &version, err))
        return false;
    int newest = migrations[MIGRATIONS - 1].number;
    if (version > newest)
        return draft_fail(
            err, DRAFT_FAILED_PRECONDITION,
            "the database in %s was written by a newer draftd (schema %d, this one knows %d); start that one",
            store->folder, version, newest);
    if (version > 0 && version < newest && !copy_aside(store, version, err))
        return false;
    for (int i = 0; i < MIGRATIONS; i++) {
        if (migrations[i].number <= version)
            continue;
        if (!apply(store, i, err))
            return false;
        if (version > 0)
            draftd_log(DRAFTD_INFO, NULL, "database migrated: %s", migrations[i].name);
    }
    return true;
}
