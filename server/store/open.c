/* Opening, transactions, and the pool of read-only connections. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "message.h"
#include "store/sql.h"
#include "store/store.h"

enum { APPLICATION_ID = 0x44524654 }; /* "DRFT" */

/* The writer waits under the daemon's lock, and everybody for that: once for all that meet the same foreign lock. The
 * next transaction that begins resets it. */
static int keep_waiting(void *context, int tries)
{
    enum { PATIENCE_MS = 2000, PAUSE_US = 10000 };
    struct sql *sql = context;
    (void)tries;
    const int64_t now = draftd_now_ms();
    if (sql->patience_ms == 0)
        sql->patience_ms = now + PATIENCE_MS;
    if (now >= sql->patience_ms)
        return 0;
    usleep(PAUSE_US);
    return 1;
}

static bool open_connection(struct sql *sql, const char *folder, int flags, struct draft_error *err)
{
    char *path = draftd_format("%s/draftd.db", folder);
    int rc = sqlite3_open_v2(path, &sql->db, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc == SQLITE_OK) {
        sqlite3_extended_result_codes(sql->db, 0);
        if (flags & SQLITE_OPEN_READWRITE)
            sqlite3_busy_handler(sql->db, keep_waiting, sql);
        else
            sqlite3_busy_timeout(sql->db, 5000);
    } else if (sql->db == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the database %s", path);
    } else {
        sql_fail(sql, err);
        draft_error_prefix(err, "%s: ", path);
    }
    free(path);
    return rc == SQLITE_OK;
}

/* A file of another program that happens to be called draftd.db is left alone. */
static bool check_owner(struct draftd_store *store, struct draft_error *err)
{
    struct sql *sql = &store->writer;
    sqlite3_stmt *s =
        sql_bind(sql, err,
                 "SELECT (SELECT application_id FROM pragma_application_id), (SELECT count(*) FROM sqlite_schema)", "");
    if (s == NULL || sql_step(sql, s, err) != 1)
        return false;
    int64_t id = sql_int(s, 0), tables = sql_int(s, 1);
    sql_done(s);
    if (id == APPLICATION_ID)
        return true;
    if (id != 0 || tables != 0)
        return draft_fail(err, DRAFT_FAILED_PRECONDITION,
                          "%s/draftd.db is the database of another program; choose another state folder",
                          store->folder);
    return sql_script(sql, "PRAGMA application_id = 0x44524654", err);
}

static bool stat_database(const char *folder, struct stat *st)
{
    char *path = draftd_format("%s/draftd.db", folder);
    bool there = stat(path, st) == 0;
    free(path);
    return there;
}

static bool remember_file(struct draftd_store *store, struct draft_error *err)
{
    struct stat st;
    if (!stat_database(store->folder, &st))
        return draft_fail_errno(err, "%s/draftd.db", store->folder);
    store->device = st.st_dev;
    store->inode = st.st_ino;
    return true;
}

/* SQLite goes on writing into a file that has no name any more: what it took would be gone at the next start. */
static bool still_there(const struct draftd_store *store, struct draft_error *err)
{
    struct stat st;
    if (stat_database(store->folder, &st) && st.st_dev == store->device && st.st_ino == store->inode)
        return true;
    return draft_fail(err, DRAFT_DATA_LOSS,
                      "%s/draftd.db was removed or replaced while draftd runs; stop draftd and put a copy of it there",
                      store->folder);
}

struct draftd_store *draftd_store_open(const char *folder, struct draft_error *err)
{
    int lock = draftd_store_lock(folder, err);
    if (lock < 0)
        return NULL;
    struct draftd_store *store = draftd_new(sizeof *store);
    store->folder = draftd_strdup(folder);
    store->lock_fd = lock;
    store->durable = -1;
    pthread_mutex_init(&store->mutex, NULL);
    pthread_cond_init(&store->free_again, NULL);
    if (open_connection(&store->writer, folder, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, err) &&
        sql_script(&store->writer,
                   "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
                   "PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; PRAGMA wal_autocheckpoint = 1000;"
                   "PRAGMA journal_size_limit = 67108864; PRAGMA recursive_triggers = OFF",
                   err) &&
        check_owner(store, err) && draftd_store_migrate(store, err) && remember_file(store, err))
        return store;
    draftd_store_close(store);
    return NULL;
}

void draftd_store_close(struct draftd_store *store)
{
    if (store == NULL)
        return;
    for (int i = 0; i < store->readers; i++) { /* all are idle: nobody calls any more */
        sql_close(store->reader[i]);
        free(store->reader[i]);
    }
    sql_close(&store->writer); /* the last connection: writes the log back and removes it */
    pthread_mutex_destroy(&store->mutex);
    pthread_cond_destroy(&store->free_again);
    close(store->lock_fd);
    free(store->folder);
    free(store);
}

bool draftd_store_begin(struct draftd_store *store, enum draftd_durability durability, struct draft_error *err)
{
    bool durable = durability == DRAFTD_DURABLE;
    if (durable && !still_there(store, err))
        return false;
    if (store->durable != durable) { /* `synchronous` can only change between transactions */
        if (!sql_script(&store->writer, durable ? "PRAGMA synchronous = FULL" : "PRAGMA synchronous = NORMAL", err))
            return false;
        store->durable = durable;
    }
    bool begun = sql_run(&store->writer, err, "BEGIN IMMEDIATE", "");
    if (begun)
        store->writer.patience_ms = 0;
    return begun;
}

bool draftd_store_commit(struct draftd_store *store, struct draft_error *err)
{
    if (sql_run(&store->writer, err, "COMMIT", ""))
        return true;
    draftd_store_rollback(store);
    return false;
}

void draftd_store_rollback(struct draftd_store *store)
{
    if (!sqlite3_get_autocommit(store->writer.db)) /* SQLite rolls back by itself after some errors */
        sqlite3_exec(store->writer.db, "ROLLBACK", NULL, NULL, NULL);
}

struct sql *draftd_store_take_reader(struct draftd_store *store, struct draft_error *err)
{
    struct sql *reader = NULL;
    pthread_mutex_lock(&store->mutex);
    while (store->idle == 0 && store->readers == DRAFTD_READERS)
        pthread_cond_wait(&store->free_again, &store->mutex);
    if (store->idle > 0) {
        reader = store->reader[--store->idle];
    } else {
        reader = draftd_new(sizeof *reader);
        if (open_connection(reader, store->folder, SQLITE_OPEN_READONLY, err) &&
            sql_script(reader, "PRAGMA query_only = ON; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF",
                       err)) {
            store->readers++;
        } else {
            sql_close(reader);
            free(reader);
            reader = NULL;
        }
    }
    pthread_mutex_unlock(&store->mutex);
    return reader;
}

void draftd_store_put_reader(struct draftd_store *store, struct sql *reader)
{
    pthread_mutex_lock(&store->mutex);
    store->reader[store->idle++] = reader;
    pthread_cond_signal(&store->free_again);
    pthread_mutex_unlock(&store->mutex);
}
