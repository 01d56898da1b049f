/* CreateJob: what is refused and how it is said, retries that make no second job, inspections that go wrong. */
#include "daemon_fixture.h"

#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "message.h"
#include "state.h"

static size_t jobs(struct fixture *f)
{
    Draftd__V1__ListJobsRequest request = DRAFTD__V1__LIST_JOBS_REQUEST__INIT;
    Draftd__V1__ListJobsResponse *reply = NULL;
    assert_true(draftd_list_jobs(f->d, &request, &reply, NULL));
    size_t count = reply->n_jobs;
    fixture_free(reply);
    return count;
}

static bool is_empty(struct fixture *f, const char *folder)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", f->state, folder);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    size_t entries = 0;
    while (readdir(dir))
        entries++;
    closedir(dir);
    return entries == 2; /* . and .. */
}

static void expect_refusal(struct fixture *f, Draftd__V1__JobSpec *spec, enum draft_code code, const char *field,
                           const char *words)
{
    char id[32];
    struct draft_error err = {0};
    assert_false(fixture_try_submit(f, spec, "", id, &err));
    if (err.code != code || strcmp(err.field, field) != 0 || strstr(err.message, words) == NULL)
        fail_msg("expected %s, %s: got %d, %s, %s", field, words, err.code, err.field, err.message);
    fixture_free(spec);
    assert_int_equal(jobs(f), 0);
    assert_true(is_empty(f, "incoming"));
    assert_true(is_empty(f, "jobs"));
}

static void test_submit__a_request_id_makes_one_job(void **state)
{
    struct fixture *f = *state;
    char one[32], two[32];
    struct draft_error err = {0};
    Draftd__V1__JobSpec *spec = fixture_spec(f, "", 5);
    assert_true(fixture_try_submit(f, spec, "c0ffee", one, &err));
    unlink(f->dataset); /* the retry needs nothing any more */
    assert_true(fixture_try_submit(f, spec, "c0ffee", two, &err));
    assert_string_equal(one, two);
    assert_int_equal(jobs(f), 1);
    spec->length->steps = 6;
    assert_false(fixture_try_submit(f, spec, "c0ffee", two, &err));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
    assert_string_equal(err.field, "request_id");

    spec->length->steps = 5; /* it outlives the daemon */
    fixture_free(fixture_wait(f, one, SUCCEEDED));
    fixture_close(f);
    fixture_open(f);
    assert_true(fixture_try_submit(f, spec, "c0ffee", two, NULL));
    assert_string_equal(one, two);
    assert_true(draftd_delete_job(f->d, one, NULL));
    err = (struct draft_error){0};
    assert_false(fixture_try_submit(f, spec, "c0ffee", two, &err));
    assert_int_equal(err.code, DRAFT_NOT_FOUND);
    fixture_free(spec);
}

/* Straight into the database: all requests were made so many days earlier. */
static void age_requests(struct fixture *f, int days)
{
    char path[128], sql[128];
    sqlite3 *db = NULL;
    snprintf(path, sizeof path, "%s/draftd.db", f->state);
    snprintf(sql, sizeof sql, "UPDATE requests SET time_us = time_us - %d * 86400000000", days);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 5000);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

/* As many as a busy daemon keeps in some hours. */
static void keep_events(struct fixture *f, int count)
{
    pthread_mutex_lock(&f->d->lock);
    assert_true(draftd_begin(f->d, DRAFTD_RELAXED, NULL));
    for (int i = 0; i < count; i++)
        assert_true(draftd_event(f->d, DRAFTD__V1__JOB_EVENT__KIND__KIND_NOTICE, 1, 0, 0, "", NULL));
    assert_true(draftd_commit(f->d, NULL));
    pthread_mutex_unlock(&f->d->lock);
}

static void test_submit__request_ids_are_forgotten_after_a_month_while_the_daemon_runs(void **state)
{
    struct fixture *f = *state;
    char first[32], id[32];
    Draftd__V1__JobSpec *spec = fixture_spec(f, "", 2);
    assert_true(fixture_try_submit(f, spec, "c0ffee", first, NULL));
    fixture_free(fixture_wait(f, first, SUCCEEDED));
    age_requests(f, 29);
    keep_events(f, 1000);
    assert_true(fixture_try_submit(f, spec, "c0ffee", id, NULL));
    assert_string_equal(id, first);
    age_requests(f, 2);
    keep_events(f, 1000);
    assert_true(fixture_try_submit(f, spec, "c0ffee", id, NULL));
    assert_string_not_equal(id, first);
    fixture_free(spec);
}

static void test_submit__validate_only_keeps_nothing(void **state)
{
    struct fixture *f = *state;
    Draftd__V1__CreateJobRequest request = DRAFTD__V1__CREATE_JOB_REQUEST__INIT;
    Draftd__V1__CreateJobResponse *reply = NULL;
    request.spec = fixture_spec(f, "", 77);
    request.validate_only = true;
    request.request_id = (char *)"c0ffee";
    assert_true(draftd_create_job(f->d, &request, draftd_within(FIXTURE_MS), &reply, NULL));
    assert_string_equal(reply->job->id, "");
    assert_int_equal(reply->job->progress->total_steps, 77);
    assert_int_equal(reply->job->prompt_count, 4);
    assert_int_equal(reply->job->memory_bytes, 1 << 30);
    fixture_free(reply);
    assert_int_equal(jobs(f), 0);
    assert_true(is_empty(f, "incoming"));
    char id[32]; /* and uses up no request id */
    assert_true(fixture_try_submit(f, request.spec, "c0ffee", id, NULL));
    fixture_free(request.spec);
}

static void test_submit__fields_are_checked_and_named(void **state)
{
    struct fixture *f = *state;
    Draftd__V1__JobSpec *spec = fixture_spec(f, "", 5);
    draftd_message_string(&spec->model, "relative/model");
    expect_refusal(f, spec, DRAFT_INVALID_ARGUMENT, "spec.model", "not absolute");
    spec = fixture_spec(f, "", 5);
    draftd_message_string(&spec->model, "");
    expect_refusal(f, spec, DRAFT_INVALID_ARGUMENT, "spec.model", "missing");
    spec = fixture_spec(f, "\xc3\x28", 5);
    expect_refusal(f, spec, DRAFT_INVALID_ARGUMENT, "spec.display_name", "UTF-8");
    spec = fixture_spec(f, "0123456789012345678901234567890123456789012345678901234567890123", 5);
    expect_refusal(f, spec, DRAFT_INVALID_ARGUMENT, "spec.display_name", "63");
    expect_refusal(f, fixture_spec(f, "", 0), DRAFT_INVALID_ARGUMENT, "spec.length", "exactly one");
    expect_refusal(f, fixture_spec(f, "", -5), DRAFT_INVALID_ARGUMENT, "spec.length.steps", "out of range");
    spec = fixture_spec(f, "", 5);
    spec->length->epochs = NAN;
    expect_refusal(f, spec, DRAFT_INVALID_ARGUMENT, "spec.length.epochs", "nan");
    spec = fixture_spec(f, "", 5);
    spec->length->global_batch = 6;
    spec->length->micro_batch = 4;
    expect_refusal(f, spec, DRAFT_INVALID_ARGUMENT, "spec.length.global_batch", "no multiple");
    spec = fixture_spec(f, "", 5);
    spec->kl_coeff_opt_case = DRAFTD__V1__JOB_SPEC__KL_COEFF_OPT_KL_COEFF;
    spec->kl_coeff = -1;
    expect_refusal(f, spec, DRAFT_INVALID_ARGUMENT, "spec.kl_coeff", "-1");
    spec = fixture_spec(f, "", 5);
    spec->optimizer = draftd_message_new(&draftd__v1__optimizer__descriptor);
    spec->optimizer->learning_rate = INFINITY;
    expect_refusal(f, spec, DRAFT_INVALID_ARGUMENT, "spec.optimizer.learning_rate", "inf");
    spec = fixture_spec(f, "", 5);
    draftd_message_string(&spec->rewards[0]->kind, "beauty");
    expect_refusal(f, spec, DRAFT_INVALID_ARGUMENT, "spec.rewards[0].kind",
                   "there is no reward \"beauty\"; use clip, ");
    spec = fixture_spec(f, "", 5);
    draftd_message_free(spec->rewards[0]);
    spec->n_rewards = 0;
    expect_refusal(f, spec, DRAFT_INVALID_ARGUMENT, "spec.rewards", "at least one");
    spec = fixture_spec(f, "", 5);
    draftd_message_string(&spec->device, "cuda:x");
    expect_refusal(f, spec, DRAFT_INVALID_ARGUMENT, "spec.device", "cuda:x");
    spec = fixture_spec(f, "", 5);
    spec->threads = 5000;
    expect_refusal(f, spec, DRAFT_INVALID_ARGUMENT, "spec.threads", "5000");
    spec = fixture_spec(f, "", 5);
    spec->evaluation = draftd_message_new(&draftd__v1__evaluation__descriptor);
    draftd_message_append(&spec->evaluation->prompts, &spec->evaluation->n_prompts, draftd_strdup("a\nb"));
    expect_refusal(f, spec, DRAFT_INVALID_ARGUMENT, "spec.evaluation.prompts[0]", "0x0a");
    struct draft_error err = {0};
    char id[32];
    assert_false(fixture_try_submit(f, NULL, "", id, &err));
    assert_string_equal(err.field, "spec");
}

static void test_submit__a_bad_dataset_is_refused_with_its_line(void **state)
{
    struct fixture *f = *state;
    fixture_write(f->dataset, "fine\nbad \xff\n");
    expect_refusal(f, fixture_spec(f, "", 5), DRAFT_INVALID_ARGUMENT, "spec.dataset", "line 2");
    unlink(f->dataset);
    expect_refusal(f, fixture_spec(f, "", 5), DRAFT_NOT_FOUND, "spec.dataset", "prompts.txt");
}

static void test_submit__the_dataset_is_kept_with_the_job(void **state)
{
    struct fixture *f = *state;
    char id[32], path[160];
    fixture_submit(f, "", 5, id);
    fixture_write(f->dataset, "something else\n");
    snprintf(path, sizeof path, "%s/jobs/%s/dataset.jsonl", f->state, id);
    char *copy = fixture_read(path);
    assert_string_equal(copy, "\"a cat\"\n\"a dog\"\n\"a cat\"\n\"an owl in the snow\"\n");
    free(copy);
    assert_true(is_empty(f, "incoming"));
}

static void test_submit__a_dataset_too_large_for_a_frame_goes_as_a_file(void **state)
{
    struct fixture *f = *state;
    FILE *file = fopen(f->dataset, "we");
    for (int i = 0; i < 150000; i++)
        fprintf(file, "a picture of an animal with number %d, drawn with a soft pencil on paper\n", i);
    fclose(file);
    char id[32];
    fixture_submit(f, "", 5, id);
    Draftd__V1__Job *job = fixture_job(f, id);
    assert_int_equal(job->prompt_count, 150000);
    assert_int_equal(job->n_warnings, 1); /* the fake's sign that it got no prompts in the frame */
    fixture_free(job);
}

static void test_submit__what_the_checker_refuses_is_passed_on(void **state)
{
    struct fixture *f = *state;
    expect_refusal(f, fixture_spec(f, "inspect=refuse", 5), DRAFT_INVALID_ARGUMENT, "spec.rewards[0].kind", "beauty");
    expect_refusal(f, fixture_spec(f, "inspect=crash", 5), DRAFT_INVALID_ARGUMENT, "spec.model", "unet/config.json");
    expect_refusal(f, fixture_spec(f, "inspect=garbage", 5), DRAFT_INVALID_ARGUMENT, "spec.model", "no Report");
    expect_refusal(f, fixture_spec(f, "inspect=silent", 5), DRAFT_INTERNAL, "", "no sound answer");
}

static void test_submit__a_checker_that_hangs_ends_with_the_deadline(void **state)
{
    struct fixture *f = *state;
    Draftd__V1__CreateJobRequest request = DRAFTD__V1__CREATE_JOB_REQUEST__INIT;
    Draftd__V1__CreateJobResponse *reply = NULL;
    struct draft_error err = {0};
    request.spec = fixture_spec(f, "inspect=hang", 5);
    int64_t begin = draftd_now_ms();
    assert_false(draftd_create_job(f->d, &request, draftd_within(300), &reply, &err));
    assert_int_equal(err.code, DRAFT_UNAVAILABLE);
    assert_true(draftd_now_ms() - begin < 1500);
    expect_refusal(f, request.spec, DRAFT_UNAVAILABLE, "", "no sign of life"); /* after hang_seconds */
}

static void *leave(void *gone)
{
    usleep(100000);
    atomic_store((atomic_bool *)gone, true);
    return NULL;
}

static void test_submit__a_checker_whose_client_leaves_is_stopped(void **state)
{
    struct fixture *f = *state;
    Draftd__V1__CreateJobRequest request = DRAFTD__V1__CREATE_JOB_REQUEST__INIT;
    Draftd__V1__CreateJobResponse *reply = NULL;
    request.spec = fixture_spec(f, "inspect=hang", 5);
    int64_t begin = draftd_now_ms();
    for (int i = 0; i < 3; i++) { /* more than the slots of checkers: each gives its own back */
        atomic_bool gone = false;
        struct draftd_patience patience = draftd_within(60000);
        patience.gone = &gone;
        pthread_t client;
        assert_int_equal(pthread_create(&client, NULL, leave, &gone), 0);
        assert_false(draftd_create_job(f->d, &request, patience, &reply, NULL));
        pthread_join(client, NULL);
    }
    assert_true(draftd_now_ms() - begin < 5000); /* hang_seconds is 6, the deadline 60 s */
    assert_true(is_empty(f, "incoming"));
    assert_int_equal(jobs(f), 0);
    fixture_free(request.spec);
}

static void test_submit__pages_show_each_job_once(void **state)
{
    struct fixture *f = *state;
    char id[32];
    for (int i = 0; i < 7; i++)
        fixture_submit(f, "", 1, id);
    Draftd__V1__ListJobsRequest request = DRAFTD__V1__LIST_JOBS_REQUEST__INIT;
    char token[64] = "", *seen[7];
    size_t count = 0;
    request.page_size = 3;
    do {
        Draftd__V1__ListJobsResponse *reply = NULL;
        request.page_token = token;
        assert_true(draftd_list_jobs(f->d, &request, &reply, NULL));
        for (size_t i = 0; i < reply->n_jobs; i++)
            seen[count++] = strdup(reply->jobs[i]->id);
        snprintf(token, sizeof token, "%s", reply->next_page_token);
        fixture_free(reply);
    } while (*token);
    assert_int_equal(count, 7);
    for (size_t i = 0; i < 7; i++) {
        char expected[32];
        snprintf(expected, sizeof expected, "job-%zu", 7 - i);
        assert_string_equal(seen[i], expected);
        free(seen[i]);
    }
    struct draft_error err = {0};
    Draftd__V1__ListJobsResponse *reply = NULL;
    request.page_token = (char *)"nonsense";
    assert_false(draftd_list_jobs(f->d, &request, &reply, &err));
    assert_string_equal(err.field, "page_token");
    Draftd__V1__Job__State failed[] = {FAILED};
    request.states = failed;
    request.n_states = 1;
    request.page_token = (char *)"5.ffffffff"; /* of the list without a filter */
    err = (struct draft_error){0};
    assert_false(draftd_list_jobs(f->d, &request, &reply, &err));
    assert_string_equal(err.field, "page_token");
    request.page_token = (char *)"";
    assert_true(draftd_list_jobs(f->d, &request, &reply, NULL));
    assert_int_equal(reply->n_jobs, 0);
    fixture_free(reply);
    request.page_size = -1;
    err = (struct draft_error){0};
    assert_false(draftd_list_jobs(f->d, &request, &reply, &err));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
}

static void test_submit__unknown_ids_are_not_found(void **state)
{
    struct fixture *f = *state;
    static const char *const ids[] = {"job-99", "job-", "job-0", "job-1x", "99", "job-99999999999999999999", "\xff"};
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        struct draft_error err = {0};
        Draftd__V1__Job *job = NULL;
        assert_false(draftd_get_job(f->d, ids[i], &job, &err));
        assert_int_equal(err.code, DRAFT_NOT_FOUND);
        assert_false(draftd_cancel_job(f->d, ids[i], &job, NULL));
        assert_false(draftd_pause_job(f->d, ids[i], draftd_within(10), &job, NULL));
        assert_false(draftd_resume_job(f->d, ids[i], draftd_within(10), &job, NULL));
        assert_false(draftd_delete_job(f->d, ids[i], NULL));
    }
}

#define CASE(name) cmocka_unit_test_setup_teardown(test_submit__##name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_request_id_makes_one_job),
        CASE(request_ids_are_forgotten_after_a_month_while_the_daemon_runs),
        CASE(validate_only_keeps_nothing),
        CASE(fields_are_checked_and_named),
        CASE(a_bad_dataset_is_refused_with_its_line),
        CASE(the_dataset_is_kept_with_the_job),
        CASE(a_dataset_too_large_for_a_frame_goes_as_a_file),
        CASE(what_the_checker_refuses_is_passed_on),
        CASE(a_checker_that_hangs_ends_with_the_deadline),
        CASE(a_checker_whose_client_leaves_is_stopped),
        CASE(pages_show_each_job_once),
        CASE(unknown_ids_are_not_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
