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
            draft_scoring_close(s);
            return draft_error_blame(err, field);
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

bool draft_score_read(struct draft_scoring *s, struct draft_graph *g, const char *const *prompts, int64_t n,
                      struct draft_asked *asked)
{
    *asked = (struct draft_asked){{NULL}};
    for (int i = 0; draft_graph_ok(g) && i < s->terms; i++)
        if (s->term[i]->kind->read)
            asked->text[i] = s->term[i]->kind->read(s->term[i], g, prompts, n);
    return draft_graph_ok(g);
}

struct draft_tensor *draft_score(struct draft_scoring *s, struct draft_graph *g, struct draft_tensor *images,
                                 const struct draft_asked *asked, struct draft_tensor **term)
{
    struct draft_tensor *sum = NULL;
    for (int i = 0; draft_graph_ok(g) && i < s->terms; i++) {
        struct draft_tensor *r = s->term[i]->kind->score(s->term[i], g, images, asked->text[i]);
        if (term)
            term[i] = r;
        sum = draft_axpby(g, (float)s->weight[i], r, 1, sum);
    }
    return draft_graph_ok(g) ? sum : NULL;
}

bool draft_score_measured(const struct draft_scoring *s)
{
    bool any = false;
    for (int i = 0; i < s->terms; i++)
        any |= s->measure[i][0] != '\0';
    return any;
}

bool draft_score_measures(struct draft_scoring *s, const float *pictures, int n, int h, int w, double *sum,
                          struct draft_error *err)
{
    if (!draft_score_measured(s))
        return true;
    double *value = malloc((size_t)n * sizeof *value);
    bool ok = value || draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the measures of %d pictures", n);
    for (int i = 0; ok && i < s->terms; i++) {
        if (!s->measure[i][0])
            continue;
        ok = s->term[i]->kind->measure(s->term[i], pictures, n, h, w, value, err);
        for (int j = 0; ok && j < n; j++)
            sum[i] += value[j];
    }
    free(value);
    return ok;
}
