/* Metric series of a job, fetched and held as plain arrays. */
#ifndef DRAFT_CLIENT_SERIES_H
#define DRAFT_CLIENT_SERIES_H

#include "rpc/rpc.h"

struct draft_series {
    char name[64];
    size_t count;
    int64_t *steps;
    double *values, *low, *high; /* low and high: of the bucket, where the daemon thinned the series */
    int32_t *attempts;
    int64_t *times_us;
};

struct draft_series_set {
    int count;
    struct draft_series *series; /* in the daemon's order */
    int64_t last_step;
};

/* names NULL: all. max_points 0: the daemon's default. */
bool draft_series_fetch(struct draft_rpc *rpc, const char *job_id, const char *const *names, int name_count,
                        int64_t since_step, int max_points, struct draft_series_set *out, struct draft_status *st);
/* NOT_FOUND, with the name that was probably meant, when the job has no point of a series, at whatever step. */
bool draft_series_check(struct draft_rpc *rpc, const char *job_id, const char *const *names, int name_count,
                        struct draft_status *st);
void draft_series_clear(struct draft_series_set *set);

const struct draft_series *draft_series_find(const struct draft_series_set *set, const char *name); /* or NULL */
/* The value at a step, NaN when there is none. */
double draft_series_at(const struct draft_series *series, int64_t step);
double draft_series_last(const struct draft_series *series); /* NaN when NULL or empty */
double draft_series_first(const struct draft_series *series);

#endif
