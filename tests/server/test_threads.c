/* Many threads at the daemon's door at once: what the thread sanitizer is for. */
#include "daemon_fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "message.h"

enum { THREADS = 6, ROUNDS = 12 };

struct caller {
    struct fixture *f;
    unsigned seed;
    int made;
    char failure[1200];
};

static void ring(void *context)
{
    atomic_fetch_add((atomic_int *)context, 1);
}

static void look(struct fixture *f, const char *id)
{
    Draftd__V1__ListJobsRequest jobs = DRAFTD__V1__LIST_JOBS_REQUEST__INIT;
    Draftd__V1__ListJobsResponse *list = NULL;
    if (draftd_list_jobs(f->d, &jobs, &list, NULL))
        fixture_free(list);
    Draftd__V1__QueryMetricsRequest metrics = DRAFTD__V1__QUERY_METRICS_REQUEST__INIT;
    Draftd__V1__QueryMetricsResponse *points = NULL;
    metrics.job_id = (char *)id;
    if (draftd_query_metrics(f->d, &metrics, &points, NULL))
        fixture_free(points);
    Draftd__V1__GetServerInfoResponse *info = NULL;
    if (draftd_server_info(f->d, &info, NULL))
        fixture_free(info);
}

static void watch(struct fixture *f, const char *id)
{
    atomic_int rings = 0;
    struct draftd_watcher *watcher = draftd_watch(f->d, id, NULL, 0, ring, &rings, NULL);
    if (watcher == NULL)
        return; /* deleted by another */
    for (int i = 0; i < 5; i++) {
        ProtobufCMessage *message = NULL;
        bool end = false;
        while (draftd_watch_next(watcher, &message, &end, NULL) && message)
            fixture_free(message);
        usleep(2000);
    }
    draftd_unwatch(watcher);
}

static void *call(void *context)
{
    struct caller *caller = context;
    struct fixture *f = caller->f;
    for (int round = 0; round < ROUNDS; round++) {
        char id[32];
        Draftd__V1__Job *job = NULL;
        struct draft_error err = {0};
        Draftd__V1__JobSpec *spec = fixture_spec(f, round % 4 == 3 ? "crash@2" : "ms=1", 8);
        bool ok = fixture_try_submit(f, spec, "", id, &err);
        for (int again = 0; !ok && err.code == DRAFT_UNAVAILABLE && !draftd_is_draining(f->d) && again < 10; again++) {
            err = (struct draft_error){0}; /* a slow machine: the checker was taken for hung */
            ok = fixture_try_submit(f, spec, "", id, &err);
        }
        fixture_free(spec);
        if (!ok) {
            snprintf(caller->failure, sizeof caller->failure, "a submit was refused: %s", err.message);
            return NULL;
        }
        caller->made++;
        look(f, id);
        if (rand_r(&caller->seed) % 2)
            watch(f, id);
        switch (rand_r(&caller->seed) % 5) {
        case 0:
            if (draftd_cancel_job(f->d, id, &job, NULL))
                fixture_free(job);
            break;
        case 1:
            if (draftd_pause_job(f->d, id, draftd_within(FIXTURE_MS), &job, NULL))
                fixture_free(job);
            job = NULL;
            if (draftd_resume_job(f->d, id, draftd_within(FIXTURE_MS), &job, NULL))
                fixture_free(job);
            break;
        case 2: {
            Draftd__V1__CreatePreviewRequest request = DRAFTD__V1__CREATE_PREVIEW_REQUEST__INIT;
            Draftd__V1__Preview *preview = NULL;
            request.job_id = id;
            if (draftd_create_preview(f->d, &request, &preview, NULL))
                fixture_free(preview);
            break;
        }
        case 3:
            draftd_delete_job(f->d, id, NULL); /* mostly refused: it is queued */
            break;
        default:
            look(f, id);
        }
    }
    return NULL;
}

static void test_threads__callers_on_many_threads_get_along(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[THREADS];
    struct caller callers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        callers[i] = (struct caller){.f = f, .seed = (unsigned)i + 1};
        assert_int_equal(pthread_create(&threads[i], NULL, call, &callers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++) {
        assert_string_equal(callers[i].failure, "");
        assert_int_equal(callers[i].made, ROUNDS);
    }
    char last[32]; /* all ids were given once, and the daemon still works */
    fixture_submit(f, "", 3, last);
    assert_string_equal(last, "job-73");
    fixture_free(fixture_wait(f, last, SUCCEEDED));
}

static void test_threads__a_drain_in_the_middle_lets_every_caller_go(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[THREADS];
    struct caller callers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        callers[i] = (struct caller){.f = f, .seed = (unsigned)i + 100};
        assert_int_equal(pthread_create(&threads[i], NULL, call, &callers[i]), 0);
    }
    usleep(150000);
    draftd_drain(f->d);
    assert_true(draftd_is_draining(f->d));
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL); /* refused submits end them */
    Draftd__V1__GetServerInfoResponse *info = NULL;
    assert_true(draftd_server_info(f->d, &info, NULL));
    assert_int_equal(info->running_jobs, 0);
    assert_true(info->draining);
    fixture_free(info);
}

#define CASE(name) cmocka_unit_test_setup_teardown(test_threads__##name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(callers_on_many_threads_get_along),
        CASE(a_drain_in_the_middle_lets_every_caller_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
