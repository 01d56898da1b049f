/* A set of series as rows, one a step: for people, as CSV (RFC 4180), as JSON. */
#ifndef DRAFT_CLIENT_METRIC_ROWS_H
#define DRAFT_CLIENT_METRIC_ROWS_H

#include <stdio.h>

#include "series.h"
#include "terminal.h"

void draft_metrics_table(const struct draft_series_set *set, const struct draft_terminal *terminal);
/* "step,reward,kl": numbers with all their digits, NaN as NaN, no point as nothing. */
void draft_metrics_csv(const struct draft_series_set *set, FILE *out);
/* {"job": id, "last_step": n, "series": {"reward": {"steps": [...], "values": [...], "min": [...], "max": [...],
 * "attempts": [...]}}}; NaN and infinities are the strings "NaN", "Infinity", "-Infinity". */
void draft_metrics_json(const struct draft_series_set *set, const char *job_id, FILE *out);

#endif
