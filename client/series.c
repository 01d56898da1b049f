#include "series.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arguments.h"

static void *need(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

static void copy(const Draftd__V1__QueryMetricsResponse__Series *from, struct draft_series *to)
{
    size_t n = from->n_points;
    snprintf(to->name, sizeof to->name, "%s", from->name);
    to->count = n;
    to->steps = need(calloc(n + 1, sizeof *to->steps));
    to->values = need(calloc(n + 1, sizeof *to->values));
    to->low = need(calloc(n + 1, sizeof *to->low));
    to->high = need(calloc(n + 1, sizeof *to->high));
    to->attempts = need(calloc(n + 1, sizeof *to->attempts));
    to->times_us = need(calloc(n + 1, sizeof *to->times_us));
    for (size_t i = 0; i < n; i++) {
        const Draftd__V1__QueryMetricsResponse__Point *point = from->points[i];
        to->steps[i] = point->step;
        to->values[i] = point->value;
        to->low[i] = point->min;
        to->high[i] = point->max;
        to->attempts[i] = point->attempt;
        to->times_us[i] = point->time_us;
    }
}

bool draft_series_fetch(struct draft_rpc *rpc, const char *job_id, const char *const *names, int name_count,
                        int64_t since_step, int max_points, struct draft_series_set *out, struct draft_status *st)
{
    Draftd__V1__QueryMetricsRequest request = DRAFTD__V1__QUERY_METRICS_REQUEST__INIT;
    request.job_id = (char *)(uintptr_t)job_id;
    request.names = (char **)(uintptr_t)names;
    request.n_names = names ? (size_t)name_count : 0;
    request.since_step = since_step;
    request.max_points = max_points;
    *out = (struct draft_series_set){.count = 0};
    Draftd__V1__QueryMetricsResponse *reply = draft_rpc_query_metrics(rpc, &request, st);
    if (!reply)
        return false;
    out->count = (int)reply->n_series;
    out->last_step = reply->last_step;
    out->series = need(calloc(reply->n_series + 1, sizeof *out->series));
    for (size_t i = 0; i < reply->n_series; i++)
        copy(reply->series[i], &out->series[i]);
    draft_free_message(reply);
    return true;
}

bool draft_series_check(struct draft_rpc *rpc, const char *job_id, const char *const *names, int name_count,
                        struct draft_status *st)
{
    Draftd__V1__ListMetricsRequest request = DRAFTD__V1__LIST_METRICS_REQUEST__INIT;
    request.job_id = (char *)(uintptr_t)job_id;
    Draftd__V1__ListMetricsResponse *reply = draft_rpc_list_metrics(rpc, &request, st);
    if (!reply)
        return false;
    const char **known = need(calloc(reply->n_series + 1, sizeof *known));
    for (size_t i = 0; i < reply->n_series; i++)
        known[i] = reply->series[i]->name;
    for (int i = 0; i < name_count && st->code == DRAFT_STATUS_OK; i++) {
        size_t k = 0;
        while (k < reply->n_series && strcmp(known[k], names[i]) != 0)
            k++;
        const char *near = draft_nearest(names[i], known, (int)reply->n_series);
        if (k == reply->n_series)
            draft_status_fail(
                st, DRAFT_STATUS_NOT_FOUND,
                near ? "%s has no series \"%.60s\"; did you mean \"%s\"? `draft metrics %s --list` names all"
                     : "%s has no series \"%.60s\"%s; `draft metrics %s --list` names those it has",
                job_id, names[i], near ? near : "", job_id);
    }
    free(known);
    draft_free_message(reply);
    return st->code == DRAFT_STATUS_OK;
}

void draft_series_clear(struct draft_series_set *set)
{
    for (int i = 0; i < set->count; i++) {
        free(set->series[i].steps);
        free(set->series[i].values);
        free(set->series[i].low);
        free(set->series[i].high);
        free(set->series[i].attempts);
        free(set->series[i].times_us);
    }
    free(set->series);
    *set = (struct draft_series_set){.count = 0};
}

const struct draft_series *draft_series_find(const struct draft_series_set *set, const char *name)
{
    for (int i = 0; i < set->count; i++)
        if (!strcmp(set->series[i].name, name))
            return &set->series[i];
    return NULL;
}

double draft_series_at(const struct draft_series *series, int64_t step)
{
    for (size_t i = 0; series && i < series->count; i++)
        if (series->steps[i] == step)
            return series->values[i];
    return NAN;
}

double draft_series_last(const struct draft_series *series)
{
    return series && series->count ? series->values[series->count - 1] : NAN;
}

double draft_series_first(const struct draft_series *series)
{
    return series && series->count ? series->values[0] : NAN;
}
