/* Watching: snapshot, every state once and in order, resuming, coalesced progress, ends. */
#include "daemon_fixture.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "message.h"
#include "previews.h"
#include "store/store.h"

/* A watcher with a bell: as the RPC does, it asks for more only when woken. */
struct ear {
    pthread_mutex_t mutex;
    pthread_cond_t rung;
    int rings;
    struct draftd_watcher *watcher;
};

static void ring(void *context)
{
    struct ear *ear = context;
    pthread_mutex_lock(&ear->mutex);
    ear->rings++;
    pthread_cond_signal(&ear->rung);
    pthread_mutex_unlock(&ear->mutex);
}

static bool listen_to(struct fixture *f, struct ear *ear, const char *job, const char *preview, int64_t revision,
                      struct draft_error *err)
{
    *ear = (struct ear){.mutex = PTHREAD_MUTEX_INITIALIZER, .rung = PTHREAD_COND_INITIALIZER};
    ear->watcher = draftd_watch(f->d, job, preview, revision, ring, ear, err);
    return ear->watcher != NULL;
}

/* The next message; NULL at the end of the stream. Waits at most 15 s. */
static void *hear(struct ear *ear, struct draft_error *err)
{
    for (;;) {
        ProtobufCMessage *message = NULL;
        bool end = false;
        int waits = 0; /* not a deadline: a machine that was stopped has not waited */
        draftd_watch_next(ear->watcher, &message, &end, err);
        if (message || end)
            return message;
        pthread_mutex_lock(&ear->mutex);
        while (ear->rings == 0) {
            struct timespec until;
            clock_gettime(CLOCK_REALTIME, &until);
            until.tv_sec += 1;
            pthread_cond_timedwait(&ear->rung, &ear->mutex, &until);
            if (++waits > 20)
                fail_msg("no bell rang");
        }
        ear->rings = 0;
        pthread_mutex_unlock(&ear->mutex);
    }
}

/* Hears to the end; appends the states told, as letters, and gives the last revision. */
static int64_t hear_states(struct ear *ear, char *letters, size_t capacity, int *metrics, int *progress)
{
    static const char letter[] = "?QPRZXSFC"; /* by Job.State */
    size_t n = strlen(letters);
    int64_t last = 0;
    Draftd__V1__WatchJobsResponse *response;
    struct draft_error err = {0};
    while ((response = hear(ear, &err))) {
        assert_true(response->revision >= last); /* in order */
        if (response->event && response->event->kind == DRAFTD__V1__JOB_EVENT__KIND__KIND_STATE) {
            assert_true(response->revision > last); /* each once */
            assert_int_equal(response->event->job->revision, response->revision);
            assert_true(n + 1 < capacity);
            letters[n++] = letter[response->event->job->state];
            letters[n] = '\0';
        }
        if (response->event && metrics)
            *metrics += response->event->kind == DRAFTD__V1__JOB_EVENT__KIND__KIND_METRICS;
        if (response->event && progress)
            *progress += response->event->kind == DRAFTD__V1__JOB_EVENT__KIND__KIND_PROGRESS;
        last = response->revision;
        fixture_free(response);
    }
    assert_int_equal(err.code, DRAFT_OK);
    return last;
}

static void test_watch__one_job_is_told_from_snapshot_to_end(void **state)
{
    struct fixture *f = *state;
    char id[32], letters[64] = "";
    int metrics = 0, progress = 0;
    fixture_submit(f, "ms=20 crash@30", 40, id);
    struct ear ear;
    assert_true(listen_to(f, &ear, id, NULL, 0, NULL));
    struct draft_error err = {0};
    Draftd__V1__WatchJobsResponse *first = hear(&ear, &err);
    assert_true(first->is_snapshot);
    assert_int_equal(first->n_snapshot, 1);
    assert_string_equal(first->snapshot[0]->id, id);
    bool early = first->snapshot[0]->state == QUEUED;
    fixture_free(first);
    hear_states(&ear, letters, sizeof letters, &metrics, &progress);
    draftd_unwatch(ear.watcher);
    assert_string_equal(early ? letters : letters + strlen(letters) - 5, early ? "PRQPRS" : "RQPRS");
    assert_in_range(metrics, 2, 60);
    assert_in_range(progress, 2, 40); /* coalesced: the fake sends more than 80 */
}

static void test_watch__a_stream_resumes_without_gap_or_double(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_submit(f, "crash@3", 10, id);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    /* every place to resume from tells exactly what was left */
    for (int64_t from = 1; from < 40; from++) {
        struct ear ear;
        struct draft_error err = {0};
        char letters[64] = "";
        if (!listen_to(f, &ear, id, NULL, from, &err)) {
            assert_string_equal(err.field, "start_revision"); /* past the newest */
            break;
        }
        hear_states(&ear, letters, sizeof letters, NULL, NULL);
        draftd_unwatch(ear.watcher);
        size_t length = strlen(letters);
        assert_true(length <= 7);
        assert_string_equal(letters, "QPRQPRS" + 7 - length);
        if (from == 1)
            assert_int_equal(length, 7);
    }
}

static void test_watch__resuming_outlives_the_daemon(void **state)
{
    struct fixture *f = *state;
    char id[32], letters[64] = "";
    fixture_submit(f, "", 10, id);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    fixture_close(f);
    fixture_open(f);
    struct ear ear;
    assert_true(listen_to(f, &ear, id, NULL, 1, NULL));
    hear_states(&ear, letters, sizeof letters, NULL, NULL);
    draftd_unwatch(ear.watcher);
    assert_string_equal(letters, "QPRS");
}

static void test_watch__all_jobs_are_told_on_one_stream(void **state)
{
    struct fixture *f = *state;
    char one[32], two[32];
    fixture_submit(f, "ms=100", 10, one); /* not over before somebody listens */
    struct ear ear;
    struct draft_error err = {0};
    assert_true(listen_to(f, &ear, "", NULL, 0, NULL));
    fixture_submit(f, "ms=5", 10, two);
    bool done_one = false, done_two = false, deleted = false;
    int64_t last = 0;
    while (!deleted) {
        Draftd__V1__WatchJobsResponse *response = hear(&ear, &err);
        assert_non_null(response);
        assert_true(response->revision >= last);
        last = response->revision;
        Draftd__V1__JobEvent *event = response->event;
        if (event && event->kind == DRAFTD__V1__JOB_EVENT__KIND__KIND_STATE && event->job->state == SUCCEEDED) {
            done_one |= strcmp(event->job_id, one) == 0;
            done_two |= strcmp(event->job_id, two) == 0;
            if (done_two)
                assert_true(draftd_delete_job(f->d, two, NULL));
        }
        if (event && event->kind == DRAFTD__V1__JOB_EVENT__KIND__KIND_DELETED) {
            assert_string_equal(event->job_id, two);
            deleted = true;
        }
        fixture_free(response);
    }
    assert_true(done_one && done_two);
    draftd_unwatch(ear.watcher);
}

static void test_watch__a_slow_reader_loses_no_state(void **state)
{
    struct fixture *f = *state;
    char id[32], letters[64] = "";
    fixture_submit(f, "ms=20", 10, id);
    struct ear ear;
    struct draft_error err = {0};
    assert_true(listen_to(f, &ear, id, NULL, 0, NULL));
    fixture_free(hear(&ear, &err)); /* the snapshot, then nothing for a while */
    Draftd__V1__Job *job = NULL;
    fixture_wait_step(f, id, 3);
    assert_true(draftd_pause_job(f->d, id, draftd_within(FIXTURE_MS), &job, NULL));
    fixture_free(job);
    assert_true(draftd_resume_job(f->d, id, draftd_within(FIXTURE_MS), &job, NULL));
    fixture_free(job);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    hear_states(&ear, letters, sizeof letters, NULL, NULL);
    draftd_unwatch(ear.watcher);
    assert_string_equal(letters + strlen(letters) - 5, "ZQPRS");
}

static void test_watch__a_forgotten_revision_is_refused(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_submit(f, "", 10, id);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    fixture_close(f);
    struct draft_error err = {0};
    struct draftd_store *store = draftd_store_open(f->state, &err);
    assert_non_null(store);
    assert_true(draftd_store_begin(store, DRAFTD_DURABLE, &err));
    assert_true(draftd_store_prune_events(store, 2, &err));
    assert_true(draftd_store_commit(store, &err));
    draftd_store_close(store);
    fixture_open(f);
    struct ear ear;
    assert_false(listen_to(f, &ear, id, NULL, 1, &err));
    assert_int_equal(err.code, DRAFT_FAILED_PRECONDITION);
    assert_string_equal(err.field, "start_revision");
    err = (struct draft_error){0};
    assert_false(listen_to(f, &ear, id, NULL, 1000000, &err));
    assert_string_equal(err.field, "start_revision");
    err = (struct draft_error){0};
    assert_false(listen_to(f, &ear, "job-77", NULL, 0, &err));
    assert_int_equal(err.code, DRAFT_NOT_FOUND);
}

static void test_watch__many_watchers_come_and_go(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_submit(f, "ms=1", 300, id);
    struct ear ears[40];
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 40; i++)
            assert_true(listen_to(f, &ears[i], i % 2 ? id : "", NULL, 0, NULL));
        for (int i = 0; i < 40; i++) {
            ProtobufCMessage *message = NULL;
            bool end;
            while (draftd_watch_next(ears[i].watcher, &message, &end, NULL) && message)
                fixture_free(message);
        }
        usleep(50000);
        for (int i = 0; i < 40; i++) {
            draftd_unwatch(ears[i].watcher); /* no bell after this */
            ears[i].watcher = NULL;
        }
    }
}

static void test_watch__a_preview_is_followed_to_its_end(void **state)
{
    struct fixture *f = *state;
    char id[32];
    struct draft_error err = {0};
    fixture_submit(f, "preview=slow", 5, id);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    Draftd__V1__CreatePreviewRequest request = DRAFTD__V1__CREATE_PREVIEW_REQUEST__INIT;
    Draftd__V1__Preview *preview = NULL;
    request.job_id = id;
    assert_true(draftd_create_preview(f->d, &request, &preview, &err));
    struct ear ear;
    assert_true(listen_to(f, &ear, NULL, preview->id, 0, &err));
    fixture_free(preview);
    size_t pictures = 0, messages = 0;
    Draftd__V1__WatchPreviewResponse *response;
    Draftd__V1__Preview__State last = 0;
    while ((response = hear(&ear, &err))) {
        assert_true(response->preview->n_pictures >= pictures);
        pictures = response->preview->n_pictures;
        last = response->preview->state;
        messages++;
        fixture_free(response);
    }
    draftd_unwatch(ear.watcher);
    assert_int_equal(err.code, DRAFT_OK);
    assert_int_equal(last, DRAFTD__V1__PREVIEW__STATE__STATE_SUCCEEDED);
    assert_int_equal(pictures, 3);
    assert_true(messages >= 4); /* pictures came one by one */
}

static void test_watch__a_failed_preview_ends_with_its_error(void **state)
{
    struct fixture *f = *state;
    char id[32];
    struct draft_error err = {0};
    fixture_submit(f, "preview=fail", 5, id);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    Draftd__V1__CreatePreviewRequest request = DRAFTD__V1__CREATE_PREVIEW_REQUEST__INIT;
    Draftd__V1__Preview *preview = NULL;
    request.job_id = id;
    assert_true(draftd_create_preview(f->d, &request, &preview, &err));
    struct ear ear;
    assert_true(listen_to(f, &ear, NULL, preview->id, 0, &err));
    fixture_free(preview);
    for (void *message; (message = hear(&ear, &err));)
        fixture_free(message);
    draftd_unwatch(ear.watcher);
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "the picture is too large"));
}

static void test_watch__a_job_tells_what_became_of_a_preview(void **state)
{
    static const char *const expected[] = {DRAFTD_PREVIEW_WAITS, "is being drawn", "failed: the picture is too large"};
    struct fixture *f = *state;
    char id[32];
    struct draft_error err = {0};
    fixture_submit(f, "ms=20 preview=fail", 40, id);
    struct ear ear;
    assert_true(listen_to(f, &ear, id, NULL, 0, &err));
    fixture_free(hear(&ear, &err)); /* the snapshot: what comes after it is told */
    Draftd__V1__CreatePreviewRequest request = DRAFTD__V1__CREATE_PREVIEW_REQUEST__INIT;
    Draftd__V1__Preview *preview = NULL;
    request.job_id = id;
    assert_true(draftd_create_preview(f->d, &request, &preview, &err));
    fixture_free(preview);
    size_t told = 0;
    Draftd__V1__WatchJobsResponse *response;
    while ((response = hear(&ear, &err))) {
        if (response->event && response->event->kind == DRAFTD__V1__JOB_EVENT__KIND__KIND_PREVIEW) {
            assert_in_range(told, 0, 2);
            assert_string_equal(response->event->message, expected[told++]);
        }
        fixture_free(response);
    }
    draftd_unwatch(ear.watcher);
    assert_int_equal(told, 3);
}

#define CASE(name) cmocka_unit_test_setup_teardown(test_watch__##name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(one_job_is_told_from_snapshot_to_end),
        CASE(a_stream_resumes_without_gap_or_double),
        CASE(resuming_outlives_the_daemon),
        CASE(all_jobs_are_told_on_one_stream),
        CASE(a_slow_reader_loses_no_state),
        CASE(a_forgotten_revision_is_refused),
        CASE(many_watchers_come_and_go),
        CASE(a_preview_is_followed_to_its_end),
        CASE(a_failed_preview_ends_with_its_error),
        CASE(a_job_tells_what_became_of_a_preview),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
