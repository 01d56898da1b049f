#include "train/denoise.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

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
    struct draft_unet_call call = {.t = step->timestep, .context = conditions->context, .cached = cached};
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

struct draft_tensor *draft_fresh_noise(struct draft_graph *g, const struct draft_sampler_plan *plan, int call,
                                       const struct draft_fresh *fresh, const struct draft_tensor *x)
{
    if (plan->step[call].to_fresh == 0 || !x)
        return NULL;
    assert(fresh && x->rank == 4);
    int64_t n = x->dim[0], h = x->dim[1], w = x->dim[2], c = x->dim[3];
    float *drawn = draft_note(g, (size_t)draft_tensor_count(x) * sizeof *drawn);
    if (!drawn)
        return NULL;
    fresh->draw(fresh->context, call, fresh->first, (int)n, (size_t)(h * w * c), drawn);
    return draft_latents_from_nchw(g, drawn, n, h, w, c);
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

/* (1 - w) frozen + w tuned, both after guidance (annealed importance guidance); the KL beside it when asked. */
static struct draft_tensor *mixed(struct draft_graph *g, const struct draft_pipeline *p,
                                  const struct draft_conditions *conditions, const struct draft_sampler_step *step,
                                  const struct run_contexts *cached, double w, struct draft_tensor *x, double *kl)
{
    struct draft_tensor *tuned = NULL, *frozen = NULL;
    if (w > 0)
        tuned = draft_guided(g, p, x, step, conditions, cached->tuned);
    if (w < 1 || kl)
        frozen = draft_guided_frozen(g, p, x, step, conditions, cached->frozen);
    if (kl && tuned) {
        struct draft_tensor *d = draft_mean_square_difference(g, draft_sampler_epsilon(g, step, x, tuned),
                                                              draft_sampler_epsilon(g, step, x, frozen));
        const float *value = draft_read(g, d);
        *kl += value ? *value : 0;
    }
    if (w >= 1)
        return tuned;
    return w > 0 ? draft_axpby(g, (float)w, tuned, (float)(1 - w), frozen) : frozen;
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
    const struct draft_sampler_plan *plan = sampling->plan;
    struct draft_sampler_history own, *history = sampling->history;
    bool was_recording = draft_no_grad(g);
    struct draft_mark whole_run = draft_scope_begin(g);
    if (!history)
        draft_sampler_history_make(g, plan, x, history = &own);
    struct run_contexts cached = precompute(g, p, conditions, sampling);
    if (merging_pays(p, sampling))
        draft_merge_begin(g);
    struct draft_mark one_step = draft_scope_begin(g);
    double sum = 0;
    for (int i = 0; i < sampling->count && draft_graph_ok(g); i++) {
        const struct draft_sampler_step *step = &plan->step[i];
        bool measured = i >= sampling->count - sampling->kl_steps;
        double w = sampling->tuned ? sampling->tuned[i] : 1;
        struct draft_tensor *m = mixed(g, p, conditions, step, &cached, w, x, measured ? &sum : NULL);
        struct draft_predicted predicted = draft_sampler_predict(g, plan, step, x, m);
        draft_observe(sampling->observer, predicted.eps, "eps.%d", i);
        struct draft_tensor *fresh = draft_fresh_noise(g, plan, i, sampling->fresh, x);
        x = draft_scope_end(g, one_step, draft_sampler_advance(g, plan, step, x, m, &predicted, history, fresh));
        draft_observe(sampling->observer, x, "latent.%d", i);
        if (!draft_progress_advance(sampling->progress))
            draft_fail(&g->error, DRAFT_CANCELLED, "stopped on request after denoising step %d", i + 1);
    }
    draft_merge_end(g);
    x = draft_scope_end(g, whole_run, x);
    g->recording = was_recording;
    if (kl)
        *kl = sampling->kl_steps > 0 ? sum / sampling->kl_steps : 0;
    return x;
}
