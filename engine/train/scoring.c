#include "train/scoring.h"

#include <stdio.h>
#include <stdlib.h>

#include "ops/ops.h"

static void name_term(struct draft_scoring *s, int i)
{
    const struct draft_reward_kind *kind = s->term[i]->kind;
    int same = 1;
    for (int j = 0; j < i; j++)
        same += s->term[j]->kind == kind;
    char number[12] = "";
    if (same > 1)
        snprintf(number, sizeof number, "%d", same);
    snprintf(s->name[i], sizeof s->name[i], "%.27s%s", kind->name, number);
    if (kind->measure_name && kind->measure)
        snprintf(s->measure[i], sizeof s->measure[i], "%.27s%s", kind->measure_name, number);
}

bool draft_scoring_open(struct draft_scoring *s, const struct draft_reward_spec *specs, int count,
                        struct draft_arena *arena, struct draft_error *err)
{
    *s = (struct draft_scoring){0};
    for (int i = 0; i < count; i++) {
        const struct draft_reward_kind *kind = draft_reward_kind_find(specs[i].kind);
        char field[40];
        snprintf(field, sizeof field, "spec.rewards[%d]", i);
        if (!kind) {
            draft_scoring_close(s);
            return draft_fail_field(err, DRAFT_INVALID_ARGUMENT, field, "there is no reward \"%s\"", specs[i].kind);
        }
        struct draft_reward *term = kind->open(&specs[i], arena, err);
        if (!term) {
            if (err && !err->field[0])
                snprintf(err->field, sizeof err->field, "%s", field);
            draft_scoring_close(s);
            return false;
        }
        s->term[i] = term;
        s->weight[i] = specs[i].weight;
        s->terms = i + 1;
        name_term(s, i);
    }
    return true;
}

void draft_scoring_close(struct draft_scoring *s)
{
    for (int i = 0; i < s->terms; i++)
        if (s->term[i]->kind->close)
            s->term[i]->kind->close(s->term[i]);
    *s = (struct draft_scoring){0};
}

struct draft_tensor *draft_score(struct draft_scoring *s, struct draft_graph *g, struct draft_tensor *images,
                                 const char *const *prompts, struct draft_tensor **term)
{
    struct draft_tensor *sum = NULL;
    for (int i = 0; draft_graph_ok(g) && i < s->terms; i++) {
        struct draft_tensor *r = s->term[i]->kind->score(s->term[i], g, images, prompts);
        if (term)
            term[i] = r;
        sum = draft_axpby(g, (float)s->weight[i], r, 1, sum);
    }
    return draft_graph_ok(g) ? sum : NULL;
}

bool draft_score_measures(struct draft_scoring *s, struct draft_graph *g, const struct draft_tensor *images,
                          double *sum)
{
    struct draft_error *err = &g->error;
    const float *pixels = NULL;
    int n = (int)images->dim[0];
    double *value = NULL;
    bool ok = true;
    for (int i = 0; ok && i < s->terms; i++) {
        if (!s->measure[i][0])
            continue;
        if (!value && !(value = malloc((size_t)n * sizeof *value)))
            return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the measures of %d pictures", n);
        if (!pixels)
            pixels = draft_read(g, images);
        ok = pixels &&
             s->term[i]->kind->measure(s->term[i], pixels, n, (int)images->dim[1], (int)images->dim[2], value, err);
        for (int j = 0; ok && j < n; j++)
            sum[i] += value[j];
    }
    free(value);
    return ok;
}
