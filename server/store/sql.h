/*
 * SQLite's C API with the repetition taken out: a cache of prepared statements, binding by a type string, errors as
 * sentences. Only for the files of this folder.
 */
#ifndef DRAFTD_STORE_SQL_H
#define DRAFTD_STORE_SQL_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

enum { DRAFTD_STATEMENTS = 96, DRAFTD_READERS = 4 };

/* One connection and its statements, found by the address of their text: use string literals. */
struct sql {
    sqlite3 *db;
    struct {
        const char *text;
        sqlite3_stmt *statement;
    } cache[DRAFTD_STATEMENTS];
    int cached;
    int64_t patience_ms; /* the writer's: when it gives up waiting for another program's lock; 0: it does not wait */
};

struct draftd_store {
    char *folder;
    int lock_fd;
    dev_t device; /* of draftd.db, as it was opened */
    ino_t inode;
    struct sql writer;
    int durable; /* what `synchronous` was last set to; -1: not yet */

    /* readers */
    pthread_mutex_t mutex;
    pthread_cond_t free_again;
    struct sql *reader[DRAFTD_READERS];
    int readers, idle; /* made; the first `idle` of the array are nobody's */
};

/* Prepares (or takes from the cache), binds and returns a statement, or NULL with err set. types, one letter an
 * argument: i int64_t, n int, s const char *, d double (NaN becomes NULL), b const void * and size_t. */
sqlite3_stmt *sql_bind(struct sql *sql, struct draft_error *err, const char *text, const char *types, ...);
/* 1: a row, 0: the end, -1: err. A statement that has not come to its end must be given back with sql_done(). */
int sql_step(struct sql *sql, sqlite3_stmt *statement, struct draft_error *err);
void sql_done(sqlite3_stmt *statement);
/* Binds and runs a statement that gives no rows. */
bool sql_run(struct sql *sql, struct draft_error *err, const char *text, const char *types, ...);
/* Several statements of SQL text. */
bool sql_script(struct sql *sql, const char *text, struct draft_error *err);
bool sql_fail(struct sql *sql, struct draft_error *err); /* from the connection's last error */
void sql_close(struct sql *sql);

/* Columns. Text and NULL are safe to read as a string: "". */
int64_t sql_int(sqlite3_stmt *statement, int column);
double sql_double(sqlite3_stmt *statement, int column); /* NULL: NaN */
const char *sql_text(sqlite3_stmt *statement, int column);

/* A read-only connection for this thread until it is put back. */
struct sql *draftd_store_take_reader(struct draftd_store *store, struct draft_error *err);
void draftd_store_put_reader(struct draftd_store *store, struct sql *reader);

/* migrations.c */
bool draftd_store_migrate(struct draftd_store *store, struct draft_error *err);
/* folder_lock.c: flock on <folder>/draftd.lock. The descriptor, or -1. */
int draftd_store_lock(const char *folder, struct draft_error *err);

#endif
