/*
 * kill -9. The daemon lives in a child process that submits jobs and writes each acknowledged id into a pipe; the child
 * is killed at a random moment; then a daemon is opened on what it left. Nothing acknowledged may be lost or doubled,
 * nothing may be "running" that does not run, and what is trained in the end equals an undisturbed run.
 */
#include "daemon_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "message.h"
#include "process.h"

/* Runs `body` in a child with a daemon of its own on the fixture's folder. The fixture's own must be closed. */
static pid_t in_child(struct fixture *f, void (*body)(struct fixture *f, int pipe), int *out)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct draft_error err = {0};
        f->d = draftd_create(&f->config, &err);
        if (f->d == NULL)
            _exit(1);
        body(f, ends[1]);
        _exit(0);
    }
    close(ends[1]);
    *out = ends[0];
    return pid;
}

static void submit_for_ever(struct fixture *f, int out)
{
    for (int i = 0;; i++) {
        char id[32], request_id[32];
        struct draft_error err = {0};
        snprintf(request_id, sizeof request_id, "r-%d-%d", (int)getpid(), i);
        Draftd__V1__JobSpec *spec = fixture_spec(f, "ms=1", 12);
        if (!fixture_try_submit(f, spec, request_id, id, &err))
            _exit(2);
        fixture_free(spec);
        char line[80];
        int n = snprintf(line, sizeof line, "%s %s\n", id, request_id);
        if (write(out, line, (size_t)n) != n)
            _exit(3);
        usleep(1000);
    }
}

static size_t count_jobs(struct fixture *f)
{
    Draftd__V1__ListJobsRequest request = DRAFTD__V1__LIST_JOBS_REQUEST__INIT;
    Draftd__V1__ListJobsResponse *reply = NULL;
    request.page_size = 1000;
    assert_true(draftd_list_jobs(f->d, &request, &reply, NULL));
    size_t count = reply->n_jobs;
    fixture_free(reply);
    return count;
}

static size_t count_entries(const char *path)
{
    size_t count = 0;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count - 2;
}

static void test_restart__nothing_acknowledged_is_lost_or_doubled_by_kill_9(void **state)
{
    struct fixture *f = *state;
    fixture_close(f);
    srand(7);
    size_t acknowledged = 0;
    char last_id[32] = "", last_request[32] = "";
    for (int round = 0; round < 12; round++) {
        int out;
        pid_t pid = in_child(f, submit_for_ever, &out);
        if (round % 3 > 0) { /* the others are killed while they open */
            struct pollfd first = {.fd = out, .events = POLLIN};
            poll(&first, 1, 10000);
        }
        usleep(30000 + (useconds_t)(rand() % 120000));
        assert_int_equal(kill(pid, SIGKILL), 0);
        int status;
        waitpid(pid, &status, 0);
        assert_true(WIFSIGNALED(status));
        FILE *lines = fdopen(out, "re");
        char id[32], request_id[32];
        while (fscanf(lines, "%31s %31s", id, request_id) == 2) {
            acknowledged++;
            snprintf(last_id, sizeof last_id, "%s", id);
            snprintf(last_request, sizeof last_request, "%s", request_id);
        }
        fclose(lines);
    }
    assert_true(acknowledged >= 8); /* the loop did test something */
    fixture_open(f);
    size_t there = count_jobs(f);
    /* at most one a round was committed without the child living to say so */
    assert_in_range(there, acknowledged, acknowledged + 12);
    if (*last_id) { /* the retry of an acknowledged request makes no second job */
        char id[32];
        Draftd__V1__JobSpec *spec = fixture_spec(f, "ms=1", 12);
        assert_true(fixture_try_submit(f, spec, last_request, id, NULL));
        assert_string_equal(id, last_id);
        fixture_free(spec);
    }
    char jobs[128];
    snprintf(jobs, sizeof jobs, "%s/jobs", f->state);
    assert_int_equal(count_entries(jobs), there); /* no folder without a job */
    char last[32];
    fixture_submit(f, "", 1, last);
    fixture_free(fixture_wait(f, last, SUCCEEDED)); /* it was last in the queue: all others are done too */
    for (size_t i = 1; i <= there; i++) {
        char id[32];
        snprintf(id, sizeof id, "job-%zu", i);
        Draftd__V1__Job *job = fixture_job(f, id);
        assert_int_equal(job->state, SUCCEEDED);
        assert_int_equal(job->progress->step, 12);
        fixture_free(job);
        Draftd__V1__QueryMetricsResponse *points = fixture_points(f, id, "reward");
        assert_int_equal(points->series[0]->n_points, 12);
        fixture_free(points);
    }
}

static void train_one(struct fixture *f, int out)
{
    char id[32];
    if (count_jobs(f) == 0)
        fixture_submit(f, "ms=2", 300, id);
    if (write(out, "x", 1) != 1)
        _exit(3);
    for (;;)
        pause();
}

static void test_restart__training_killed_again_and_again_equals_an_undisturbed_run(void **state)
{
    struct fixture *f = *state;
    fixture_close(f);
    srand(11);
    for (int round = 0; round < 8; round++) {
        int out;
        char byte;
        pid_t pid = in_child(f, train_one, &out);
        assert_int_equal(read(out, &byte, 1), 1);
        usleep(50000 + (useconds_t)(rand() % 100000));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        close(out);
    }
    fixture_open(f);
    char undisturbed[32], path[256];
    Draftd__V1__Job *job = fixture_wait(f, "job-1", SUCCEEDED);
    assert_in_range(job->attempt, 3, 9);
    fixture_free(job);
    fixture_free(fixture_wait(f, fixture_submit(f, "ms=0", 300, undisturbed), SUCCEEDED));
    snprintf(path, sizeof path, "%s/jobs/job-1/checkpoints/step-000300.safetensors", f->state);
    char *one = fixture_read(path);
    snprintf(path, sizeof path, "%s/jobs/%s/checkpoints/step-000300.safetensors", f->state, undisturbed);
    char *two = fixture_read(path);
    assert_string_equal(one, two);
    free(one);
    free(two);
    static const char *const series[] = {"reward", "kl", "loss", "eval/reward", "eval/lpips"};
    for (size_t s = 0; s < 5; s++) {
        Draftd__V1__QueryMetricsResponse *a = fixture_points(f, "job-1", series[s]);
        Draftd__V1__QueryMetricsResponse *b = fixture_points(f, undisturbed, series[s]);
        assert_int_equal(a->series[0]->n_points, b->series[0]->n_points);
        for (size_t i = 0; i < a->series[0]->n_points; i++) {
            assert_int_equal(a->series[0]->points[i]->step, b->series[0]->points[i]->step);
            assert_true(a->series[0]->points[i]->value == b->series[0]->points[i]->value);
        }
        fixture_free(a);
        fixture_free(b);
    }
}

static void start_hanging(struct fixture *f, int out)
{
    char id[32];
    f->config.hang_seconds = 0;
    fixture_submit(f, "ms=20 deaf", 100000, id);
    fixture_free(fixture_wait(f, id, RUNNING));
    if (write(out, "x", 1) != 1)
        _exit(3);
    for (;;)
        pause();
}

/* The first child of any thread of a process; 0 when there is none or the kernel does not say. */
static int child_of(pid_t pid)
{
    char folder[64], path[400], text[64];
    int child = 0;
    snprintf(folder, sizeof folder, "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(folder);
    assert_non_null(tasks);
    for (struct dirent *task; child == 0 && (task = readdir(tasks));) {
        snprintf(path, sizeof path, "%s/%s/children", folder, task->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        ssize_t n = read(fd, text, sizeof text - 1);
        close(fd);
        text[n > 0 ? n : 0] = '\0';
        child = atoi(text);
    }
    closedir(tasks);
    return child;
}

/* A worker that does not notice the daemon's end (here: stopped by SIGSTOP) is ended by the next one. */
static void test_restart__a_stale_worker_is_ended_before_its_job_goes_on(void **state)
{
    struct fixture *f = *state;
    fixture_close(f);
    int out;
    char byte;
    pid_t pid = in_child(f, start_hanging, &out);
    assert_int_equal(read(out, &byte, 1), 1);
    struct draft_error err = {0};
    int worker = child_of(pid);
    if (worker == 0) { /* a kernel without CONFIG_PROC_CHILDREN */
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        close(out);
        fixture_open(f);
        skip();
    }
    char path[64];
    kill(worker, SIGSTOP);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(out);
    assert_int_equal(kill(worker, 0), 0);
    f->d = draftd_create(&f->config, &err);
    assert_non_null(f->d);
    snprintf(path, sizeof path, "/proc/%d/stat", worker);
    char *stat = fixture_read(path);
    if (stat) /* a zombie at most, until its new parent looks */
        assert_non_null(strstr(stat, ") Z"));
    free(stat);
    fixture_free(fixture_wait(f, "job-1", RUNNING));
}

static void test_restart__cancelling_ends_in_cancelled(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_submit(f, "deaf ms=20", 100000, id);
    fixture_free(fixture_wait(f, id, RUNNING));
    Draftd__V1__Job *job = NULL;
    assert_true(draftd_cancel_job(f->d, id, &job, NULL));
    assert_int_equal(job->state, CANCELLING);
    fixture_free(job);
    fixture_close(f);
    fixture_open(f);
    assert_int_equal(fixture_state(f, id), CANCELLED);
}

static void test_restart__files_that_nothing_names_are_swept(void **state)
{
    struct fixture *f = *state;
    char id[32], path[256];
    fixture_submit(f, "", 10, id);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    Draftd__V1__CreatePreviewRequest request = DRAFTD__V1__CREATE_PREVIEW_REQUEST__INIT;
    Draftd__V1__Preview *preview = NULL;
    request.job_id = id;
    assert_true(draftd_create_preview(f->d, &request, &preview, NULL));
    fixture_free(preview);
    fixture_free(fixture_wait_preview(f, "preview-1", DRAFTD__V1__PREVIEW__STATE__STATE_SUCCEEDED));
    fixture_close(f);
    snprintf(path, sizeof path, "%s/jobs/job-1/previews/preview-99", f->state);
    assert_int_equal(mkdir(path, 0700), 0);
    static const char *const orphans[] = {"jobs/job-1/checkpoints/step-000007.safetensors",
                                          "jobs/job-1/checkpoints/step-000010.safetensors.tmp",
                                          "incoming/left",
                                          "exports/left.safetensors",
                                          "jobs/job-1/previews/preview-99/0.png",
                                          "jobs/job-1/previews/preview-1/0.png.tmp"};
    for (size_t i = 0; i < sizeof orphans / sizeof orphans[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", f->state, orphans[i]);
        fixture_write(path, "left by a crash");
    }
    fixture_open(f);
    for (size_t i = 0; i < sizeof orphans / sizeof orphans[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", f->state, orphans[i]);
        assert_int_not_equal(access(path, F_OK), 0);
    }
    snprintf(path, sizeof path, "%s/jobs/job-1/previews/preview-99", f->state);
    assert_int_not_equal(access(path, F_OK), 0);
    snprintf(path, sizeof path, "%s/jobs/job-1/previews/preview-1/0.png", f->state);
    assert_int_equal(access(path, F_OK), 0);
    snprintf(path, sizeof path, "%s/jobs/job-1/checkpoints/step-000010.safetensors", f->state);
    assert_int_equal(access(path, F_OK), 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(test_restart__##name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(nothing_acknowledged_is_lost_or_doubled_by_kill_9),
        CASE(training_killed_again_and_again_equals_an_undisturbed_run),
        CASE(a_stale_worker_is_ended_before_its_job_goes_on),
        CASE(cancelling_ends_in_cancelled),
        CASE(files_that_nothing_names_are_swept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
