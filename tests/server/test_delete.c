/* Deleting a job with many points: it takes a while, and nobody waits for it. */
#include "daemon_fixture.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "message.h"
#include "state.h"

enum { POINTS = 200000 };

/* Points of job-1 straight into the database of a daemon that is closed. */
static void add_points(struct fixture *f)
{
    char path[160], *message = NULL, sql[256];
    sqlite3 *db = NULL;
    snprintf(path, sizeof path, "%s/draftd.db", f->state);
    snprintf(sql, sizeof sql,
             "WITH RECURSIVE step(n) AS (SELECT 1000 UNION ALL SELECT n + 1 FROM step LIMIT %d)"
             " INSERT INTO metrics SELECT 1, 1, n, 1, 0, 0.5, 0 FROM step",
             POINTS);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s", message);
    sqlite3_close(db);
}

static int64_t count_points(struct fixture *f)
{
    char path[160];
    sqlite3 *db = NULL;
    sqlite3_stmt *s = NULL;
    snprintf(path, sizeof path, "%s/draftd.db", f->state);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT count(*) FROM metrics", -1, &s, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(s), SQLITE_ROW);
    int64_t count = sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    sqlite3_close(db);
    return count;
}

static void pause_with_points(struct fixture *f, char id[32])
{
    Draftd__V1__Job *job = NULL;
    fixture_submit(f, "ms=20", 1000, id);
    fixture_wait_step(f, id, 3);
    assert_true(draftd_pause_job(f->d, id, draftd_within(FIXTURE_MS), &job, NULL));
    fixture_free(job);
    fixture_close(f);
    add_points(f);
    fixture_open(f);
}

struct deletion {
    struct fixture *f;
    const char *id;
    bool done;
    int64_t ms;
    struct draft_error err;
    atomic_bool over;
};

static void *delete_it(void *context)
{
    struct deletion *deletion = context;
    int64_t begin = draftd_now_ms();
    deletion->done = draftd_delete_job(deletion->f->d, deletion->id, &deletion->err);
    deletion->ms = draftd_now_ms() - begin;
    atomic_store(&deletion->over, true);
    return NULL;
}

/* The deleting thread has said so; before, a call of ours would win. */
static bool has_begun(struct fixture *f)
{
    pthread_mutex_lock(&f->d->lock);
    bool begun = f->d->deletions != NULL;
    pthread_mutex_unlock(&f->d->lock);
    return begun;
}

static void test_delete__others_are_served_while_many_points_go(void **state)
{
    struct fixture *f = *state;
    char id[32];
    pause_with_points(f, id);
    assert_true(count_points(f) > POINTS);
    struct deletion deletion = {.f = f, .id = id};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, delete_it, &deletion), 0);

    int64_t longest = 0;
    int served = 0, refused = 0, polls = 0;
    while (!has_begun(f))
        assert_true(fixture_patient(&polls));
    while (!atomic_load(&deletion.over)) {
        int64_t begin = draftd_now_ms(), took;
        Draftd__V1__Job *job = NULL;
        struct draft_error err = {0};
        if (draftd_get_job(f->d, id, &job, NULL))
            fixture_free(job);
        refused += !draftd_resume_job(f->d, id, draftd_within(FIXTURE_MS), &job, &err) &&
                   strstr(err.message, "being deleted") != NULL;
        err = (struct draft_error){0};
        refused += !draftd_delete_job(f->d, id, &err) && strstr(err.message, "being deleted already") != NULL;
        took = draftd_now_ms() - begin;
        longest = took > longest ? took : longest;
        served++;
    }
    pthread_join(thread, NULL);
    if (!deletion.done)
        fail_msg("%s", deletion.err.message);
    print_message("deleted %d points in %lld ms; meanwhile %d rounds of calls, the longest %lld ms\n", POINTS,
                  (long long)deletion.ms, served, (long long)longest);
    assert_true(served >= 20);
    assert_true(refused >= 20);
    assert_int_equal(count_points(f), 0);
}

static void test_delete__a_deletion_cut_off_can_be_made_again(void **state)
{
    struct fixture *f = *state;
    char id[32];
    pause_with_points(f, id);
    struct deletion deletion = {.f = f, .id = id};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, delete_it, &deletion), 0);
    while (count_points(f) >= POINTS && !atomic_load(&deletion.over))
        continue;
    draftd_drain(f->d);
    pthread_join(thread, NULL);
    assert_false(deletion.done);
    assert_int_equal(deletion.err.code, DRAFT_UNAVAILABLE);
    fixture_close(f);
    assert_in_range(count_points(f), 1, POINTS);
    fixture_open(f);
    assert_int_equal(fixture_state(f, id), PAUSED);
    assert_true(draftd_delete_job(f->d, id, NULL));
    assert_int_equal(count_points(f), 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(test_delete__##name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(others_are_served_while_many_points_go),
        CASE(a_deletion_cut_off_can_be_made_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
