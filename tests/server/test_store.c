/* The database: one owner, migrations forward only, a copy before them, foreign and damaged files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "folders.h"
#include "message.h"
#include "store/store.h"

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/draftd-store-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    draftd_remove_tree(folder);
    return 0;
}

static struct draftd_store *open_good(void)
{
    struct draft_error err = {0};
    struct draftd_store *store = draftd_store_open(folder, &err);
    if (store == NULL)
        fail_msg("%s", err.message);
    return store;
}

static void expect_refusal(enum draft_code code, const char *words)
{
    struct draft_error err = {0};
    struct draftd_store *store = draftd_store_open(folder, &err);
    assert_null(store);
    if (err.code != code || strstr(err.message, words) == NULL)
        fail_msg("expected \"%s\": %d %s", words, err.code, err.message);
}

/* Straight into the file, as another program would. */
static void execute(const char *sql)
{
    char path[96];
    sqlite3 *db = NULL;
    snprintf(path, sizeof path, "%s/draftd.db", folder);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    char *message = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s", message);
    sqlite3_close(db);
}

static int64_t number(const char *file, const char *sql)
{
    char path[96];
    sqlite3 *db = NULL;
    sqlite3_stmt *s = NULL;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &s, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(s), SQLITE_ROW);
    int64_t value = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    sqlite3_close(db);
    return value;
}

static int64_t add_job(struct draftd_store *store)
{
    struct draft_error err = {0};
    int64_t job = 0, rank = 0;
    Draftd__V1__Job row = DRAFTD__V1__JOB__INIT;
    Draftd__V1__JobSpec spec = DRAFTD__V1__JOB_SPEC__INIT;
    Draftd__V1__Progress progress = DRAFTD__V1__PROGRESS__INIT;
    row.spec = &spec;
    row.progress = &progress;
    row.state = DRAFTD__V1__JOB__STATE__STATE_QUEUED;
    assert_true(draftd_store_begin(store, DRAFTD_DURABLE, &err));
    assert_true(draftd_store_add_job(store, &row, &job, &rank, &err));
    assert_true(draftd_store_commit(store, &err));
    return job;
}

static void test_store__a_second_daemon_is_refused_with_the_pid_of_the_first(void **state)
{
    (void)state;
    struct draftd_store *store = open_good();
    pid_t child = fork();
    if (child == 0) {
        char words[64];
        struct draft_error err = {0};
        snprintf(words, sizeof words, "another draftd (pid %d)", (int)getppid());
        bool refused = draftd_store_open(folder, &err) == NULL && strstr(err.message, words) != NULL;
        _exit(refused ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    draftd_store_close(store);
    draftd_store_close(open_good()); /* and let in when it is gone */
}

static void test_store__a_database_of_a_newer_draftd_is_refused(void **state)
{
    (void)state;
    draftd_store_close(open_good());
    execute("PRAGMA user_version = 9999");
    expect_refusal(DRAFT_FAILED_PRECONDITION, "newer draftd (schema 9999");
    assert_int_equal(number("draftd.db", "PRAGMA user_version"), 9999); /* and left as it was */
}

/* A database as the first version left it: its own migration, and a job. */
static void test_store__an_older_database_is_copied_and_then_migrated(void **state)
{
    (void)state;
    FILE *file = fopen(FIXTURES "/../../migrations/0001_jobs.sql", "re");
    assert_non_null(file);
    char *sql = calloc(1, 1 << 16);
    assert_true(fread(sql, 1, (1 << 16) - 1, file) > 0);
    fclose(file);
    execute(sql);
    free(sql);
    execute("PRAGMA application_id = 0x44524654; PRAGMA user_version = 1;"
            "INSERT INTO jobs (job, spec, state, create_us, update_us, prompt_count, fingerprint, total_steps,"
            " trained_parameters, memory_bytes, height, width) VALUES (7, x'', 6, 1, 1, 1, '', 1, 1, 1, 1, 1)");
    struct draftd_store *store = open_good();
    struct draft_error err = {0};
    Draftd__V1__Job *job = draftd_store_job(store, 7, &err);
    assert_non_null(job);
    draftd_message_free(job);
    draftd_store_close(store);
    assert_true(number("draftd.db", "PRAGMA user_version") >= 3);
    assert_int_equal(number("draftd.db", "SELECT count(*) FROM sqlite_schema WHERE name IN ('metrics', 'previews')"),
                     2);
    assert_int_equal(number("draftd.db.version-0001", "SELECT count(*) FROM jobs"), 1);
    assert_int_equal(number("draftd.db.version-0001", "SELECT count(*) FROM sqlite_schema WHERE name = 'metrics'"), 0);
    assert_int_equal(number("draftd.db.version-0001", "PRAGMA user_version"), 1);
}

/* The third migration fails half-way (its table is there already): nothing of it stays, the copy does. */
static void test_store__a_migration_that_fails_leaves_the_version_before(void **state)
{
    (void)state;
    draftd_store_close(open_good());
    execute("PRAGMA user_version = 2");
    expect_refusal(DRAFT_IO, "migration 0003_previews");
    assert_int_equal(number("draftd.db", "PRAGMA user_version"), 2);
}

static void test_store__files_of_others_are_left_alone(void **state)
{
    (void)state;
    execute("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)");
    expect_refusal(DRAFT_FAILED_PRECONDITION, "another program");
    assert_int_equal(number("draftd.db", "SELECT count(*) FROM theirs"), 1);
}

static void test_store__a_damaged_database_is_said_to_be_damaged(void **state)
{
    (void)state;
    char path[96];
    snprintf(path, sizeof path, "%s/draftd.db", folder);
    FILE *file = fopen(path, "we");
    for (int i = 0; i < 8192; i++)
        fputc(i * 7 % 251, file);
    fclose(file);
    expect_refusal(DRAFT_DATA_LOSS, "damaged");
}

static void test_store__a_lock_of_another_program_is_waited_for_once(void **state)
{
    (void)state;
    char path[96];
    sqlite3 *theirs = NULL;
    struct draftd_store *store = open_good();
    snprintf(path, sizeof path, "%s/draftd.db", folder);
    assert_int_equal(sqlite3_open(path, &theirs), SQLITE_OK);
    assert_int_equal(sqlite3_exec(theirs, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    const int64_t start = draftd_now_ms();
    for (int i = 0; i < 20; i++) {
        struct draft_error err = {0};
        assert_false(draftd_store_begin(store, DRAFTD_DURABLE, &err));
        assert_int_equal(err.code, DRAFT_UNAVAILABLE);
        assert_non_null(strstr(err.message, "another program"));
    }
    /* Once, not twenty times: the daemon's lock is held meanwhile, and everybody waits for that. */
    assert_true(draftd_now_ms() - start < 15000);
    assert_int_equal(sqlite3_exec(theirs, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(theirs);
    assert_true(draftd_store_begin(store, DRAFTD_DURABLE, NULL));
    assert_true(draftd_store_commit(store, NULL));
    draftd_store_close(store);
}

static void test_store__what_would_go_into_a_removed_file_is_not_acknowledged(void **state)
{
    (void)state;
    char path[96];
    struct draft_error err = {0};
    struct draftd_store *store = open_good();
    snprintf(path, sizeof path, "%s/draftd.db", folder);
    assert_int_equal(unlink(path), 0);
    assert_false(draftd_store_begin(store, DRAFTD_DURABLE, &err));
    assert_int_equal(err.code, DRAFT_DATA_LOSS);
    assert_non_null(strstr(err.message, "removed or replaced"));
    draftd_store_close(store);
}

static void test_store__rules_of_durability_hold(void **state)
{
    (void)state;
    struct draftd_store *store = open_good();
    assert_int_equal(number("draftd.db", "SELECT count(*) FROM pragma_journal_mode WHERE journal_mode = 'wal'"), 1);
    assert_int_equal(number("draftd.db", "PRAGMA application_id"), 0x44524654);
    assert_int_equal(number("draftd.db",
                            "SELECT count(*) FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
                            " AND strict = 0 AND name NOT LIKE 'sqlite%'"),
                     0);
    draftd_store_close(store);
}

static void test_store__numbers_that_are_none_survive(void **state)
{
    (void)state;
    struct draftd_store *store = open_good();
    struct draft_error err = {0};
    int64_t job = add_job(store);
    static const double values[] = {NAN, INFINITY, -INFINITY, 1.5};
    assert_true(draftd_store_begin(store, DRAFTD_RELAXED, &err));
    for (int i = 0; i < 4; i++)
        assert_true(draftd_store_metric(store, job, "loss", i, 1, 7, values[i], &err));
    assert_true(draftd_store_metric(store, job, "loss", 3, 2, 8, -2.5, &err)); /* a replayed step replaces */
    assert_true(draftd_store_commit(store, &err));
    Draftd__V1__ListMetricsResponse *list = draftd_message_new(&draftd__v1__list_metrics_response__descriptor);
    assert_true(draftd_store_list_series(store, job, list, &err));
    assert_int_equal(list->n_series, 1);
    assert_int_equal(list->series[0]->points, 4);
    assert_true(list->series[0]->last_value == -2.5);
    draftd_message_free(list);
    draftd_store_close(store);
    assert_int_equal(number("draftd.db", "SELECT count(*) FROM metrics WHERE value IS NULL AND kind > 0"), 3);
    assert_int_equal(number("draftd.db", "SELECT attempt FROM metrics WHERE step = 3"), 2);
}

static void test_store__a_deleted_job_takes_its_rows_along_and_its_number(void **state)
{
    (void)state;
    struct draftd_store *store = open_good();
    struct draft_error err = {0};
    int64_t job = add_job(store), revision;
    assert_true(draftd_store_begin(store, DRAFTD_DURABLE, &err));
    assert_true(draftd_store_metric(store, job, "loss", 1, 1, 7, 1, &err));
    assert_true(draftd_store_add_request(store, "id", "hash", job, 0, &err));
    assert_true(
        draftd_store_add_event(store, DRAFTD__V1__JOB_EVENT__KIND__KIND_NOTICE, job, 1, 0, "x", &revision, &err));
    assert_true(draftd_store_delete_job(store, job, &err));
    assert_true(draftd_store_commit(store, &err));
    assert_true(add_job(store) > job);
    int found;
    int64_t made = -1, preview;
    assert_true(draftd_store_find_request(store, "id", "hash", &found, &made, &preview, &err));
    assert_int_equal(found, 1);
    assert_int_equal(made, 0);
    draftd_store_close(store);
    assert_int_equal(number("draftd.db", "SELECT count(*) FROM metrics"), 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(test_store__##name, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_second_daemon_is_refused_with_the_pid_of_the_first),
        CASE(a_database_of_a_newer_draftd_is_refused),
        CASE(an_older_database_is_copied_and_then_migrated),
        CASE(a_migration_that_fails_leaves_the_version_before),
        CASE(files_of_others_are_left_alone),
        CASE(a_damaged_database_is_said_to_be_damaged),
        CASE(a_lock_of_another_program_is_waited_for_once),
        CASE(what_would_go_into_a_removed_file_is_not_acknowledged),
        CASE(rules_of_durability_hold),
        CASE(numbers_that_are_none_survive),
        CASE(a_deleted_job_takes_its_rows_along_and_its_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
