#include "curves.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void draft_curve_memory_free(struct draft_curve_memory *memory)
{
    for (int i = 0; i < memory->count; i++)
        free(memory->blocks[i]);
    memory->count = 0;
}

static double *block(struct draft_curve_memory *memory, size_t count)
{
    double *values = calloc(count + 1, sizeof *values);
    if (!values || memory->count == (int)(sizeof memory->blocks / sizeof memory->blocks[0]))
        abort();
    memory->blocks[memory->count++] = values;
    return values;
}

static const struct {
    const char *name, *words, *brief;
} known[] = {
    {"step", "step (updates)", "step"},
    {"reward", "reward, training batches", "reward"},
    {"kl", "KL to the base, training batches", "KL"},
    {"loss", "loss", "loss"},
    {"grad_norm", "gradient norm before clipping", "gradient norm"},
    {"eval/reward", "reward, evaluation set", "reward"},
    {"eval/kl", "KL to the base, evaluation set", "KL"},
    {"eval/lpips", "diversity (mean pairwise LPIPS)", "LPIPS"},
};

const char *draft_series_words(const char *name)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(known[i].name, name))
            return known[i].words;
    return name;
}

const char *draft_series_short(const char *name)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(known[i].name, name))
            return known[i].brief;
    return name;
}

void draft_curves_fill(struct draft_axes *axes, const struct draft_run *runs, int count, const char *y, const char *x,
                       struct draft_curve_memory *memory)
{
    axes->whole_x = x == NULL;
    axes->x_label = draft_series_words(x ? x : "step");
    axes->y_label = draft_series_words(y);
    for (int r = 0; r < count && axes->count < DRAFT_PLOT_LINES; r++) {
        const struct draft_series *ys = draft_series_find(&runs[r].set, y);
        const struct draft_series *xs = x ? draft_series_find(&runs[r].set, x) : NULL;
        if (!ys || (x && !xs))
            continue;
        double *px = block(memory, ys->count), *py = block(memory, ys->count);
        size_t n = 0;
        for (size_t i = 0; i < ys->count; i++) {
            double at = x ? draft_series_at(xs, ys->steps[i]) : (double)ys->steps[i];
            if (x && isnan(at))
                continue;
            px[n] = at;
            py[n++] = ys->values[i];
        }
        axes->lines[axes->count++] = (struct draft_line){
            .label = runs[r].label,
            .x = px,
            .y = py,
            .count = n,
            .colour = runs[r].colour,
            .mark = runs[r].mark,
            .style = strncmp(y, "eval/", 5) == 0 ? DRAFT_LINE_MARKED : DRAFT_LINE_SMOOTH,
        };
    }
}

double draft_series_where(const struct draft_series_set *set, const char *level_of, double level, const char *wanted)
{
    const struct draft_series *levels = draft_series_find(set, level_of), *values = draft_series_find(set, wanted);
    double before = NAN, value_before = NAN;
    for (size_t i = 0; levels && values && i < levels->count; i++) {
        double now = levels->values[i], value = draft_series_at(values, levels->steps[i]);
        if (now >= level && i == 0)
            return value;
        if (now >= level)
            return value_before + (value - value_before) * (level - before) / (now - before);
        before = now;
        value_before = value;
    }
    return NAN;
}
