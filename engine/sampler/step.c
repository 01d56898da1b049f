#include <assert.h>
#include <math.h>
#include <string.h>

#include "backend/backend.h"
#include "ops/ops.h"
#include "sampler/sampler.h"

static struct draft_tensor *scaled(struct draft_graph *g, double by, struct draft_tensor *x)
{
    return by == 1 ? x : draft_axpby(g, (float)by, x, 0, NULL);
}

struct draft_tensor *draft_sampler_start(struct draft_graph *g, const struct draft_sampler_plan *plan,
                                         struct draft_tensor *noise)
{
    return scaled(g, plan->init_noise, noise);
}

struct draft_tensor *draft_sampler_input(struct draft_graph *g, const struct draft_sampler_step *step,
                                         struct draft_tensor *x)
{
    return scaled(g, step->input_scale, x);
}

struct draft_tensor *draft_sampler_epsilon(struct draft_graph *g, const struct draft_sampler_step *step,
                                           struct draft_tensor *x, struct draft_tensor *m)
{
    if (step->eps_x == 0 && step->eps_m == 1)
        return m;
    return draft_axpby(g, (float)step->eps_m, m, (float)step->eps_x, x);
}

struct draft_predicted draft_sampler_predict(struct draft_graph *g, const struct draft_sampler_plan *plan,
                                             const struct draft_sampler_step *step, struct draft_tensor *x,
                                             struct draft_tensor *m)
{
    struct draft_predicted p;
    p.eps = draft_sampler_epsilon(g, step, x, m);
    p.x0 = draft_axpby(g, (float)step->x0_x, x, (float)step->x0_m, m);
    if (isfinite(plan->clip))
        p.x0 = draft_scale_clamp(g, p.x0, 1, 0, -(float)plan->clip, (float)plan->clip);
    return p;
}

bool draft_sampler_history_make(struct draft_graph *g, const struct draft_sampler_plan *plan,
                                const struct draft_tensor *x, struct draft_sampler_history *history)
{
    *history = (struct draft_sampler_history){{NULL}};
    for (int k = 0; k < plan->sampler->past; k++) {
        struct draft_tensor *slot = draft_new(g, DRAFT_F32, x->rank, x->dim);
        if (!slot)
            return false;
        if (!draft_backend_fill(g->backend, draft_f32(slot), draft_tensor_count(slot), 0, &g->error))
            return false;
        history->past[k] = slot;
    }
    return true;
}

static void keep(struct draft_graph *g, const struct draft_sampler_plan *plan, struct draft_tensor *value,
                 struct draft_sampler_history *history)
{
    int last = plan->sampler->past - 1;
    assert(last >= 0);
    if (!value)
        return; /* the graph has failed */
    struct draft_tensor *oldest = history->past[last];
    for (int k = last; k > 0; k--)
        history->past[k] = history->past[k - 1];
    history->past[0] = g->recording ? value : oldest;
    if (!g->recording)
        draft_copy_values(g, oldest, value);
}

/* A weighted sum, two terms at a time. */
struct sum {
    struct draft_tensor *value; /* what is summed up to now */
    double weight;              /* of it */
};

static void add(struct draft_graph *g, struct sum *sum, double weight, struct draft_tensor *term)
{
    if (weight == 0 || !draft_graph_ok(g))
        return;
    if (!sum->value) {
        *sum = (struct sum){term, weight};
        return;
    }
    sum->value = draft_axpby(g, (float)sum->weight, sum->value, (float)weight, term);
    sum->weight = 1;
}

struct draft_tensor *draft_sampler_advance(struct draft_graph *g, const struct draft_sampler_plan *plan,
                                           const struct draft_sampler_step *step, struct draft_tensor *x,
                                           struct draft_tensor *m, const struct draft_predicted *predicted,
                                           struct draft_sampler_history *history, struct draft_tensor *fresh)
{
    struct sum sum = {NULL, 1};
    add(g, &sum, step->to_x0, predicted->x0);
    add(g, &sum, step->to_eps, predicted->eps);
    add(g, &sum, step->to_x, x);
    add(g, &sum, step->to_m, m);
    for (int k = 0; k < plan->sampler->past; k++)
        add(g, &sum, step->to_past[k], history->past[k]);
    assert(step->to_fresh == 0 || fresh || !draft_graph_ok(g));
    add(g, &sum, step->to_fresh, fresh);
    if (!draft_graph_ok(g))
        return NULL;
    assert(sum.value);
    if (step->keep_x)
        keep(g, plan, x, history);
    if (step->keep_m)
        keep(g, plan, m, history);
    if (step->keep_x0)
        keep(g, plan, predicted->x0, history);
    return scaled(g, sum.weight, sum.value);
}
