/* From jobs' series to figures: one line a job. */
#ifndef DRAFT_CLIENT_CURVES_H
#define DRAFT_CLIENT_CURVES_H

#include "plot.h"
#include "series.h"

struct draft_run {
    char label[128];
    struct draft_rgb colour;
    int mark;
    struct draft_series_set set;
};

/* The arrays that axes point into. */
struct draft_curve_memory {
    double *blocks[DRAFT_PLOT_LINES * DRAFT_PLOT_AXES * 2];
    int count;
};
void draft_curve_memory_free(struct draft_curve_memory *memory);

/* Fills `axes` with y over x for every run that has them; x NULL: over the step. Points are matched by step. Strings
 * are kept, not copied. */
void draft_curves_fill(struct draft_axes *axes, const struct draft_run *runs, int count, const char *y, const char *x,
                       struct draft_curve_memory *memory);

/* "eval/lpips" -> "diversity: mean pairwise LPIPS"; unknown names stay what they are. */
const char *draft_series_words(const char *name);
const char *draft_series_short(const char *name); /* for an axis: "LPIPS" */

/* The value of `wanted` where `level_of` first reaches `level`, interpolated between two evaluations; NaN when it never
 * does. So two runs can be compared at equal reward. */
double draft_series_where(const struct draft_series_set *set, const char *level_of, double level, const char *wanted);

#endif
