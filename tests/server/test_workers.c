/* Workers that go wrong, with the fake one: crashes, hangs, hostile frames, noise; and one that only looks hung. */
#include "daemon_fixture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/store.h"
#include "worker.h"

static void test_workers__a_worker_deaf_to_cancel_is_killed(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_submit(f, "deaf ms=20", 100000, id);
    fixture_free(fixture_wait(f, id, RUNNING));
    Draftd__V1__Job *job = NULL;
    assert_true(draftd_cancel_job(f->d, id, &job, NULL));
    fixture_free(job);
    fixture_free(fixture_wait(f, id, CANCELLED));
}

static void test_workers__a_crash_is_retried_from_the_last_checkpoint(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_submit(f, "crash@13", 20, id);
    Draftd__V1__Job *job = fixture_wait(f, id, SUCCEEDED);
    assert_int_equal(job->attempt, 2);
    fixture_free(job);
    Draftd__V1__QueryMetricsResponse *points = fixture_points(f, id, "reward");
    assert_int_equal(points->series[0]->n_points, 20);
    assert_int_equal(points->series[0]->points[9]->attempt, 1);  /* step 10: before the checkpoint it went on from */
    assert_int_equal(points->series[0]->points[10]->attempt, 2); /* step 11: replayed */
    fixture_free(points);
}

static void test_workers__a_poison_job_fails_with_what_the_worker_last_said(void **state)
{
    struct fixture *f = *state;
    char id[32];
    struct draft_error err = {0};
    Draftd__V1__JobSpec *spec = fixture_spec(f, "crash@3x99", 20);
    spec->max_retries = 1;
    assert_true(fixture_try_submit(f, spec, "", id, &err));
    fixture_free(spec);
    Draftd__V1__Job *job = fixture_wait(f, id, FAILED);
    assert_int_equal(job->attempt, 2);
    assert_string_equal(job->reason_code, "WORKER_CRASHED");
    assert_non_null(strstr(job->reason, "SIGSEGV"));
    assert_non_null(strstr(job->reason, "about to crash at step 3"));
    fixture_free(job);
    char path[256];
    snprintf(path, sizeof path, "%s/jobs/%s/log/attempt-1.log", f->state, id);
    char *log = fixture_read(path);
    assert_non_null(strstr(log, "about to crash"));
    free(log);
}

static void expect_end(struct fixture *f, const char *script, Draftd__V1__Job__State end, const char *code,
                       const char *words)
{
    char id[32];
    struct draft_error err = {0};
    Draftd__V1__JobSpec *spec = fixture_spec(f, script, 20);
    spec->max_retries = -1;
    if (!fixture_try_submit(f, spec, "", id, &err))
        fail_msg("%s: %s", script, err.message);
    fixture_free(spec);
    Draftd__V1__Job *job = fixture_wait(f, id, end);
    if (strcmp(job->reason_code, code) != 0 || strstr(job->reason, words) == NULL)
        fail_msg("%s: %s: %s", script, job->reason_code, job->reason);
    fixture_free(job);
}

static void test_workers__every_way_to_die_has_its_reason(void **state)
{
    struct fixture *f = *state;
    expect_end(f, "crash@4", FAILED, "WORKER_CRASHED", "SIGSEGV");
    expect_end(f, "kill@4", FAILED, "OUT_OF_MEMORY", "probably for want of memory");
    expect_end(f, "exit@4", FAILED, "WORKER_CRASHED", "status 3");
    expect_end(f, "nonfinite@4", FAILED, "NON_FINITE", "not finite");
    expect_end(f, "io@4", FAILED, "IO", "input/output");
    expect_end(f, "hang@4", FAILED, "WORKER_HUNG", "no sign of life for 6 s");
}

static void test_workers__hostile_frames_end_the_worker_not_the_daemon(void **state)
{
    struct fixture *f = *state;
    expect_end(f, "garbage@4", FAILED, "WORKER_CRASHED", "no Report");
    expect_end(f, "huge@4", FAILED, "WORKER_CRASHED", "4294967295 bytes");
    expect_end(f, "cut@4", FAILED, "WORKER_CRASHED", "without a result");
    expect_end(f, "badname@4", FAILED, "WORKER_CRASHED", "sound name");
    expect_end(f, "badpath@4", FAILED, "WORKER_CRASHED", "outside its folder");
    expect_end(f, "strange@4", FAILED, "WORKER_CRASHED", "nobody asked for");
    expect_end(f, "early", FAILED, "WORKER_CRASHED", "before its start");
    expect_end(f, "", SUCCEEDED, "", "");
}

static void test_workers__random_frames_end_no_daemon(void **state)
{
    struct fixture *f = *state;
    char id[32], script[32];
    struct draft_error err = {0};
    for (int seed = 1; seed <= 40; seed++) {
        snprintf(script, sizeof script, "fuzz=%d", seed);
        Draftd__V1__JobSpec *spec = fixture_spec(f, script, 20);
        spec->max_retries = -1;
        assert_true(fixture_try_submit(f, spec, "", id, &err));
        fixture_free(spec);
        Draftd__V1__Job *job = fixture_wait(f, id, FAILED);
        assert_string_equal(job->reason_code, "WORKER_CRASHED");
        assert_true(job->progress->step >= 0 && job->progress->step <= 20);
        fixture_free(job);
    }
    fixture_free(fixture_wait(f, fixture_submit(f, "", 5, id), SUCCEEDED));
}

static void test_workers__the_log_of_a_noisy_worker_is_bounded(void **state)
{
    struct fixture *f = *state;
    char id[32], path[256];
    fixture_submit(f, "noisy", 5, id);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    snprintf(path, sizeof path, "%s/jobs/%s/log/attempt-1.log", f->state, id);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_in_range(st.st_size, 1 << 20, (1 << 20) + 100);
}

/* Stops a worker, and the daemon a moment later; both go on four seconds later, the daemon a moment before the worker:
 * a container that was paused, a machine's whole memory that was swapped out. */
static pid_t freeze(pid_t daemon, pid_t worker)
{
    pid_t child = fork();
    if (child != 0)
        return child;
    kill(worker, SIGSTOP);
    usleep(50000);
    kill(daemon, SIGSTOP);
    usleep(4000000);
    kill(daemon, SIGCONT);
    usleep(100000);
    kill(worker, SIGCONT);
    _exit(0);
}

static void test_workers__one_that_was_frozen_together_with_the_daemon_has_not_hung(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_close(f);
    f->config.hang_seconds = 2;
    fixture_open(f);
    fixture_submit(f, "ms=20", 100, id);
    fixture_wait_step(f, id, 3);
    pthread_mutex_lock(&f->d->lock);
    pid_t worker = f->d->workers->process.pid;
    pthread_mutex_unlock(&f->d->lock);
    pid_t helper = freeze(getpid(), worker);
    assert_true(helper > 0);
    assert_int_equal(waitpid(helper, NULL, 0), helper);
    Draftd__V1__Job *job = fixture_wait(f, id, SUCCEEDED);
    assert_int_equal(job->attempt, 1);
    fixture_free(job);
}

#define CASE(name) cmocka_unit_test_setup_teardown(test_workers__##name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_worker_deaf_to_cancel_is_killed),
        CASE(a_crash_is_retried_from_the_last_checkpoint),
        CASE(a_poison_job_fails_with_what_the_worker_last_said),
        CASE(every_way_to_die_has_its_reason),
        CASE(hostile_frames_end_the_worker_not_the_daemon),
        CASE(random_frames_end_no_daemon),
        CASE(the_log_of_a_noisy_worker_is_bounded),
        CASE(one_that_was_frozen_together_with_the_daemon_has_not_hung),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
