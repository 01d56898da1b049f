/* MetricService. A series with more points than asked for is thinned to buckets of equal numbers of points that keep
 * minimum, maximum and last value: a spike stays visible, the last point is exact. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "job.h"
#include "message.h"
#include "requests.h"

enum { DEFAULT_POINTS = 1000, MOST_POINTS = 10000, MOST_SERIES = 1024, POINT_BYTES = 60 };

static bool check_job(struct draftd *d, const char *job_id, int64_t *number, struct draft_error *err)
{
    if (!draftd_job_number(job_id, number, err))
        return false;
    pthread_mutex_lock(&d->lock);
    Draftd__V1__Job *row = draftd_store_job(d->store, *number, err);
    pthread_mutex_unlock(&d->lock);
    draftd_message_free(row);
    return row != NULL;
}

bool draftd_list_metrics(struct draftd *d, const char *job_id, Draftd__V1__ListMetricsResponse **reply,
                         struct draft_error *err)
{
    int64_t job;
    if (!check_job(d, job_id, &job, err))
        return false;
    Draftd__V1__ListMetricsResponse *list = draftd_message_new(&draftd__v1__list_metrics_response__descriptor);
    if (draftd_store_list_series(d->store, job, list, err)) {
        *reply = list;
        return true;
    }
    draftd_message_free(list);
    return false;
}

struct thinning {
    Draftd__V1__QueryMetricsResponse__Series *series;
    int64_t total, seen;
    size_t buckets; /* 0: every point by itself */
};

static bool take_point(void *context, int64_t step, double value, int64_t time_us, int attempt)
{
    struct thinning *thin = context;
    Draftd__V1__QueryMetricsResponse__Series *series = thin->series;
    /* Points written since they were counted join the last bucket. */
    size_t bucket =
        thin->seen < thin->total ? (size_t)(thin->seen * (int64_t)thin->buckets / thin->total) : thin->buckets;
    thin->seen++;
    Draftd__V1__QueryMetricsResponse__Point *point;
    bool joins =
        thin->buckets && series->n_points > 0 && (bucket < series->n_points || series->n_points >= thin->buckets);
    if (joins) {
        point = series->points[series->n_points - 1];
        /* NaN is neither smaller nor larger: it shows only as a bucket's last value, or where there is nothing else */
        if (value < point->min || isnan(point->min))
            point->min = value;
        if (value > point->max || isnan(point->max))
            point->max = value;
    } else {
        point = draftd_message_new(&draftd__v1__query_metrics_response__point__descriptor);
        point->min = point->max = value;
        draftd_message_append(&series->points, &series->n_points, point);
    }
    point->step = step;
    point->value = value;
    point->time_us = time_us;
    point->attempt = attempt;
    return thin->buckets || series->n_points < MOST_POINTS;
}

static bool query(struct draftd *d, int64_t job, const char *name, int64_t since, int max_points,
                  Draftd__V1__QueryMetricsResponse *reply, struct draft_error *err)
{
    struct thinning thin = {0};
    if (!draftd_store_count_points(d->store, job, name, since, &thin.total, err))
        return false;
    thin.series = draftd_message_new(&draftd__v1__query_metrics_response__series__descriptor);
    draftd_message_string(&thin.series->name, name);
    draftd_message_append(&reply->series, &reply->n_series, thin.series);
    if (thin.total > max_points) {
        thin.buckets = (size_t)max_points;
        thin.series->thinned = true;
    }
    if (!draftd_store_points(d->store, job, name, since, &thin, take_point, err))
        return false;
    if (thin.series->n_points) {
        int64_t last = thin.series->points[thin.series->n_points - 1]->step;
        if (last > reply->last_step)
            reply->last_step = last;
    }
    return true;
}

bool draftd_query_metrics(struct draftd *d, const Draftd__V1__QueryMetricsRequest *request,
                          Draftd__V1__QueryMetricsResponse **reply, struct draft_error *err)
{
    int64_t job;
    if (!check_job(d, request->job_id, &job, err))
        return false;
    if (request->max_points < 0)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "max_points", "%d points cannot be given",
                                request->max_points);
    if (request->n_names > MOST_SERIES)
        return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, "names", "at most %d series a query", MOST_SERIES);
    Draftd__V1__ListMetricsResponse *all = draftd_message_new(&draftd__v1__list_metrics_response__descriptor);
    Draftd__V1__QueryMetricsResponse *answer = draftd_message_new(&draftd__v1__query_metrics_response__descriptor);
    bool ok = request->n_names > 0 || draftd_store_list_series(d->store, job, all, err);
    size_t count = request->n_names ? request->n_names : all->n_series;
    /* The reply must fit into a message: many series get fewer points each. */
    int64_t fit = count ? DRAFTD_REPLY_BYTES / POINT_BYTES / (int64_t)count : MOST_POINTS;
    int64_t points = request->max_points == 0            ? DEFAULT_POINTS
                     : request->max_points > MOST_POINTS ? MOST_POINTS
                                                         : request->max_points;
    points = points > fit ? (fit > 0 ? fit : 1) : points;
    for (size_t i = 0; ok && i < count; i++)
        ok = query(d, job, request->n_names ? request->names[i] : all->series[i]->name, request->since_step,
                   (int)points, answer, err);
    draftd_message_free(all);
    if (ok)
        *reply = answer;
    else
        draftd_message_free(answer);
    return ok;
}
