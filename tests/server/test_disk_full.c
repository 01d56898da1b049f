/*
 * A full disk, made by standing in front of the C library's functions: while `full` is set, regular files refuse to
 * grow with ENOSPC (or EDQUOT), for good or until the daemon has given up its reserve; `room` is what statvfs() says is
 * free. Jobs stop with their checkpoint, requests are refused with a sentence, the daemon lives, and all goes on when
 * there is room again.
 */
#include "daemon_fixture.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "message.h"
#include "space.h"

static atomic_int refusal = ENOSPC;
enum { NOT_FULL, FULL, FULL_BUT_FOR_RESERVE };
static atomic_int full;
static atomic_llong room = -1; /* bytes; -1: what the disk really has */
static char reserve[128];
static int (*real_statvfs)(const char *, struct statvfs *);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static ssize_t (*real_write)(int, const void *, size_t);

__attribute__((constructor)) static void find_real(void)
{
    *(void **)&real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    *(void **)&real_write = dlsym(RTLD_NEXT, "write");
    *(void **)&real_statvfs = dlsym(RTLD_NEXT, "statvfs");
}

static bool refuses(int fd)
{
    struct stat st;
    if (atomic_load(&full) == FULL_BUT_FOR_RESERVE && access(reserve, F_OK) != 0)
        return false;
    return atomic_load(&full) != NOT_FULL && fd > STDERR_FILENO && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

/* Found by the dynamic linker before the C library's: SQLite's writes come here, and those of draft_atomic_write(). */
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset);
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    if (refuses(fd)) {
        errno = atomic_load(&refusal);
        return -1;
    }
    return real_pwrite(fd, data, size, offset);
}

ssize_t write(int fd, const void *data, size_t size)
{
    if (refuses(fd)) {
        errno = atomic_load(&refusal);
        return -1;
    }
    return real_write(fd, data, size);
}

int statvfs(const char *path, struct statvfs *disk)
{
    int rc = real_statvfs(path, disk);
    if (rc == 0 && atomic_load(&room) >= 0) {
        disk->f_frsize = 1;
        disk->f_bavail = (fsblkcnt_t)atomic_load(&room);
    }
    return rc;
}

static int setup(void **state)
{
    if (fixture_setup(state) != 0)
        return -1;
    struct fixture *f = *state;
    snprintf(reserve, sizeof reserve, "%s/reserve", f->state);
    return 0;
}

static int teardown(void **state)
{
    atomic_store(&full, NOT_FULL);
    atomic_store(&room, -1);
    atomic_store(&refusal, ENOSPC);
    return fixture_teardown(state);
}

static void test_disk_full__training_pauses_and_goes_on_when_there_is_room(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_submit(f, "ms=5", 100, id);
    fixture_wait_step(f, id, 12);
    atomic_store(&full, FULL);
    Draftd__V1__Job *job = fixture_wait(f, id, PAUSED); /* shown although the database cannot take it */
    assert_string_equal(job->reason_code, "DISK_FULL");
    assert_non_null(strstr(job->reason, "disk of the state folder is full"));
    fixture_free(job);
    Draftd__V1__GetServerInfoResponse *info = NULL;
    assert_true(draftd_server_info(f->d, &info, NULL)); /* alive */
    assert_int_equal(info->running_jobs, 0);
    fixture_free(info);
    struct draft_error err = {0};
    assert_false(draftd_resume_job(f->d, id, draftd_within(FIXTURE_MS), &job, &err));
    assert_int_equal(err.code, DRAFT_UNAVAILABLE);
    err = (struct draft_error){0};
    assert_false(draftd_delete_job(f->d, id, &err));

    atomic_store(&full, NOT_FULL);
    err = (struct draft_error){0};
    int polls = 0;
    while (!draftd_resume_job(f->d, id, draftd_within(FIXTURE_MS), &job, &err)) {
        assert_int_equal(err.code, DRAFT_UNAVAILABLE);
        assert_true(fixture_patient(&polls));
        err = (struct draft_error){0};
    }
    fixture_free(job);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    Draftd__V1__QueryMetricsResponse *points = fixture_points(f, id, "reward");
    assert_int_equal(points->series[0]->n_points, 100);
    fixture_free(points);
}

static void test_disk_full__a_quota_used_up_is_a_full_disk_and_said_to_be_a_quota(void **state)
{
    struct fixture *f = *state;
    char id[32], queued[32];
    fixture_submit(f, "ms=5", 100, id);
    fixture_submit(f, "", 5, queued);
    fixture_wait_step(f, id, 12);
    atomic_store(&refusal, EDQUOT);
    atomic_store(&full, FULL);
    Draftd__V1__Job *job = fixture_wait(f, id, PAUSED);
    assert_string_equal(job->reason_code, "DISK_FULL");
    assert_non_null(strstr(job->reason, "disk quota exceeded"));
    fixture_free(job);
    struct draft_error err = {0};
    assert_false(draftd_cancel_job(f->d, queued, &job, &err));
    assert_int_equal(err.code, DRAFT_DISK_FULL);
    assert_non_null(strstr(err.message, "disk quota exceeded"));
}

static void test_disk_full__a_submit_is_refused_and_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    char id[32];
    struct draft_error err = {0};
    Draftd__V1__JobSpec *spec = fixture_spec(f, "", 5);
    atomic_store(&full, FULL);
    assert_false(fixture_try_submit(f, spec, "again", id, &err));
    assert_int_equal(err.code, DRAFT_DISK_FULL);
    atomic_store(&full, NOT_FULL);
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
    atomic_store(&full, FULL);
    assert_false(draftd_cancel_job(f->d, queued, &job, &err));
    assert_int_equal(err.code, DRAFT_DISK_FULL);
    assert_int_equal(fixture_state(f, queued), QUEUED);
    atomic_store(&full, NOT_FULL);
    assert_true(draftd_cancel_job(f->d, queued, &job, NULL));
    fixture_free(job);
}

static void test_disk_full__a_kill_while_it_is_full_loses_no_job(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_submit(f, "ms=5", 100, id);
    fixture_wait_step(f, id, 12);
    atomic_store(&full, FULL);
    fixture_free(fixture_wait(f, id, PAUSED));
    fixture_close(f); /* the pause was never recorded */
    atomic_store(&full, NOT_FULL);
    fixture_open(f);
    fixture_free(fixture_wait(f, id, SUCCEEDED)); /* so it went on by itself */
}

#define CASE(name) cmocka_unit_test_setup_teardown(test_disk_full__##name, setup, teardown)

static void wake(void *context)
{
    atomic_store((atomic_bool *)context, true);
}

/* Reads on until an event's job is paused; its kind. */
static Draftd__V1__JobEvent__Kind told_paused(struct draftd_watcher *watcher, atomic_bool *woken)
{
    int polls = 0;
    for (;;) {
        ProtobufCMessage *message = NULL;
        bool end;
        assert_true(draftd_watch_next(watcher, &message, &end, NULL));
        assert_false(end);
        if (message) {
            const Draftd__V1__JobEvent *event = ((Draftd__V1__WatchJobsResponse *)message)->event;
            Draftd__V1__JobEvent__Kind kind = event ? event->kind : DRAFTD__V1__JOB_EVENT__KIND__KIND_UNSPECIFIED;
            bool paused = event && event->job && event->job->state == PAUSED;
            if (paused)
                assert_string_equal(event->job->reason_code, "DISK_FULL");
            fixture_free(message);
            if (paused)
                return kind;
        } else if (!atomic_exchange(woken, false)) {
            assert_true(fixture_patient(&polls));
        }
    }
}

static void test_disk_full__watchers_are_told_what_cannot_be_recorded(void **state)
{
    struct fixture *f = *state;
    char id[32];
    atomic_bool woken = false;
    fixture_submit(f, "ms=5", 1000, id);
    fixture_wait_step(f, id, 12);
    struct draftd_watcher *watcher = draftd_watch(f->d, id, NULL, 0, wake, &woken, NULL);
    assert_non_null(watcher);
    atomic_store(&full, FULL);
    assert_int_equal(told_paused(watcher, &woken), DRAFTD__V1__JOB_EVENT__KIND__KIND_PROGRESS);
    atomic_store(&full, NOT_FULL);
    assert_int_equal(told_paused(watcher, &woken), DRAFTD__V1__JOB_EVENT__KIND__KIND_STATE);
    draftd_unwatch(watcher);
}

static void test_disk_full__the_reserve_lets_the_pause_be_recorded(void **state)
{
    struct fixture *f = *state;
    char id[32];
    struct stat st;
    atomic_bool woken = false;
    int polls = 0;
    while (stat(reserve, &st) != 0 || st.st_blocks * 512 < DRAFTD_RESERVE_BYTES)
        assert_true(fixture_patient(&polls));
    fixture_submit(f, "ms=5", 1000, id);
    fixture_wait_step(f, id, 12);
    struct draftd_watcher *watcher = draftd_watch(f->d, id, NULL, 0, wake, &woken, NULL);
    atomic_store(&full, FULL_BUT_FOR_RESERVE);
    assert_int_equal(told_paused(watcher, &woken), DRAFTD__V1__JOB_EVENT__KIND__KIND_STATE);
    assert_int_equal(stat(reserve, &st), -1);
    draftd_unwatch(watcher);
    fixture_close(f); /* killed: it is on disk all the same */
    atomic_store(&full, NOT_FULL);
    fixture_open(f);
    assert_int_equal(fixture_state(f, id), PAUSED);
    assert_int_equal(stat(reserve, &st), 0); /* made again where there is room */
}

static void test_disk_full__a_job_that_would_not_fit_is_refused_before_it_starts(void **state)
{
    struct fixture *f = *state;
    char running[32], queued[32];
    Draftd__V1__JobSpec *spec = fixture_spec(f, "", 5);
    struct draft_error err = {0};
    atomic_store(&room, 1 << 20);
    assert_false(fixture_try_submit(f, spec, "", queued, &err));
    assert_int_equal(err.code, DRAFT_DISK_FULL);
    assert_non_null(strstr(err.message, "are needed"));
    assert_non_null(strstr(err.message, "1.0 MiB are free"));
    assert_non_null(strstr(err.message, f->state));
    fixture_free(spec);

    atomic_store(&room, -1);
    fixture_submit(f, "ms=20", 10, running);
    fixture_submit(f, "", 5, queued);
    atomic_store(&room, 1 << 20);
    fixture_free(fixture_wait(f, running, SUCCEEDED)); /* it had begun */
    Draftd__V1__Job *job = fixture_wait(f, queued, PAUSED);
    assert_string_equal(job->reason_code, "DISK_FULL");
    assert_non_null(strstr(job->reason, "1.0 MiB are free"));
    fixture_free(job);
    err = (struct draft_error){0};
    assert_false(draftd_resume_job(f->d, queued, draftd_within(FIXTURE_MS), &job, &err));
    assert_int_equal(err.code, DRAFT_DISK_FULL);
    atomic_store(&room, -1);
    assert_true(draftd_resume_job(f->d, queued, draftd_within(FIXTURE_MS), &job, NULL));
    fixture_free(job);
    fixture_free(fixture_wait(f, queued, SUCCEEDED));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(training_pauses_and_goes_on_when_there_is_room),
        CASE(a_quota_used_up_is_a_full_disk_and_said_to_be_a_quota),
        CASE(a_submit_is_refused_and_leaves_nothing),
        CASE(a_cancel_that_cannot_be_recorded_is_not_acknowledged),
        CASE(a_kill_while_it_is_full_loses_no_job),
        CASE(watchers_are_told_what_cannot_be_recorded),
        CASE(the_reserve_lets_the_pause_be_recorded),
        CASE(a_job_that_would_not_fit_is_refused_before_it_starts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
