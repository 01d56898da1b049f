#include "store/sql.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

bool sql_fail(struct sql *sql, struct draft_error *err)
{
    int code = sqlite3_errcode(sql->db), system = sqlite3_system_errno(sql->db);
    if (system == 0) /* not kept for a write of the log, whose errno is still there */
        system = errno;
    if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB)
        return draft_fail(err, DRAFT_DATA_LOSS,
                          "the database draftd.db in the state folder is damaged (%s); restore a copy of it",
                          sqlite3_errmsg(sql->db));
    if (code == SQLITE_BUSY)
        return draft_fail(err, DRAFT_UNAVAILABLE,
                          "another program holds the database draftd.db in the state folder; close it there");
    if (code == SQLITE_NOMEM)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the database");
    bool refused = code == SQLITE_IOERR || code == SQLITE_CANTOPEN;
    if (code == SQLITE_FULL || (refused && system == ENOSPC)) /* refused: the shared memory file could not grow */
        return draft_fail(err, DRAFT_DISK_FULL,
                          "the disk of the state folder is full, the database could not be written; free some space");
    if (refused && system == EDQUOT)
        return draft_fail(err, DRAFT_DISK_FULL,
                          "disk quota exceeded in the state folder, the database could not be written; remove files of "
                          "this user there or raise the quota");
    return draft_fail(err, DRAFT_IO, "the database draftd.db in the state folder could not be used: %s",
                      sqlite3_errmsg(sql->db));
}

static sqlite3_stmt *prepared(struct sql *sql, struct draft_error *err, const char *text)
{
    for (int i = 0; i < sql->cached; i++)
        if (sql->cache[i].text == text)
            return sql->cache[i].statement;
    assert(sql->cached < DRAFTD_STATEMENTS);
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v3(sql->db, text, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL) != SQLITE_OK) {
        sql_fail(sql, err);
        return NULL;
    }
    sql->cache[sql->cached].text = text;
    sql->cache[sql->cached++].statement = statement;
    return statement;
}

static sqlite3_stmt *bind(struct sql *sql, struct draft_error *err, const char *text, const char *types, va_list args)
{
    sqlite3_stmt *s = prepared(sql, err, text);
    if (s == NULL)
        return NULL;
    int index = 1;
    for (const char *type = types; *type; type++, index++) {
        int rc = SQLITE_OK;
        switch (*type) {
        case 'i':
            rc = sqlite3_bind_int64(s, index, va_arg(args, int64_t));
            break;
        case 'n':
            rc = sqlite3_bind_int(s, index, va_arg(args, int));
            break;
        case 's':
            rc = sqlite3_bind_text(s, index, va_arg(args, const char *), -1, SQLITE_TRANSIENT);
            break;
        case 'd': {
            double value = va_arg(args, double);
            rc = isnan(value) ? sqlite3_bind_null(s, index) : sqlite3_bind_double(s, index, value);
            break;
        }
        case 'b': {
            const void *data = va_arg(args, const void *);
            size_t bytes = va_arg(args, size_t);
            rc = bytes ? sqlite3_bind_blob64(s, index, data, bytes, SQLITE_TRANSIENT)
                       : sqlite3_bind_zeroblob(s, index, 0);
            break;
        }
        default:
            assert(!"a type letter that nobody knows");
        }
        if (rc != SQLITE_OK) {
            sql_fail(sql, err);
            sql_done(s);
            return NULL;
        }
    }
    assert(index - 1 == sqlite3_bind_parameter_count(s));
    return s;
}

sqlite3_stmt *sql_bind(struct sql *sql, struct draft_error *err, const char *text, const char *types, ...)
{
    va_list args;
    va_start(args, types);
    sqlite3_stmt *statement = bind(sql, err, text, types, args);
    va_end(args);
    return statement;
}

int sql_step(struct sql *sql, sqlite3_stmt *statement, struct draft_error *err)
{
    errno = 0;
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW)
        return 1;
    if (rc != SQLITE_DONE)
        sql_fail(sql, err);
    sql_done(statement);
    return rc == SQLITE_DONE ? 0 : -1;
}

void sql_done(sqlite3_stmt *statement)
{
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
}

bool sql_run(struct sql *sql, struct draft_error *err, const char *text, const char *types, ...)
{
    va_list args;
    va_start(args, types);
    sqlite3_stmt *statement = bind(sql, err, text, types, args);
    va_end(args);
    if (statement == NULL)
        return false;
    int rc;
    do
        rc = sql_step(sql, statement, err);
    while (rc == 1);
    return rc == 0;
}

bool sql_script(struct sql *sql, const char *text, struct draft_error *err)
{
    return sqlite3_exec(sql->db, text, NULL, NULL, NULL) == SQLITE_OK || sql_fail(sql, err);
}

void sql_close(struct sql *sql)
{
    for (int i = 0; i < sql->cached; i++)
        sqlite3_finalize(sql->cache[i].statement);
    sql->cached = 0;
    sqlite3_close(sql->db);
    sql->db = NULL;
}

int64_t sql_int(sqlite3_stmt *statement, int column)
{
    return sqlite3_column_int64(statement, column);
}

double sql_double(sqlite3_stmt *statement, int column)
{
    return sqlite3_column_type(statement, column) == SQLITE_NULL ? NAN : sqlite3_column_double(statement, column);
}

const char *sql_text(sqlite3_stmt *statement, int column)
{
    const unsigned char *text = sqlite3_column_text(statement, column);
    return text ? (const char *)text : "";
}
