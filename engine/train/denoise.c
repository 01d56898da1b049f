#include "train/denoise.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "autograd/replay.h"
#include "backend/backend.h"
#include "ops/ops.h"

bool draft_conditions_make(struct draft_graph *g, struct draft_pipeline *p, const char *const *prompts, int n,
                           const char *negative, double guidance, struct draft_conditions *out)
{
    *out = (struct draft_conditions){.n = n, .guidance = guidance};
    if (guidance <= 1) {
        out->context = draft_prompt_contexts(g, p, prompts, n);
        return draft_graph_ok(g);
    }
    const char **both = draft_note(g, 2 * (size_t)n * sizeof *both);
    if (!both)
        return false;
    for (int i = 0; i < n; i++) {
        both[i] = negative;
        both[n + i] = prompts[i];
    }
    out->context = draft_prompt_contexts(g, p, both, 2 * n);
    return draft_graph_ok(g);
}

static struct draft_tensor *guided(struct draft_graph *g, const struct draft_unet *unet, struct draft_tensor *x,
                                   const struct draft_sampler_step *step, const struct draft_conditions *conditions,
                                   struct draft_unet_context *cached)
{
    x = draft_sampler_input(g, step, x);
    struct draft_unet_call call = {
        .t = draft_sampler_timestep(g, step), .context = conditions->context, .cached = cached};
    struct draft_tensor *both = draft_unet_forward(g, unet, x, &call);
    if (conditions->guidance <= 1)
        return both;
    struct draft_tensor *u = draft_slice_batch(g, both, 0, conditions->n);
    struct draft_tensor *c = draft_slice_batch(g, both, conditions->n, conditions->n);
    return draft_axpby(g, 1, u, (float)conditions->guidance, draft_axpby(g, 1, c, -1, u));
}

struct draft_tensor *draft_guided(struct draft_graph *g, const struct draft_pipeline *p, struct draft_tensor *x,
                                  const struct draft_sampler_step *step, const struct draft_conditions *conditions,
                                  struct draft_unet_context *cached)
{
    return guided(g, p->unet, x, step, conditions, cached);
}

/* The frozen network between frozen_begin and frozen_end: a UNet of its own, or the tuned one without its adapter. */
struct frozen {
    struct draft_unet *unet;
    bool was_recording, was_on;
};

static struct frozen frozen_begin(struct draft_graph *g, const struct draft_pipeline *p)
{
    struct frozen frozen = {p->base ? p->base : p->unet, draft_no_grad(g), p->adapter && p->adapter->on};
    if (p->adapter)
        p->adapter->on = false;
    return frozen;
}

static void frozen_end(struct draft_graph *g, const struct draft_pipeline *p, const struct frozen *frozen)
{
    if (p->adapter)
        p->adapter->on = frozen->was_on;
    g->recording = frozen->was_recording;
}

struct draft_tensor *draft_guided_frozen(struct draft_graph *g, const struct draft_pipeline *p, struct draft_tensor *x,
                                         const struct draft_sampler_step *step,
                                         const struct draft_conditions *conditions, struct draft_unet_context *cached)
{
    struct frozen frozen = frozen_begin(g, p);
    struct draft_mark mark = draft_scope_begin(g);
    struct draft_tensor *m = draft_scope_end(g, mark, guided(g, frozen.unet, x, step, conditions, cached));
    frozen_end(g, p, &frozen);
    return m;
}

struct draft_unet_context *draft_frozen_context(struct draft_graph *g, const struct draft_pipeline *p,
                                                const struct draft_conditions *conditions)
{
    struct frozen frozen = frozen_begin(g, p);
    struct draft_unet_context *context = draft_unet_precompute(g, frozen.unet, conditions->context);
    frozen_end(g, p, &frozen);
    return context;
}

bool draft_fresh_noise(struct draft_graph *g, const struct draft_sampler_plan *plan, int call,
                       const struct draft_fresh *fresh, struct draft_tensor *z)
{
    if (plan->step[call].to_fresh == 0 || !draft_graph_ok(g))
        return draft_graph_ok(g);
    assert(fresh && z && z->rank == 4);
    struct draft_mark mark = draft_graph_mark(g);
    float *drawn = draft_note(g, (size_t)draft_tensor_count(z) * sizeof *drawn);
    if (!drawn)
        return false;
    fresh->draw(fresh->context, call, fresh->first, (int)z->dim[0], (size_t)(z->dim[1] * z->dim[2] * z->dim[3]), drawn);
    bool given = draft_latents_give(g, z, drawn);
    draft_graph_release(g, mark);
    return given;
}

void draft_observe(const struct draft_observer *observer, const struct draft_tensor *value, const char *format, ...)
{
    if (!observer || !observer->see || !value)
        return;
    char name[64];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    observer->see(observer->context, name, value);
}

/* Cross-attention keys and values of the tuned and of the frozen network, once for a whole run. */
struct run_contexts {
    struct draft_unet_context *tuned, *frozen;
};

static struct run_contexts precompute(struct draft_graph *g, const struct draft_pipeline *p,
                                      const struct draft_conditions *conditions, const struct draft_sampling *sampling)
{
    bool tuned = !sampling->tuned, frozen = sampling->kl_steps > 0;
    for (int i = 0; sampling->tuned && i < sampling->count; i++) {
        tuned |= sampling->tuned[i] > 0;
        frozen |= sampling->tuned[i] < 1;
    }
    struct run_contexts out = {0};
    if (tuned)
        out.tuned = draft_unet_precompute(g, p->unet, conditions->context);
    if (frozen)
        out.frozen = draft_frozen_context(g, p, conditions);
    return out;
}

/* One call of the network without gradient, on its way; the numbers that differ from call to call are in tensors. */
struct quiet_call {
    const struct draft_pipeline *pipeline;
    const struct draft_conditions *conditions;
    const struct draft_sampling *sampling;
    const struct run_contexts *cached;
    struct draft_sampler_step step; /* placed */
    struct draft_sampler_history *history;
    struct draft_tensor *x, *fresh; /* the latents, which go on in their place; noise, or NULL */
    struct draft_tensor *shares;    /* [2]: of the tuned and of the frozen prediction, where both are wanted */
    struct draft_tensor *kl;        /* [1] to be told the KL; NULL: it is not measured */
    bool tuned, frozen;             /* which predictions x goes on with */
    int number;
};

/* The prediction to go on with, both after guidance: the tuned one, the frozen one, or their mixture (annealed
 * importance guidance); the KL beside it when asked. */
static struct draft_tensor *mixed(struct draft_graph *g, const struct quiet_call *call)
{
    const struct draft_sampler_step *step = &call->step;
    struct draft_tensor *tuned = NULL, *frozen = NULL;
    if (call->tuned)
        tuned = draft_guided(g, call->pipeline, call->x, step, call->conditions, call->cached->tuned);
    if (call->frozen || call->kl)
        frozen = draft_guided_frozen(g, call->pipeline, call->x, step, call->conditions, call->cached->frozen);
    if (call->kl) {
        struct draft_tensor *d = draft_mean_square_difference(g, draft_sampler_epsilon(g, step, call->x, tuned),
                                                              draft_sampler_epsilon(g, step, call->x, frozen));
        if (d)
            draft_copy_values(g, call->kl, d);
    }
    if (!call->frozen)
        return tuned;
    return call->tuned ? draft_combine(g, call->shares, 0, tuned, 1, frozen) : frozen;
}

static bool quiet_call(struct draft_graph *g, void *context)
{
    struct quiet_call *call = context;
    const struct draft_sampler_plan *plan = call->sampling->plan;
    struct draft_tensor *m = mixed(g, call);
    struct draft_predicted predicted = draft_sampler_predict(g, plan, &call->step, call->x, m);
    draft_observe(call->sampling->observer, predicted.eps, "eps.%d", call->number);
    struct draft_tensor *next =
        draft_sampler_advance(g, plan, &call->step, call->x, m, &predicted, call->history, call->fresh);
    return next && draft_copy_values(g, call->x, next);
}

static const void *values_of(const struct draft_tensor *x)
{
    return x ? x->data : NULL;
}

static struct draft_replay_key key_of(const struct quiet_call *call)
{
    const struct draft_pipeline *p = call->pipeline;
    const struct draft_adapter *adapter = p->adapter;
    const struct draft_sampler_plan *plan = call->sampling->plan;
    const int64_t *dim = call->x->dim, *context = call->conditions->context->dim;
    struct draft_replay_key key = {
        .name = "a denoising step",
        .never = call->sampling->observer != NULL,
        .number = {(double)dim[0], (double)dim[1], (double)dim[2], (double)dim[3], (double)context[0],
                   (double)context[1], call->conditions->guidance, plan->clip, plan->sampler->past,
                   draft_sampler_form(&call->step), call->tuned, call->frozen, adapter ? adapter->on : 0,
                   adapter ? (double)adapter->scale : 0},
        .address = {p->unet, p->base, values_of(call->conditions->context), values_of(call->step.at),
                    values_of(call->x), values_of(call->fresh), values_of(call->shares), values_of(call->kl),
                    call->cached->tuned, call->cached->frozen}};
    if (adapter && adapter->count > 0)
        key.address[10] = values_of(adapter->entry[0].lora.down);
    for (int k = 0; k < plan->sampler->past; k++)
        key.address[11 + k] = values_of(call->history->past[k]);
    return key;
}

/* What this call takes from the host: its numbers, and noise. */
static bool give_numbers(struct draft_graph *g, struct quiet_call *call, int i, struct draft_tensor *at, double share)
{
    const struct draft_sampling *s = call->sampling;
    call->number = i;
    call->tuned = share > 0;
    call->frozen = share < 1;
    if (call->tuned && call->frozen) {
        struct draft_mark mark = draft_graph_mark(g);
        float *shares = draft_write(g, call->shares);
        if (!shares)
            return false;
        shares[0] = (float)share;
        shares[1] = (float)(1 - share);
        draft_written(g, call->shares, shares);
        draft_graph_release(g, mark);
    }
    return draft_sampler_place(g, &s->plan->step[i], at, &call->step) &&
           draft_fresh_noise(g, s->plan, i, s->fresh, call->fresh);
}

static bool needs_fresh(const struct draft_sampler_plan *plan)
{
    bool needed = false;
    for (int i = 0; i < plan->count; i++)
        needed |= plan->step[i].to_fresh != 0;
    return needed;
}

/* Where the tuned network alone is called, and often: adding its LoRA to the weights, and packing them without it
 * afterwards, costs about one call's products with the LoRA. */
static bool merging_pays(const struct draft_pipeline *p, const struct draft_sampling *sampling)
{
    enum { OFTEN = 4 };
    for (int i = 0; sampling->tuned && i < sampling->count; i++)
        if (sampling->tuned[i] < 1)
            return false;
    return p->adapter && p->adapter->on && sampling->kl_steps == 0 && sampling->count >= OFTEN;
}

struct draft_tensor *draft_sample_latents(struct draft_graph *g, const struct draft_pipeline *p,
                                          const struct draft_conditions *conditions,
                                          const struct draft_sampling *sampling, struct draft_tensor *x, double *kl)
{
    if (!draft_graph_ok(g))
        return NULL;
    const struct draft_sampler_plan *plan = sampling->plan;
    struct draft_sampler_history own;
    bool was_recording = draft_no_grad(g);
    struct draft_mark whole_run = draft_scope_begin(g);
    if (!sampling->history)
        draft_sampler_history_make(g, plan, x, &own);
    struct run_contexts cached = precompute(g, p, conditions, sampling);
    struct quiet_call call = {.pipeline = p,
                              .conditions = conditions,
                              .sampling = sampling,
                              .cached = &cached,
                              .history = sampling->history ? sampling->history : &own,
                              .x = x};
    if (needs_fresh(plan))
        call.fresh = draft_new(g, DRAFT_F32, x->rank, x->dim);
    if (sampling->tuned)
        call.shares = draft_new(g, DRAFT_F32, 1, (int64_t[]){2});
    struct draft_tensor *at = draft_sampler_numbers(g), *each = NULL; /* KL, call by call */
    if (sampling->kl_steps > 0)
        each = draft_new(g, DRAFT_F32, 1, (int64_t[]){sampling->kl_steps});
    if (each)
        draft_backend_fill(g->backend, draft_f32(each), sampling->kl_steps, 0, &g->error);
    if (merging_pays(p, sampling))
        draft_merge_begin(g);
    for (int i = 0; i < sampling->count && draft_graph_ok(g); i++) {
        struct draft_mark one_call = draft_graph_mark(g);
        double share = sampling->tuned ? sampling->tuned[i] : 1;
        int measured = i - (sampling->count - sampling->kl_steps); /* which of them, from 0 */
        call.kl = measured >= 0 && share > 0 ? draft_new_view(g, each, 1, (int64_t[]){1}, (size_t)measured) : NULL;
        if (!give_numbers(g, &call, i, at, share))
            break;
        struct draft_replay_key key = key_of(&call);
        draft_replay(g, &key, quiet_call, &call);
        if (!draft_graph_ok(g))
            break;
        draft_graph_release(g, one_call);
        draft_observe(sampling->observer, x, "latent.%d", i);
        if (!draft_progress_advance(sampling->progress))
            draft_fail(&g->error, DRAFT_CANCELLED, "stopped on request after denoising step %d", i + 1);
    }
    draft_merge_end(g);
    const float *of_call = draft_read(g, each);
    double sum = 0;
    for (int i = 0; of_call && i < sampling->kl_steps; i++)
        sum += of_call[i];
    if (kl)
        *kl = sampling->kl_steps > 0 ? sum / sampling->kl_steps : 0;
    draft_scope_end(g, whole_run, NULL);
    g->recording = was_recording;
    return draft_graph_ok(g) ? x : NULL;
}
