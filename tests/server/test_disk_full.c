/*
 * A full disk, made by standing in front of the C library's write functions: while `full` is set, regular files refuse
 * to grow with ENOSPC. Jobs stop with their checkpoint, requests are refused with a sentence, the daemon lives, and all
 * goes on when there is room again.
 */
#include "daemon_fixture.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "message.h"

static atomic_bool full;
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static ssize_t (*real_write)(int, const void *, size_t);

__attribute__((constructor)) static void find_real(void)
{
    *(void **)&real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    *(void **)&real_write = dlsym(RTLD_NEXT, "write");
}

static bool refuses(int fd)
{
    struct stat st;
    return atomic_load(&full) && fd > STDERR_FILENO && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

/* Found by the dynamic linker before the C library's: SQLite's writes come here, and those of draft_atomic_write(). */
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset);
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    if (refuses(fd)) {
        errno = ENOSPC;
        return -1;
    }
    return real_pwrite(fd, data, size, offset);
}

ssize_t write(int fd, const void *data, size_t size)
{
    if (refuses(fd)) {
        errno = ENOSPC;
        return -1;
    }
    return real_write(fd, data, size);
}

static int teardown(void **state)
{
    atomic_store(&full, false);
    return fixture_teardown(state);
}

static void test_disk_full__training_pauses_and_goes_on_when_there_is_room(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_submit(f, "ms=5", 100, id);
    fixture_wait_step(f, id, 12);
    atomic_store(&full, true);
    Draftd__V1__Job *job = fixture_wait(f, id, PAUSED); /* shown although the database cannot take it */
    assert_string_equal(job->reason_code, "DISK_FULL");
    assert_non_null(strstr(job->reason, "disk of the state folder is full"));
    fixture_free(job);
    Draftd__V1__GetServerInfoResponse *info = NULL;
    assert_true(draftd_server_info(f->d, &info, NULL)); /* alive */
    assert_int_equal(info->running_jobs, 0);
    fixture_free(info);
    struct draft_error err = {0};
    assert_false(draftd_resume_job(f->d, id, 5000, &job, &err));
    assert_int_equal(err.code, DRAFT_UNAVAILABLE);
    err = (struct draft_error){0};
    assert_false(draftd_delete_job(f->d, id, &err));

    atomic_store(&full, false);
    err = (struct draft_error){0};
    int64_t deadline = draftd_now_ms() + 10000;
    while (!draftd_resume_job(f->d, id, 5000, &job, &err)) {
        assert_int_equal(err.code, DRAFT_UNAVAILABLE);
        assert_true(draftd_now_ms() < deadline);
        err = (struct draft_error){0};
        usleep(50000);
    }
    fixture_free(job);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    Draftd__V1__QueryMetricsResponse *points = fixture_points(f, id, "reward");
    assert_int_equal(points->series[0]->n_points, 100);
    fixture_free(points);
}

static void test_disk_full__a_submit_is_refused_and_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    char id[32];
    struct draft_error err = {0};
    Draftd__V1__JobSpec *spec = fixture_spec(f, "", 5);
    atomic_store(&full, true);
    assert_false(fixture_try_submit(f, spec, "again", id, &err));
    assert_int_equal(err.code, DRAFT_DISK_FULL);
    atomic_store(&full, false);
    assert_true(fixture_try_submit(f, spec, "again", id, NULL));
    assert_string_equal(id, "job-1");
    fixture_free(spec);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
}

static void test_disk_full__a_cancel_that_cannot_be_recorded_is_not_acknowledged(void **state)
{
    struct fixture *f = *state;
    char running[32], queued[32];
    fixture_submit(f, "ms=200", 1000, running);
    fixture_free(fixture_wait(f, running, RUNNING));
    fixture_submit(f, "", 5, queued);
    Draftd__V1__Job *job = NULL;
    struct draft_error err = {0};
    atomic_store(&full, true);
    assert_false(draftd_cancel_job(f->d, queued, &job, &err));
    assert_int_equal(err.code, DRAFT_DISK_FULL);
    assert_int_equal(fixture_state(f, queued), QUEUED);
    atomic_store(&full, false);
    assert_true(draftd_cancel_job(f->d, queued, &job, NULL));
    fixture_free(job);
}

static void test_disk_full__a_kill_while_it_is_full_loses_no_job(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_submit(f, "ms=5", 100, id);
    fixture_wait_step(f, id, 12);
    atomic_store(&full, true);
    fixture_free(fixture_wait(f, id, PAUSED));
    fixture_close(f); /* the pause was never recorded */
    atomic_store(&full, false);
    fixture_open(f);
    fixture_free(fixture_wait(f, id, SUCCEEDED)); /* so it went on by itself */
}

#define CASE(name) cmocka_unit_test_setup_teardown(test_disk_full__##name, fixture_setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(training_pauses_and_goes_on_when_there_is_room),
        CASE(a_submit_is_refused_and_leaves_nothing),
        CASE(a_cancel_that_cannot_be_recorded_is_not_acknowledged),
        CASE(a_kill_while_it_is_full_loses_no_job),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
