/* A step's numbers on their way: kept by each micro-batch, filed into the step's, read when somebody asks. */
#include "train/draft_plus_results.h"

#include <math.h>
#include <string.h>

#include "backend/backend.h"
#include "ops/ops.h"

/* Where each kind of result begins in draft_plus_results' values. */
struct layout {
    int64_t clock, loss, kl, reward, term, picture, end;
};

/* Doubles in between. */
enum { CLOCK_LAST, CLOCK_PHASES, CLOCK_END = CLOCK_PHASES + DRAFT_PLUS_PHASES };

static struct layout layout_of(const struct draft_plus_results *r)
{
    const int64_t doubles = sizeof(double) / sizeof(float);
    struct layout at = {.clock = doubles, .loss = doubles + CLOCK_END * doubles};
    at.kl = at.loss + r->parts * r->copies;
    at.reward = at.kl + r->parts * r->copies;
    at.term = at.reward + r->copies * r->n;
    at.picture = at.term + r->terms * r->copies * r->n;
    at.end = at.picture + r->copies * r->n * r->picture;
    return at;
}

bool draft_plus_results_make(const struct draft_plus *dp, int64_t n, int64_t micro_batch, int64_t copies,
                             struct draft_plus_results *r)
{
    const int factor = dp->pipeline->vae_info.factor;
    *r = (struct draft_plus_results){.n = n,
                                     .parts = (n + micro_batch - 1) / micro_batch,
                                     .copies = copies,
                                     .terms = dp->scoring->terms,
                                     .height = (int)dp->height * factor,
                                     .width = (int)dp->width * factor};
    if (draft_score_measured(dp->scoring))
        r->picture = (int64_t)r->height * r->width * 3;
    r->values = draft_new(dp->graph, DRAFT_F32, 1, (int64_t[]){layout_of(r).end});
    /* without a KL or an optimizer theirs stay as they are here; the clock's sums begin at zero */
    return r->values &&
           draft_backend_fill(dp->graph->backend, draft_f32(r->values), layout_of(r).reward, 0, &dp->graph->error);
}

/* --- The clock ---------------------------------------------------------------------------------------------------- */

static double *clock_of(const struct draft_plus_results *r)
{
    return (double *)(void *)(draft_f32(r->values) + layout_of(r).clock);
}

bool draft_plus_results_start(struct draft_graph *g, const struct draft_plus_results *r)
{
    return draft_backend_lap(g->backend, clock_of(r) + CLOCK_LAST, NULL, &g->error);
}

bool draft_plus_results_lap(struct draft_graph *g, const struct draft_plus_results *r, enum draft_plus_phase phase)
{
    double *clock = clock_of(r);
    return draft_graph_ok(g) &&
           draft_backend_lap(g->backend, clock + CLOCK_LAST, clock + CLOCK_PHASES + phase, &g->error);
}

/* --- Numbers ------------------------------------------------------------------------------------------------------ */

/* `count` numbers of some results, beginning at `offset` of them. */
static struct draft_tensor numbers_at(const struct draft_plus_results *r, int64_t offset, int64_t count)
{
    return (struct draft_tensor){.dtype = DRAFT_F32, .rank = 1, .dim = {count}, .data = draft_f32(r->values) + offset};
}

static void keep(struct draft_graph *g, const struct draft_plus_results *r, int64_t offset,
                 const struct draft_tensor *value)
{
    if (!value || !draft_graph_ok(g))
        return;
    struct draft_tensor at = numbers_at(r, offset, draft_tensor_count(value));
    draft_copy_values(g, &at, value);
}

void draft_plus_results_keep(struct draft_graph *g, const struct draft_plus_results *own,
                             const struct draft_tensor *loss, const struct draft_tensor *kl,
                             const struct draft_tensor *rewards, struct draft_tensor *const *term,
                             const struct draft_tensor *image)
{
    const struct layout at = layout_of(own);
    keep(g, own, at.loss, loss);
    keep(g, own, at.kl, kl);
    keep(g, own, at.reward, rewards);
    for (int t = 0; t < own->terms; t++)
        keep(g, own, at.term + t * own->n, term[t]);
    if (own->picture > 0)
        keep(g, own, at.picture, image);
}

bool draft_plus_results_file(const struct draft_plus *dp, const struct draft_plus_results *own, int64_t first,
                             int64_t copy, const struct draft_plus_results *all)
{
    const struct layout from = layout_of(own), to = layout_of(all);
    const int64_t which = first / dp->micro_batch * all->copies + copy, picture = copy * all->n + first, n = own->n;
    struct move {
        int64_t to, from, count;
    } moves[4 + DRAFT_MAX_TERMS] = {{to.loss + which, from.loss, 1}, {to.reward + picture, from.reward, n}};
    int count = 2;
    if (dp->kl_coeff > 0)
        moves[count++] = (struct move){to.kl + which, from.kl, 1};
    for (int64_t t = 0; t < all->terms; t++)
        moves[count++] = (struct move){to.term + t * all->copies * all->n + picture, from.term + t * n, n};
    if (all->picture > 0)
        moves[count++] = (struct move){to.picture + picture * all->picture, from.picture, n * all->picture};
    for (int i = 0; i < count; i++) {
        struct draft_tensor there = numbers_at(all, moves[i].to, moves[i].count);
        struct draft_tensor here = numbers_at(own, moves[i].from, moves[i].count);
        draft_copy_values(dp->graph, &there, &here);
    }
    return draft_graph_ok(dp->graph);
}

struct draft_guard draft_plus_guard(const struct draft_plus_results *r)
{
    float *values = draft_f32(r->values);
    return (struct draft_guard){values + layout_of(r).loss, r->parts * r->copies, (double *)(void *)values};
}

/* Sums over all pictures of a step. */
struct sums {
    double reward, reward_squared, kl;
    double term[DRAFT_MAX_TERMS], measure[DRAFT_MAX_TERMS];
};

/* One micro-batch's pictures, or one of their copies. */
static bool add_part(const struct draft_plus *dp, const struct draft_plus_results *r, const float *values, int64_t part,
                     int64_t copy, struct sums *sums, struct draft_error *err)
{
    const struct layout at = layout_of(r);
    const int64_t first = part * dp->micro_batch, left = r->n - first;
    const int64_t n = left < dp->micro_batch ? left : dp->micro_batch, picture = copy * r->n + first;
    for (int64_t i = 0; i < n; i++) {
        double reward = values[at.reward + picture + i];
        sums->reward += reward;
        sums->reward_squared += reward * reward;
    }
    for (int64_t t = 0; t < r->terms; t++)
        for (int64_t i = 0; i < n; i++)
            sums->term[t] += values[at.term + t * r->copies * r->n + picture + i];
    sums->kl += (double)n * (double)values[at.kl + part * r->copies + copy];
    return r->picture == 0 || draft_score_measures(dp->scoring, values + at.picture + picture * r->picture, (int)n,
                                                   r->height, r->width, sums->measure, err);
}

static void divide(const struct draft_plus *dp, const struct sums *sums, double pictures,
                   struct draft_plus_numbers *out)
{
    out->reward = sums->reward / pictures;
    out->kl = sums->kl / pictures;
    out->loss = -out->reward + dp->kl_coeff * out->kl;
    double variance = sums->reward_squared / pictures - out->reward * out->reward;
    out->reward_std = variance < 0 ? 0 : sqrt(variance);
    for (int t = 0; t < dp->scoring->terms; t++) {
        out->term[t] = sums->term[t] / pictures;
        out->measure[t] = sums->measure[t] / pictures;
    }
}

bool draft_plus_read(const struct draft_plus *dp, const struct draft_plus_results *r,
                     struct draft_plus_numbers *numbers, struct draft_error *err)
{
    struct draft_graph *g = dp->graph;
    *numbers = (struct draft_plus_numbers){.loss = 0};
    const float *values = draft_plus_results_lap(g, r, DRAFT_PLUS_OPTIMIZER) ? draft_read(g, r->values) : NULL;
    struct sums sums = {0};
    bool ok = values != NULL;
    for (int64_t part = 0; ok && part < r->parts; part++)
        for (int64_t copy = 0; ok && copy < r->copies; copy++)
            ok = add_part(dp, r, values, part, copy, &sums, &g->error);
    if (ok) {
        memcpy(&numbers->grad_norm, values, sizeof numbers->grad_norm);
        memcpy(numbers->seconds, (const double *)(const void *)(values + layout_of(r).clock) + CLOCK_PHASES,
               sizeof numbers->seconds);
        numbers->finite = isfinite(numbers->grad_norm);
        for (int64_t i = 0; i < r->parts * r->copies; i++)
            numbers->finite = numbers->finite && isfinite(values[layout_of(r).loss + i]);
        divide(dp, &sums, (double)(r->n * r->copies), numbers);
    } else {
        draft_fail(err, g->error.code, "%s", g->error.message);
    }
    draft_graph_reset(g, NULL);
    return ok;
}
