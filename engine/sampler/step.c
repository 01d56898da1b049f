#include <assert.h>
#include <math.h>
#include <string.h>

#include "backend/backend.h"
#include "ops/ops.h"
#include "sampler/sampler.h"

/* Places in a step's `at`. */
enum { TIMESTEP, INPUT, X0_X, X0_M, EPS_X, EPS_M, TO_X0, TO_EPS, TO_X, TO_M, TO_FRESH, ONE, TO_PAST };

struct draft_tensor *draft_sampler_numbers(struct draft_graph *g)
{
    return draft_new(g, DRAFT_F32, 1, (int64_t[]){DRAFT_SAMPLER_NUMBERS});
}

bool draft_sampler_place(struct draft_graph *g, const struct draft_sampler_step *planned, struct draft_tensor *at,
                         struct draft_sampler_step *step)
{
    struct draft_mark mark = draft_graph_mark(g);
    float *n = draft_write(g, at);
    if (!n)
        return false;
    const double numbers[TO_PAST] = {
        [TIMESTEP] = planned->timestep, [INPUT] = planned->input_scale, [X0_X] = planned->x0_x,
        [X0_M] = planned->x0_m,         [EPS_X] = planned->eps_x,       [EPS_M] = planned->eps_m,
        [TO_X0] = planned->to_x0,       [TO_EPS] = planned->to_eps,     [TO_X] = planned->to_x,
        [TO_M] = planned->to_m,         [TO_FRESH] = planned->to_fresh, [ONE] = 1};
    for (int i = 0; i < TO_PAST; i++)
        n[i] = (float)numbers[i];
    for (int k = 0; k < DRAFT_SAMPLER_PAST; k++)
        n[TO_PAST + k] = (float)planned->to_past[k];
    bool written = draft_written(g, at, n);
    draft_graph_release(g, mark);
    *step = *planned;
    step->at = at;
    return written;
}

uint32_t draft_sampler_form(const struct draft_sampler_step *s)
{
    const double weight[] = {s->to_x0,      s->to_eps,     s->to_x,       s->to_m,
                             s->to_past[0], s->to_past[1], s->to_past[2], s->to_fresh};
    uint32_t form = 0;
    for (size_t k = 0; k < sizeof weight / sizeof *weight; k++)
        form = form << 2 | (weight[k] == 0 ? 0 : weight[k] == 1 ? 1 : 2);
    const bool which[] = {s->input_scale == 1, s->eps_x == 0 && s->eps_m == 1, s->keep_x, s->keep_m, s->keep_x0};
    for (size_t k = 0; k < sizeof which / sizeof *which; k++)
        form = form << 1 | which[k];
    return form;
}

struct draft_tensor *draft_sampler_timestep(struct draft_graph *g, const struct draft_sampler_step *step)
{
    return draft_graph_ok(g) ? draft_new_view(g, step->at, 1, (int64_t[]){1}, TIMESTEP) : NULL;
}

struct draft_tensor *draft_sampler_start(struct draft_graph *g, const struct draft_sampler_plan *plan,
                                         struct draft_tensor *noise)
{
    return plan->init_noise == 1 ? noise : draft_axpby(g, (float)plan->init_noise, noise, 0, NULL);
}

struct draft_tensor *draft_sampler_input(struct draft_graph *g, const struct draft_sampler_step *step,
                                         struct draft_tensor *x)
{
    return step->input_scale == 1 ? x : draft_combine(g, step->at, INPUT, x, ONE, NULL);
}

struct draft_tensor *draft_sampler_epsilon(struct draft_graph *g, const struct draft_sampler_step *step,
                                           struct draft_tensor *x, struct draft_tensor *m)
{
    if (step->eps_x == 0 && step->eps_m == 1)
        return m;
    return draft_combine(g, step->at, EPS_M, m, EPS_X, x);
}

struct draft_predicted draft_sampler_predict(struct draft_graph *g, const struct draft_sampler_plan *plan,
                                             const struct draft_sampler_step *step, struct draft_tensor *x,
                                             struct draft_tensor *m)
{
    struct draft_predicted p;
    p.eps = draft_sampler_epsilon(g, step, x, m);
    p.x0 = draft_combine(g, step->at, X0_X, x, X0_M, m);
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
    for (int k = last; k > 0; k--)
        if (g->recording)
            history->past[k] = history->past[k - 1];
        else
            draft_copy_values(g, history->past[k], history->past[k - 1]);
    if (g->recording)
        history->past[0] = value;
    else
        draft_copy_values(g, history->past[0], value);
}

/* A weighted sum, two terms at a time. */
struct sum {
    struct draft_tensor *value; /* what is summed up to now */
    double weight;              /* of it */
    int place;                  /* of the weight */
};

static void add(struct draft_graph *g, const struct draft_sampler_step *step, struct sum *sum, double weight, int place,
                struct draft_tensor *term)
{
    if (weight == 0 || !draft_graph_ok(g))
        return;
    *sum = sum->value ? (struct sum){draft_combine(g, step->at, sum->place, sum->value, place, term), 1, ONE}
                      : (struct sum){term, weight, place};
}

struct draft_tensor *draft_sampler_advance(struct draft_graph *g, const struct draft_sampler_plan *plan,
                                           const struct draft_sampler_step *step, struct draft_tensor *x,
                                           struct draft_tensor *m, const struct draft_predicted *predicted,
                                           struct draft_sampler_history *history, struct draft_tensor *fresh)
{
    struct sum sum = {NULL, 1, ONE};
    add(g, step, &sum, step->to_x0, TO_X0, predicted->x0);
    add(g, step, &sum, step->to_eps, TO_EPS, predicted->eps);
    add(g, step, &sum, step->to_x, TO_X, x);
    add(g, step, &sum, step->to_m, TO_M, m);
    for (int k = 0; k < plan->sampler->past; k++)
        add(g, step, &sum, step->to_past[k], TO_PAST + k, history->past[k]);
    assert(step->to_fresh == 0 || fresh || !draft_graph_ok(g));
    add(g, step, &sum, step->to_fresh, TO_FRESH, fresh);
    if (!draft_graph_ok(g))
        return NULL;
    assert(sum.value);
    if (step->keep_x)
        keep(g, plan, x, history);
    if (step->keep_m)
        keep(g, plan, m, history);
    if (step->keep_x0)
        keep(g, plan, predicted->x0, history);
    return sum.weight == 1 ? sum.value : draft_combine(g, step->at, sum.place, sum.value, ONE, NULL);
}
