/* Series: NaN on its way from worker to client, since_step, thinning that keeps spikes and the last point. */
#include "daemon_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "message.h"
#include "store/store.h"

static void test_metrics__nan_and_infinity_arrive_as_they_are(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_submit(f, "nan@4 inf@6", 10, id);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    Draftd__V1__QueryMetricsResponse *reply = fixture_points(f, id, "reward");
    assert_int_equal(reply->series[0]->n_points, 10);
    assert_true(isnan(reply->series[0]->points[3]->value));
    assert_true(isinf(reply->series[0]->points[5]->value));
    assert_true(isfinite(reply->series[0]->points[6]->value));
    assert_int_equal(reply->last_step, 10);
    fixture_free(reply);
    reply = fixture_points(f, id, "kl");
    assert_true(isinf(reply->series[0]->points[5]->value) && reply->series[0]->points[5]->value < 0);
    fixture_free(reply);
}

static void test_metrics__series_are_listed(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_submit(f, "", 20, id);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    Draftd__V1__ListMetricsResponse *list = NULL;
    assert_true(draftd_list_metrics(f->d, id, &list, NULL));
    assert_int_equal(list->n_series, 6);
    assert_string_equal(list->series[0]->name, "eval/kl");
    assert_int_equal(list->series[0]->points, 3); /* steps 0, 10, 20 */
    assert_int_equal(list->series[0]->first_step, 0);
    assert_int_equal(list->series[0]->last_step, 20);
    assert_true(list->series[0]->last_value == 0.2);
    fixture_free(list);
}

static void test_metrics__a_query_begins_where_it_is_told(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_submit(f, "", 20, id);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    Draftd__V1__QueryMetricsRequest request = DRAFTD__V1__QUERY_METRICS_REQUEST__INIT;
    Draftd__V1__QueryMetricsResponse *reply = NULL;
    char *names[] = {(char *)"kl", (char *)"no such series"};
    request.job_id = id;
    request.since_step = 18;
    request.names = names;
    request.n_names = 2;
    assert_true(draftd_query_metrics(f->d, &request, &reply, NULL));
    assert_int_equal(reply->n_series, 2);
    assert_int_equal(reply->series[0]->n_points, 3);
    assert_int_equal(reply->series[0]->points[0]->step, 18);
    assert_int_equal(reply->series[1]->n_points, 0);
    fixture_free(reply);
    request.n_names = 0; /* all series */
    request.since_step = 0;
    assert_true(draftd_query_metrics(f->d, &request, &reply, NULL));
    assert_int_equal(reply->n_series, 6);
    fixture_free(reply);
    struct draft_error err = {0};
    request.max_points = -1;
    assert_false(draftd_query_metrics(f->d, &request, &reply, &err));
    assert_string_equal(err.field, "max_points");
}

/* 5000 points 0, 1, 2 ... with one spike, one dip and one NaN, written past the daemon. */
static void write_series(struct fixture *f, const char *id)
{
    struct draft_error err = {0};
    int64_t job = draftd_parse_id("job", id);
    fixture_close(f);
    struct draftd_store *store = draftd_store_open(f->state, &err);
    assert_non_null(store);
    assert_true(draftd_store_begin(store, DRAFTD_RELAXED, &err));
    for (int64_t step = 1; step <= 5000; step++) {
        double value = step == 1234 ? 1e9 : step == 4001 ? -1e9 : step == 2500 ? NAN : (double)step;
        assert_true(draftd_store_metric(store, job, "long", step, 1, step, value, &err));
    }
    assert_true(draftd_store_commit(store, &err));
    draftd_store_close(store);
    fixture_open(f);
}

static void test_metrics__thinning_keeps_extremes_and_the_last_point(void **state)
{
    struct fixture *f = *state;
    char id[32];
    fixture_submit(f, "", 5, id);
    fixture_free(fixture_wait(f, id, SUCCEEDED));
    write_series(f, id);
    static const int sizes[] = {1, 2, 7, 100, 1000, 4999, 5000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        Draftd__V1__QueryMetricsRequest request = DRAFTD__V1__QUERY_METRICS_REQUEST__INIT;
        Draftd__V1__QueryMetricsResponse *reply = NULL;
        char *names[] = {(char *)"long"};
        request.job_id = id;
        request.names = names;
        request.n_names = 1;
        request.max_points = sizes[i];
        assert_true(draftd_query_metrics(f->d, &request, &reply, NULL));
        Draftd__V1__QueryMetricsResponse__Series *series = reply->series[0];
        assert_int_equal(series->n_points, sizes[i]);
        assert_int_equal(series->thinned, sizes[i] < 5000);
        Draftd__V1__QueryMetricsResponse__Point *last = series->points[series->n_points - 1];
        assert_int_equal(last->step, 5000);
        assert_true(last->value == 5000);
        double min = INFINITY, max = -INFINITY;
        int64_t before = 0;
        for (size_t k = 0; k < series->n_points; k++) {
            min = fmin(min, series->points[k]->min);
            max = fmax(max, series->points[k]->max);
            assert_true(series->points[k]->step > before);
            before = series->points[k]->step;
        }
        assert_true(min == -1e9 && max == 1e9);
        fixture_free(reply);
    }
}

#define CASE(name) cmocka_unit_test_setup_teardown(test_metrics__##name, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(nan_and_infinity_arrive_as_they_are),
        CASE(series_are_listed),
        CASE(a_query_begins_where_it_is_told),
        CASE(thinning_keeps_extremes_and_the_last_point),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
