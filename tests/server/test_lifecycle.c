/* The life of jobs with the fake worker: success, pause, cancel, resume, the queue, checkpoints, deletion, drain. */
#include "daemon_fixture.h"

#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_lifecycle__a_job_is_trained_to_its_end(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_submit(f, "", 20, id);
    assert_string_equal(id, "job-1");
    Draftd__V1__Job *job = fixture_wait(f, id, SUCCEEDED);
    assert_int_equal(job->progress->step, 20);
    assert_int_equal(job->progress->total_steps, 20);
    assert_int_equal(job->attempt, 1);
    assert_int_equal(job->prompt_count, 4);
    assert_int_equal(job->trained_parameters, 1234);
    assert_int_equal(job->picture_height, 64);
    assert_true(job->start_time_us >= job->create_time_us && job->end_time_us >= job->start_time_us);
    assert_true(job->progress->kl == 0.2); /* the fake's: step / 100 */
    assert_true(job->progress->seconds_per_step == 0.002);
    assert_string_equal(job->reason, "");
    fixture_free(job);

    Draftd__V1__ListCheckpointsResponse *list = NULL;
    assert_true(draftd_list_checkpoints(f->d, id, &list, NULL));
    assert_int_equal(list->n_checkpoints, 3); /* of 5, 10, 15, 20 the newest three */
    assert_int_equal(list->checkpoints[0]->step, 10);
    assert_int_equal(list->checkpoints[2]->step, 20);
    fixture_free(list);
    char path[256];
    snprintf(path, sizeof path, "%s/jobs/job-1/checkpoints/step-000005.safetensors", f->state);
    assert_int_not_equal(access(path, F_OK), 0);
}

static void test_lifecycle__pause_frees_the_device_and_resume_goes_on(void **state)
{
    struct fixture *f = *state;
    char id[32], other[32], undisturbed[32];
    fixture_submit(f, "ms=5", 60, id);
    fixture_wait_step(f, id, 12);
    Draftd__V1__Job *job = NULL;
    struct draft_error err = {0};
    if (!draftd_pause_job(f->d, id, draftd_within(FIXTURE_MS), &job, &err))
        fail_msg("%s", err.message);
    assert_int_equal(job->state, PAUSED);
    int64_t at = job->progress->step;
    assert_in_range(at, 12, 59);
    fixture_free(job);
    fixture_free(fixture_wait(f, fixture_submit(f, "", 5, other), SUCCEEDED));      /* the device is free */
    assert_true(draftd_pause_job(f->d, id, draftd_within(FIXTURE_MS), &job, &err)); /* pausing twice is pausing */
    fixture_free(job);
    if (!draftd_resume_job(f->d, id, draftd_within(FIXTURE_MS), &job, &err))
        fail_msg("%s", err.message);
    fixture_free(job);
    job = fixture_wait(f, id, SUCCEEDED);
    assert_int_equal(job->attempt, 2);
    fixture_free(job);

    /* the same job left alone: equal checkpoint, equal points */
    fixture_free(fixture_wait(f, fixture_submit(f, "", 60, undisturbed), SUCCEEDED));
    char path[256];
    snprintf(path, sizeof path, "%s/jobs/%s/checkpoints/step-000060.safetensors", f->state, id);
    char *one = fixture_read(path);
    snprintf(path, sizeof path, "%s/jobs/%s/checkpoints/step-000060.safetensors", f->state, undisturbed);
    char *two = fixture_read(path);
    assert_string_equal(one, two);
    free(one);
    free(two);
    Draftd__V1__QueryMetricsResponse *a = fixture_points(f, id, "reward"),
                                     *b = fixture_points(f, undisturbed, "reward");
    assert_int_equal(a->series[0]->n_points, 60);
    assert_int_equal(b->series[0]->n_points, 60);
    for (size_t i = 0; i < 60; i++) {
        assert_int_equal(a->series[0]->points[i]->step, b->series[0]->points[i]->step);
        assert_true(a->series[0]->points[i]->value == b->series[0]->points[i]->value);
    }
    assert_int_equal(a->series[0]->points[at]->attempt, 2);
    assert_int_equal(a->series[0]->points[at - 1]->attempt, 1);
    fixture_free(a);
    fixture_free(b);
}

static void test_lifecycle__pause_of_a_queued_job_takes_it_out_of_the_queue(void **state)
{
    struct fixture *f = *state;
    char first[32], second[32];
    fixture_submit(f, "ms=20", 1000, first);
    fixture_submit(f, "", 5, second);
    Draftd__V1__Job *job = NULL;
    assert_true(draftd_pause_job(f->d, second, draftd_within(FIXTURE_MS), &job, NULL));
    assert_int_equal(job->state, PAUSED);
    assert_int_equal(job->queue_position, 0);
    fixture_free(job);
}

static void test_lifecycle__a_queued_job_says_why_it_waits(void **state)
{
    struct fixture *f = *state;
    char first[32], second[32], third[32];
    fixture_submit(f, "ms=20", 1000, first);
    fixture_free(fixture_wait(f, first, RUNNING));
    fixture_submit(f, "", 5, second);
    fixture_submit(f, "", 5, third);
    Draftd__V1__Job *job = fixture_job(f, second);
    assert_int_equal(job->state, QUEUED);
    assert_string_equal(job->reason, "waits for cpu: job-1 is running");
    assert_int_equal(job->queue_position, 1);
    fixture_free(job);
    job = fixture_job(f, third);
    assert_int_equal(job->queue_position, 2);
    fixture_free(job);
    assert_true(draftd_cancel_job(f->d, first, &job, NULL));
    fixture_free(job);
    fixture_free(fixture_wait(f, second, SUCCEEDED));
    fixture_free(fixture_wait(f, third, SUCCEEDED));
}

static void test_lifecycle__cancel_ends_queued_jobs_at_once_and_running_ones_soon(void **state)
{
    struct fixture *f = *state;
    char running[32], queued[32];
    fixture_submit(f, "ms=20", 1000, running);
    fixture_submit(f, "", 5, queued);
    fixture_wait_step(f, running, 7);
    Draftd__V1__Job *job = NULL;
    assert_true(draftd_cancel_job(f->d, queued, &job, NULL));
    assert_int_equal(job->state, CANCELLED);
    assert_int_equal(job->start_time_us, 0);
    fixture_free(job);
    assert_true(draftd_cancel_job(f->d, running, &job, NULL));
    assert_true(job->state == CANCELLING || job->state == CANCELLED);
    fixture_free(job);
    fixture_free(fixture_wait(f, running, CANCELLED));
    Draftd__V1__ListCheckpointsResponse *list = NULL;
    assert_true(draftd_list_checkpoints(f->d, running, &list, NULL)); /* its last checkpoint is kept */
    assert_true(list->n_checkpoints >= 1);
    fixture_free(list);
    struct draft_error err = {0};
    assert_false(draftd_cancel_job(f->d, running, &job, &err));
    assert_int_equal(err.code, DRAFT_FAILED_PRECONDITION);
}

static void test_lifecycle__a_full_disk_pauses_the_job_with_its_checkpoint(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_submit(f, "full@8", 20, id);
    Draftd__V1__Job *job = fixture_wait(f, id, PAUSED);
    assert_string_equal(job->reason_code, "DISK_FULL");
    fixture_free(job);
    assert_true(draftd_resume_job(f->d, id, draftd_within(FIXTURE_MS), &job, NULL));
    fixture_free(job);
    job = fixture_wait(f, id, SUCCEEDED);
    assert_string_equal(job->reason_code, "");
    fixture_free(job);
}

static void test_lifecycle__a_failed_job_resumes_from_its_checkpoint(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_submit(f, "nonfinite@8", 20, id);
    fixture_free(fixture_wait(f, id, FAILED));
    Draftd__V1__Job *job = NULL;
    assert_true(draftd_resume_job(f->d, id, draftd_within(FIXTURE_MS), &job, NULL));
    fixture_free(job);
    job = fixture_wait(f, id, SUCCEEDED);
    assert_int_equal(job->attempt, 2);
    fixture_free(job);
    struct draft_error err = {0};
    assert_false(draftd_resume_job(f->d, id, draftd_within(FIXTURE_MS), &job, &err));
    assert_int_equal(err.code, DRAFT_FAILED_PRECONDITION);
}

static void test_lifecycle__changed_weights_are_refused_at_resume(void **state)
{
    struct fixture *f = *state;
    char id[32], path[128];
    fixture_submit(f, "nonfinite@8", 20, id);
    fixture_free(fixture_wait(f, id, FAILED));
    snprintf(path, sizeof path, "%s/weights", f->model);
    fixture_write(path, "other weights");
    Draftd__V1__Job *job = NULL;
    struct draft_error err = {0};
    assert_false(draftd_resume_job(f->d, id, draftd_within(FIXTURE_MS), &job, &err));
    assert_int_equal(err.code, DRAFT_FAILED_PRECONDITION);
    assert_non_null(strstr(err.message, "WEIGHTS_CHANGED"));
    assert_int_equal(fixture_state(f, id), FAILED);
    fixture_write(path, "the weights");
    assert_true(draftd_resume_job(f->d, id, draftd_within(FIXTURE_MS), &job, NULL));
    fixture_free(job);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
}

static void test_lifecycle__weights_changed_while_it_waited_fail_the_job(void **state)
{
    struct fixture *f = *state;
    char first[32], id[32], path[128];
    fixture_submit(f, "ms=20", 1000, first);
    fixture_free(fixture_wait(f, first, RUNNING));
    fixture_submit(f, "", 5, id);
    snprintf(path, sizeof path, "%s/weights", f->model);
    fixture_write(path, "other weights");
    Draftd__V1__Job *job = NULL;
    assert_true(draftd_cancel_job(f->d, first, &job, NULL));
    fixture_free(job);
    job = fixture_wait(f, id, FAILED);
    assert_string_equal(job->reason_code, "WEIGHTS_CHANGED");
    assert_int_equal(job->attempt, 1); /* trying again would not help */
    fixture_free(job);
}

static void test_lifecycle__pause_and_cancel_reach_a_job_that_still_loads(void **state)
{
    struct fixture *f = *state;
    char id[32];
    Draftd__V1__Job *job = NULL;
    struct draft_error err = {0};
    fixture_submit(f, "load", 10, id);
    fixture_free(fixture_wait(f, id, PREPARING));
    if (!draftd_pause_job(f->d, id, draftd_within(FIXTURE_MS), &job, &err))
        fail_msg("%s", err.message);
    assert_int_equal(job->state, PAUSED);
    fixture_free(job);
    assert_true(draftd_resume_job(f->d, id, draftd_within(FIXTURE_MS), &job, NULL));
    fixture_free(job);
    fixture_free(fixture_wait(f, id, PREPARING));
    assert_true(draftd_cancel_job(f->d, id, &job, NULL));
    fixture_free(job);
    fixture_free(fixture_wait(f, id, CANCELLED));
}

static void test_lifecycle__a_pause_that_cannot_be_waited_for_still_happens(void **state)
{
    struct fixture *f = *state;
    char id[32];
    Draftd__V1__Job *job = NULL;
    struct draft_error err = {0};
    fixture_submit(f, "ms=300", 10, id);
    fixture_free(fixture_wait(f, id, RUNNING));
    assert_false(draftd_pause_job(f->d, id, draftd_within(1), &job, &err));
    assert_int_equal(err.code, DRAFT_UNAVAILABLE);
    fixture_free(fixture_wait(f, id, PAUSED));
}

static void test_lifecycle__a_damaged_checkpoint_is_passed_over(void **state)
{
    struct fixture *f = *state;
    char id[32], path[256];
    fixture_submit(f, "nonfinite@13", 20, id);
    fixture_free(fixture_wait(f, id, FAILED));
    snprintf(path, sizeof path, "%s/jobs/%s/checkpoints/step-000010.safetensors", f->state, id);
    char *text = fixture_read(path);
    text[5] ^= 1; /* the same size, another step */
    fixture_write(path, text);
    free(text);
    Draftd__V1__Job *job = NULL;
    assert_true(draftd_resume_job(f->d, id, draftd_within(FIXTURE_MS), &job, NULL));
    fixture_free(job);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    Draftd__V1__QueryMetricsResponse *points = fixture_points(f, id, "reward");
    assert_int_equal(points->series[0]->points[4]->attempt, 1); /* step 5 */
    assert_int_equal(points->series[0]->points[5]->attempt, 2); /* step 6: it went on from step 5 */
    fixture_free(points);
}

/* A link to itself (ELOOP) stands for what passes: too many open files, no memory, no permission. */
static void test_lifecycle__a_checkpoint_that_cannot_be_looked_at_is_waited_for(void **state)
{
    struct fixture *f = *state;
    char id[32], path[256], aside[300];
    fixture_submit(f, "nonfinite@13", 20, id);
    fixture_free(fixture_wait(f, id, FAILED));
    snprintf(path, sizeof path, "%s/jobs/%s/checkpoints/step-000010.safetensors", f->state, id);
    snprintf(aside, sizeof aside, "%s/aside", f->state); /* not beside it, where it would be swept */
    assert_int_equal(rename(path, aside), 0);
    assert_int_equal(symlink(path, path), 0);
    Draftd__V1__Job *job = NULL;
    assert_true(draftd_resume_job(f->d, id, draftd_within(FIXTURE_MS), &job, NULL));
    for (int polls = 0; strstr(job->reason, "cannot look at") == NULL;) {
        fixture_free(job);
        assert_true(fixture_patient(&polls));
        assert_true(draftd_get_job(f->d, id, &job, NULL));
        assert_int_equal(job->state, QUEUED);
    }
    fixture_free(job);
    assert_int_equal(rename(aside, path), 0);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    Draftd__V1__QueryMetricsResponse *points = fixture_points(f, id, "reward");
    assert_int_equal(points->series[0]->points[9]->attempt, 1); /* step 10 */
    assert_int_equal(points->series[0]->points[10]->attempt, 2);
    fixture_free(points);
}

/* Reading 1 GiB takes longer than a submit, which needs the daemon's thread: that hears the inspecting worker. */
static void test_lifecycle__the_daemon_answers_while_a_large_checkpoint_is_read(void **state)
{
    struct fixture *f = *state;
    char id[32], other[32];
    fixture_submit(f, "large@10 nonfinite@13", 20, id);
    fixture_free(fixture_wait(f, id, FAILED));
    Draftd__V1__Job *job = NULL;
    assert_true(draftd_resume_job(f->d, id, draftd_within(FIXTURE_MS), &job, NULL));
    fixture_free(job);
    fixture_submit(f, "", 5, other);
    assert_true(draftd_get_job(f->d, id, &job, NULL));
    assert_int_equal(job->state, QUEUED); /* still being read */
    fixture_free(job);
    fixture_free(fixture_wait(f, id, SUCCEEDED)); /* from step 5: the large one is damaged */
    fixture_free(fixture_wait(f, other, SUCCEEDED));
}

static void test_lifecycle__a_full_queue_refuses_with_a_sentence(void **state)
{
    struct fixture *f = *state;
    fixture_close(f);
    f->config.max_queue = 2;
    fixture_open(f);
    char id[32];
    fixture_submit(f, "ms=20", 1000, id);
    fixture_free(fixture_wait(f, id, RUNNING));
    fixture_submit(f, "", 5, id);
    fixture_submit(f, "", 5, id);
    struct draft_error err = {0};
    Draftd__V1__JobSpec *spec = fixture_spec(f, "", 5);
    assert_false(fixture_try_submit(f, spec, "", id, &err));
    assert_int_equal(err.code, DRAFT_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(err.message, "2 jobs wait"));
    fixture_free(spec);
}

static void test_lifecycle__delete_removes_rows_and_files(void **state)
{
    struct fixture *f = *state;
    char id[32], path[256];
    fixture_submit(f, "ms=20", 1000, id);
    fixture_free(fixture_wait(f, id, RUNNING));
    struct draft_error err = {0};
    assert_false(draftd_delete_job(f->d, id, &err));
    assert_int_equal(err.code, DRAFT_FAILED_PRECONDITION);
    Draftd__V1__Job *job = NULL;
    assert_true(draftd_cancel_job(f->d, id, &job, NULL));
    fixture_free(job);
    fixture_free(fixture_wait(f, id, CANCELLED));
    assert_true(draftd_delete_job(f->d, id, NULL));
    snprintf(path, sizeof path, "%s/jobs/%s", f->state, id);
    assert_int_not_equal(access(path, F_OK), 0);
    err = (struct draft_error){0};
    assert_false(draftd_get_job(f->d, id, &job, &err));
    assert_int_equal(err.code, DRAFT_NOT_FOUND);
    Draftd__V1__ListMetricsResponse *series = NULL;
    assert_false(draftd_list_metrics(f->d, id, &series, NULL));
    char next[32];
    fixture_submit(f, "", 5, next);
    assert_string_equal(next, "job-2"); /* an id is never used again */
}

static void test_lifecycle__a_checkpoint_on_request_is_on_disk_when_named(void **state)
{
    struct fixture *f = *state;
    char id[32], path[256];
    fixture_submit(f, "ms=20", 1000, id);
    fixture_wait_step(f, id, 1);
    Draftd__V1__Checkpoint *checkpoint = NULL;
    struct draft_error err = {0};
    if (!draftd_create_checkpoint(f->d, id, draftd_within(FIXTURE_MS), &checkpoint, &err))
        fail_msg("%s", err.message);
    snprintf(path, sizeof path, "%s/jobs/%s/checkpoints/step-%06lld.safetensors", f->state, id,
             (long long)checkpoint->step);
    assert_int_equal(access(path, F_OK), 0);
    fixture_free(checkpoint);

    Draftd__V1__ExportLoraRequest request = DRAFTD__V1__EXPORT_LORA_REQUEST__INIT;
    char *file = NULL, *name = NULL;
    request.job_id = id;
    request.format = DRAFTD__V1__EXPORT_LORA_REQUEST__FORMAT__FORMAT_DIFFUSERS;
    if (!draftd_export_lora(f->d, &request, draftd_within(FIXTURE_MS), &file, &name, &err))
        fail_msg("%s", err.message);
    char *text = fixture_read(file);
    assert_non_null(strstr(text, "lora job-1"));
    assert_non_null(strstr(text, "clip 1 diffusers"));
    assert_non_null(strstr(name, ".safetensors"));
    unlink(file);
    free(text);
    free(file);
    free(name);
}

/* Once a worker left a line that was full of a thousand such wishes. */
static void test_lifecycle__many_wishes_for_a_checkpoint_are_one(void **state)
{
    enum { WISHES = 50 };
    struct fixture *f = *state;
    char id[32];
    fixture_submit(f, "ms=1000", 1000, id);
    fixture_wait_step(f, id, 1);
    Draftd__V1__Job *before = fixture_job(f, id);
    Draftd__V1__Checkpoint *checkpoint = NULL;
    for (int i = 0; i < WISHES; i++)
        draftd_create_checkpoint(f->d, id, draftd_within(0), &checkpoint, NULL); /* who does not wait for it */
    assert_true(draftd_create_checkpoint(f->d, id, draftd_within(FIXTURE_MS), &checkpoint, NULL));
    fixture_free(checkpoint);
    fixture_wait_step(f, id, before->progress->step + 2);
    Draftd__V1__Job *after = fixture_job(f, id);
    assert_in_range(after->revision - before->revision, 1, WISHES / 2); /* events: each checkpoint is one */
    fixture_free(before);
    fixture_free(after);
}

static void test_lifecycle__drain_saves_and_the_next_start_goes_on(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_submit(f, "ms=20", 60, id);
    fixture_wait_step(f, id, 12);
    draftd_drain(f->d);
    struct draft_error err = {0};
    Draftd__V1__JobSpec *spec = fixture_spec(f, "", 5);
    char other[32];
    assert_false(fixture_try_submit(f, spec, "", other, &err));
    assert_int_equal(err.code, DRAFT_UNAVAILABLE);
    fixture_free(spec);
    Draftd__V1__Job *job = fixture_job(f, id);
    assert_int_equal(job->state, QUEUED);
    int64_t at = job->progress->step;
    fixture_free(job);
    fixture_close(f);
    fixture_open(f);
    job = fixture_wait(f, id, SUCCEEDED);
    assert_int_equal(job->attempt, 2);
    fixture_free(job);
    Draftd__V1__QueryMetricsResponse *points = fixture_points(f, id, "reward");
    assert_int_equal(points->series[0]->n_points, 60);
    assert_int_equal(points->series[0]->points[at - 1]->attempt, 1); /* nothing was done twice */
    assert_int_equal(points->series[0]->points[at]->attempt, 2);
    fixture_free(points);
}

/* The database is somebody else's from step 12 on until the job has paused; then the job goes on. */
static void hold_the_database(struct fixture *f, const char *scenario, int steps, char *id)
{
    char path[128];
    sqlite3 *theirs = NULL;
    struct draft_error err = {0};
    snprintf(path, sizeof path, "%s/draftd.db", f->state);
    fixture_submit(f, scenario, steps, id);
    fixture_wait_step(f, id, 12);
    assert_int_equal(sqlite3_open(path, &theirs), SQLITE_OK);
    sqlite3_busy_timeout(theirs, 5000);
    assert_int_equal(sqlite3_exec(theirs, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    Draftd__V1__Job *job = fixture_wait(f, id, PAUSED); /* told, though it cannot be recorded yet */
    assert_string_equal(job->reason_code, "UNAVAILABLE");
    assert_non_null(strstr(job->reason, "another program holds the database"));
    fixture_free(job);
    assert_int_equal(sqlite3_exec(theirs, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(theirs);
    for (int polls = 0; !draftd_resume_job(f->d, id, draftd_within(FIXTURE_MS), &job, &err); err.code = DRAFT_OK) {
        assert_int_equal(err.code, DRAFT_UNAVAILABLE);
        assert_true(fixture_patient(&polls));
    }
    fixture_free(job);
}

static void test_lifecycle__a_database_that_another_program_holds_pauses_the_job(void **state)
{
    char id[32];
    hold_the_database(*state, "ms=20", 100000, id);
    fixture_free(fixture_wait(*state, id, RUNNING));
}

/* Its worker finishes within the 2 s that the lock is waited for. */
static void test_lifecycle__a_job_whose_last_points_cannot_be_recorded_is_not_done(void **state)
{
    struct fixture *f = *state;
    char id[32];
    hold_the_database(f, "ms=20", 40, id);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    Draftd__V1__QueryMetricsResponse *points = fixture_points(f, id, "reward");
    assert_int_equal(points->series[0]->n_points, 40);
    fixture_free(points);
}

#define CASE(name) cmocka_unit_test_setup_teardown(test_lifecycle__##name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_job_is_trained_to_its_end),
        CASE(pause_frees_the_device_and_resume_goes_on),
        CASE(pause_of_a_queued_job_takes_it_out_of_the_queue),
        CASE(a_queued_job_says_why_it_waits),
        CASE(cancel_ends_queued_jobs_at_once_and_running_ones_soon),
        CASE(a_full_disk_pauses_the_job_with_its_checkpoint),
        CASE(a_failed_job_resumes_from_its_checkpoint),
        CASE(changed_weights_are_refused_at_resume),
        CASE(weights_changed_while_it_waited_fail_the_job),
        CASE(pause_and_cancel_reach_a_job_that_still_loads),
        CASE(a_pause_that_cannot_be_waited_for_still_happens),
        CASE(a_damaged_checkpoint_is_passed_over),
        CASE(a_checkpoint_that_cannot_be_looked_at_is_waited_for),
        CASE(the_daemon_answers_while_a_large_checkpoint_is_read),
        CASE(a_full_queue_refuses_with_a_sentence),
        CASE(delete_removes_rows_and_files),
        CASE(a_checkpoint_on_request_is_on_disk_when_named),
        CASE(many_wishes_for_a_checkpoint_are_one),
        CASE(drain_saves_and_the_next_start_goes_on),
        CASE(a_database_that_another_program_holds_pauses_the_job),
        CASE(a_job_whose_last_points_cannot_be_recorded_is_not_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
