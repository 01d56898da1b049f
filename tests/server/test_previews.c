/* Previews with the fake worker: by a running job's worker, from checkpoints, through crashes and restarts. */
#include "daemon_fixture.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "message.h"

#define PENDING     DRAFTD__V1__PREVIEW__STATE__STATE_PENDING
#define P_RUNNING   DRAFTD__V1__PREVIEW__STATE__STATE_RUNNING
#define P_SUCCEEDED DRAFTD__V1__PREVIEW__STATE__STATE_SUCCEEDED
#define P_FAILED    DRAFTD__V1__PREVIEW__STATE__STATE_FAILED

/* step < 0: the newest */
static char *ask(struct fixture *f, const char *job, int count, int64_t step, char id[32])
{
    Draftd__V1__CreatePreviewRequest request = DRAFTD__V1__CREATE_PREVIEW_REQUEST__INIT;
    Draftd__V1__PreviewSpec spec = DRAFTD__V1__PREVIEW_SPEC__INIT;
    Draftd__V1__Preview *preview = NULL;
    struct draft_error err = {0};
    spec.count = count;
    if (step >= 0) {
        spec.checkpoint_step_opt_case = DRAFTD__V1__PREVIEW_SPEC__CHECKPOINT_STEP_OPT_CHECKPOINT_STEP;
        spec.checkpoint_step = step;
    }
    request.job_id = (char *)job;
    request.spec = &spec;
    if (!draftd_create_preview(f->d, &request, &preview, &err))
        fail_msg("%s", err.message);
    snprintf(id, 32, "%s", preview->id);
    fixture_free(preview);
    return id;
}

static char *picture(struct fixture *f, const char *preview, int index)
{
    char *path = NULL;
    struct draft_error err = {0};
    if (!draftd_picture_path(f->d, preview, index, &path, &err))
        fail_msg("%s", err.message);
    char *text = fixture_read(path);
    free(path);
    return text;
}

static void test_previews__a_running_job_makes_them_at_a_step_boundary(void **state)
{
    struct fixture *f = *state;
    char id[32], preview[32];
    fixture_submit(f, "ms=20", 1000, id);
    fixture_wait_step(f, id, 3);
    ask(f, id, 2, -1, preview);
    Draftd__V1__Preview *done = fixture_wait_preview(f, preview, P_SUCCEEDED);
    assert_string_equal(preview, "preview-1");
    assert_int_equal(done->total, 6); /* three different prompts, two each */
    assert_int_equal(done->n_pictures, 6);
    assert_string_equal(done->pictures[2]->prompt, "a dog");
    assert_int_equal(done->pictures[3]->seed, 1);
    assert_true(done->pictures[1]->reward != done->pictures[1]->reward); /* NaN survives */
    assert_true(done->pictures[2]->reward == 2.5);
    assert_true(done->step >= 3 && done->end_time_us >= done->create_time_us);
    char *text = picture(f, preview, 4);
    assert_non_null(strstr(text, "picture 4 of step"));
    assert_int_equal(strlen(text), done->pictures[4]->bytes);
    free(text);
    fixture_free(done);
    assert_int_equal(fixture_state(f, id), RUNNING);
    struct draft_error err = {0};
    char *path;
    assert_false(draftd_picture_path(f->d, preview, 6, &path, &err));
    assert_int_equal(err.code, DRAFT_NOT_FOUND);
    assert_false(draftd_picture_path(f->d, preview, -1, &path, NULL));
}

static void test_previews__an_ended_job_makes_them_from_any_checkpoint(void **state)
{
    struct fixture *f = *state;
    char id[32], newest[32], older[32], base[32];
    fixture_submit(f, "", 20, id);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    ask(f, id, 1, -1, newest);
    ask(f, id, 1, 15, older);
    ask(f, id, 1, 0, base);
    Draftd__V1__Preview *done = fixture_wait_preview(f, newest, P_SUCCEEDED);
    assert_int_equal(done->step, 20);
    fixture_free(done);
    done = fixture_wait_preview(f, older, P_SUCCEEDED);
    assert_int_equal(done->step, 15);
    fixture_free(done);
    done = fixture_wait_preview(f, base, P_SUCCEEDED);
    assert_int_equal(done->step, 0);
    fixture_free(done);
    char *text = picture(f, older, 0);
    assert_string_equal(text, "picture 0 of step 15");
    free(text);
    struct draft_error err = {0};
    Draftd__V1__CreatePreviewRequest request = DRAFTD__V1__CREATE_PREVIEW_REQUEST__INIT;
    Draftd__V1__PreviewSpec spec = DRAFTD__V1__PREVIEW_SPEC__INIT;
    Draftd__V1__Preview *preview = NULL;
    spec.checkpoint_step_opt_case = DRAFTD__V1__PREVIEW_SPEC__CHECKPOINT_STEP_OPT_CHECKPOINT_STEP;
    spec.checkpoint_step = 7;
    request.job_id = id;
    request.spec = &spec;
    assert_false(draftd_create_preview(f->d, &request, &preview, &err));
    assert_int_equal(err.code, DRAFT_NOT_FOUND);
    assert_string_equal(err.field, "spec.checkpoint_step");
}

static void test_previews__one_left_by_an_ending_job_is_made_from_its_checkpoint(void **state)
{
    struct fixture *f = *state;
    char id[32], preview[32];
    fixture_submit(f, "ms=20", 40, id);
    fixture_wait_step(f, id, 12);
    Draftd__V1__Job *job = NULL;
    char other[32];
    fixture_submit(f, "", 5, other); /* its preview waits until it runs or ends */
    ask(f, other, 1, -1, preview);
    Draftd__V1__Preview *waiting = NULL;
    assert_true(draftd_get_preview(f->d, preview, &waiting, NULL));
    assert_int_equal(waiting->state, PENDING);
    fixture_free(waiting);
    assert_true(draftd_cancel_job(f->d, other, &job, NULL));
    fixture_free(job);
    Draftd__V1__Preview *done = fixture_wait_preview(f, preview, P_SUCCEEDED);
    assert_int_equal(done->step, 0); /* it never trained: the base model */
    fixture_free(done);
    assert_true(draftd_pause_job(f->d, id, draftd_within(FIXTURE_MS), &job, NULL));
    int64_t at = job->progress->step;
    fixture_free(job);
    done = fixture_wait_preview(f, ask(f, id, 1, -1, preview), P_SUCCEEDED);
    assert_int_equal(done->step, at);
    fixture_free(done);
}

static void test_previews__one_that_crashes_the_worker_fails_and_training_goes_on(void **state)
{
    struct fixture *f = *state;
    char id[32], preview[32];
    fixture_submit(f, "ms=10 preview=crash", 60, id);
    fixture_wait_step(f, id, 3);
    ask(f, id, 1, -1, preview);
    Draftd__V1__Preview *failed = fixture_wait_preview(f, preview, P_FAILED);
    assert_non_null(strstr(failed->reason, "SIGSEGV"));
    fixture_free(failed);
    Draftd__V1__Job *job = fixture_wait(f, id, SUCCEEDED);
    assert_int_equal(job->attempt, 3);
    fixture_free(job);
    /* and in a sampling worker */
    failed = fixture_wait_preview(f, ask(f, id, 1, -1, preview), P_FAILED);
    assert_non_null(strstr(failed->reason, "SIGSEGV"));
    fixture_free(failed);
}

static void test_previews__pictures_that_are_not_there_are_not_believed(void **state)
{
    struct fixture *f = *state;
    char id[32], preview[32];
    fixture_submit(f, "preview=absent", 5, id);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    Draftd__V1__Preview *failed = fixture_wait_preview(f, ask(f, id, 1, -1, preview), P_FAILED);
    assert_non_null(strstr(failed->reason, "not make all pictures"));
    fixture_free(failed);
}

enum { ASKERS = 4, ASKED_EACH = 12 };

static void *ask_many(void *context)
{
    char preview[32];
    for (int i = 0; i < ASKED_EACH; i++)
        ask(context, "job-1", 1, -1, preview);
    return NULL;
}

/* So many at once that several wait when the daemon's thread hands them on. */
static void test_previews__those_without_a_folder_fail_together(void **state)
{
    struct fixture *f = *state;
    char id[32], folder[160], preview[32];
    pthread_t asker[ASKERS];
    fixture_submit(f, "ms=20", 2000, id);
    fixture_wait_step(f, id, 1);
    snprintf(folder, sizeof folder, "%s/jobs/%s/previews", f->state, id);
    assert_int_equal(rmdir(folder), 0);
    for (int i = 0; i < ASKERS; i++)
        assert_int_equal(pthread_create(&asker[i], NULL, ask_many, f), 0);
    for (int i = 0; i < ASKERS; i++)
        pthread_join(asker[i], NULL);
    for (int i = 1; i <= ASKERS * ASKED_EACH; i++) {
        snprintf(preview, sizeof preview, "preview-%d", i);
        Draftd__V1__Preview *failed = fixture_wait_preview(f, preview, P_FAILED);
        assert_non_null(strstr(failed->reason, "cannot make the folder"));
        fixture_free(failed);
    }
    assert_int_equal(fixture_state(f, id), RUNNING);
}

/* The sampling worker is busy with an ended job's; a running job's worker has time. */
static void test_previews__a_running_jobs_do_not_wait_for_others(void **state)
{
    struct fixture *f = *state;
    char id[32], slow[32], next[32], quick[32];
    fixture_submit(f, "preview=slow", 5, id);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    ask(f, id, 20, -1, slow);
    fixture_free(fixture_wait_preview(f, slow, P_RUNNING));
    ask(f, id, 1, -1, next);
    fixture_submit(f, "ms=20", 2000, id);
    fixture_wait_step(f, id, 1);
    fixture_free(fixture_wait_preview(f, ask(f, id, 1, -1, quick), P_SUCCEEDED));
    Draftd__V1__Preview *still = NULL;
    assert_true(draftd_get_preview(f->d, slow, &still, NULL));
    assert_int_equal(still->state, P_RUNNING);
    fixture_free(still);
}

static void test_previews__a_restart_makes_the_unfinished_ones(void **state)
{
    struct fixture *f = *state;
    char id[32], preview[32], second[32];
    fixture_submit(f, "preview=slow", 5, id);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    ask(f, id, 2, -1, preview);
    ask(f, id, 1, -1, second);
    fixture_free(fixture_wait_preview(f, preview, P_RUNNING));
    fixture_close(f);
    fixture_open(f);
    Draftd__V1__Preview *done = fixture_wait_preview(f, preview, P_SUCCEEDED);
    assert_int_equal(done->n_pictures, 6);
    fixture_free(done);
    fixture_free(fixture_wait_preview(f, second, P_SUCCEEDED));
    Draftd__V1__ListPreviewsRequest request = DRAFTD__V1__LIST_PREVIEWS_REQUEST__INIT;
    Draftd__V1__ListPreviewsResponse *list = NULL;
    request.job_id = id;
    request.page_size = 1;
    assert_true(draftd_list_previews(f->d, &request, &list, NULL));
    assert_int_equal(list->n_previews, 1);
    assert_string_equal(list->previews[0]->id, second);
    char token[64];
    snprintf(token, sizeof token, "%s", list->next_page_token);
    fixture_free(list);
    request.page_token = token;
    assert_true(draftd_list_previews(f->d, &request, &list, NULL));
    assert_string_equal(list->previews[0]->id, preview);
    assert_string_equal(list->next_page_token, "");
    fixture_free(list);
}

static void test_previews__deleting_the_job_ends_them(void **state)
{
    struct fixture *f = *state;
    char id[32], preview[32];
    fixture_submit(f, "preview=slow", 5, id);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    ask(f, id, 20, -1, preview);
    fixture_free(fixture_wait_preview(f, preview, P_RUNNING));
    assert_true(draftd_delete_job(f->d, id, NULL));
    struct draft_error err = {0};
    Draftd__V1__Preview *gone = NULL;
    assert_false(draftd_get_preview(f->d, preview, &gone, &err));
    assert_int_equal(err.code, DRAFT_NOT_FOUND);
    fixture_submit(f, "", 5, id);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    ask(f, id, 1, -1, preview);
    assert_string_equal(preview, "preview-2");
    fixture_free(fixture_wait_preview(f, preview, P_SUCCEEDED));
}

static void test_previews__a_request_id_makes_one(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_submit(f, "", 5, id);
    Draftd__V1__CreatePreviewRequest request = DRAFTD__V1__CREATE_PREVIEW_REQUEST__INIT;
    Draftd__V1__Preview *one = NULL, *two = NULL;
    request.job_id = id;
    request.request_id = (char *)"again";
    assert_true(draftd_create_preview(f->d, &request, &one, NULL));
    assert_true(draftd_create_preview(f->d, &request, &two, NULL));
    assert_string_equal(one->id, two->id);
    fixture_free(one);
    fixture_free(two);
}

static void test_previews__fields_are_checked_and_named(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_submit(f, "", 5, id);
    char *prompts[] = {(char *)"fine", (char *)"bad \xff"};
    static const struct {
        const char *field;
        int count, steps, height;
        size_t prompts;
        const char *aig;
    } bad[] = {
        {"spec.prompts[1]", 1, 0, 0, 2, ""},   {"spec.count", -1, 0, 0, 1, ""},    {"spec.count", 257, 0, 0, 1, ""},
        {"spec.steps", 1, 1001, 0, 1, ""},     {"spec.height", 1, 0, 100, 1, ""},  {"spec.height", 1, 0, -8, 1, ""},
        {"spec.aig", 1, 0, 0, 1, "quadratic"}, {"spec.aig", 1, 0, 0, 1, "power_"}, {"spec.aig", 1, 0, 0, 1, "step_1.5"},
        {"spec.aig", 1, 0, 0, 1, "power_nan"}, {"spec.count", 200, 0, 0, 0, ""},   {"spec.sampler", 1, 0, 0, 1, ""},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        Draftd__V1__CreatePreviewRequest request = DRAFTD__V1__CREATE_PREVIEW_REQUEST__INIT;
        Draftd__V1__PreviewSpec spec = DRAFTD__V1__PREVIEW_SPEC__INIT;
        Draftd__V1__Preview *preview = NULL;
        struct draft_error err = {0};
        spec.prompts = prompts;
        spec.n_prompts = bad[i].prompts;
        spec.count = bad[i].count;
        spec.steps = bad[i].steps;
        spec.height = bad[i].height;
        spec.aig = (char *)bad[i].aig;
        if (strcmp(bad[i].field, "spec.sampler") == 0)
            spec.sampler = (char *)"Euler a";
        request.job_id = id;
        request.spec = &spec;
        assert_false(draftd_create_preview(f->d, &request, &preview, &err));
        assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
        assert_string_equal(err.field, bad[i].field);
    }
}

#define CASE(name) cmocka_unit_test_setup_teardown(test_previews__##name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_running_job_makes_them_at_a_step_boundary),
        CASE(an_ended_job_makes_them_from_any_checkpoint),
        CASE(one_left_by_an_ending_job_is_made_from_its_checkpoint),
        CASE(one_that_crashes_the_worker_fails_and_training_goes_on),
        CASE(pictures_that_are_not_there_are_not_believed),
        CASE(those_without_a_folder_fail_together),
        CASE(a_running_jobs_do_not_wait_for_others),
        CASE(a_restart_makes_the_unfinished_ones),
        CASE(deleting_the_job_ends_them),
        CASE(a_request_id_makes_one),
        CASE(fields_are_checked_and_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
