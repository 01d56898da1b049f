#include "train/draft_plus.h"

#include <assert.h>

#include "autograd/profile.h"
#include "autograd/replay.h"
#include "backend/backend.h"
#include "ops/ops.h"
#include "train/draft_plus_results.h"

/* The profile's name for the K steps with gradient. */
static const char LAST_STEPS[] = "last steps";

/* One micro-batch on its way: pictures first .. first+n-1 of the global batch. */
struct part {
    const struct draft_plus *dp;
    const struct draft_plus_batch *batch;
    int first, n;
    struct draft_conditions conditions;
    struct draft_asked asked;
    struct draft_unet_context *frozen; /* where the frozen network is called more than once; else NULL */
    struct draft_tensor *x;            /* after the steps without gradient */
    struct draft_sampler_history history;
    struct draft_sampler_step *step; /* [K], placed: the steps with gradient */
    struct draft_tensor **fresh;     /* [K], the noise of each, NULL where there is none */
    struct draft_tensor *stopped;    /* stopgrad(x_0), for DRaFT-LV; else NULL */
    struct draft_tensor *renoise;    /* the present copy's noise */
    int copy;                        /* 0: the sampled picture; 1 .. lv_copies: DRaFT-LV's */
    const struct draft_observer *observer;
    struct draft_plus_results *results;
    struct draft_plus_results own; /* of this part and copy alone: where a replayed block puts them */
};

static bool lap(const struct part *part, enum draft_plus_phase phase)
{
    return draft_plus_results_lap(part->dp->graph, part->results, phase);
}

static struct draft_tensor *take_noise(const struct part *part, const float *noise)
{
    const struct draft_plus *dp = part->dp;
    int64_t c = dp->pipeline->unet_info.in_channels;
    return draft_latents_from_nchw(dp->graph, noise + part->first * c * dp->height * dp->width, part->n, dp->height,
                                   dp->width, c);
}

/* --- The tuned network's output at one of the K steps with gradient ----------------------------------------------- */

struct network_call {
    const struct draft_pipeline *pipeline;
    struct draft_conditions conditions;
    const struct draft_sampler_step *step;
};

static struct draft_tensor *call_network(struct draft_graph *g, void *context, struct draft_tensor *const *in)
{
    const struct network_call *call = context;
    return draft_guided(g, call->pipeline, in[0], call->step, &call->conditions, NULL);
}

/* With recompute and several calls the tape keeps their outputs alone: K = T costs T latents, not T networks'
 * activations. Of a single call the blocks' inputs are kept: they are gone before the next, and a forward is spared. */
static struct draft_tensor *predict(const struct part *part, const struct draft_sampler_step *step,
                                    struct draft_tensor *x)
{
    struct draft_graph *g = part->dp->graph;
    struct network_call *call = draft_note(g, sizeof *call);
    if (!call)
        return NULL;
    *call = (struct network_call){part->dp->pipeline, part->conditions, step};
    if (part->dp->recompute && part->dp->truncation_steps > 1)
        return draft_recompute(g, call_network, call, (struct draft_tensor *[]){x}, 1);
    return call_network(g, call, (struct draft_tensor *[]){x});
}

/* mean (eps_theta - eps_frozen)^2 at x_t. Gradient flows through eps_theta, and through x_t inside it, into the earlier
 * of the K steps; none through eps_frozen. */
static struct draft_tensor *divergence(const struct part *part, const struct draft_sampler_step *step,
                                       struct draft_tensor *x, struct draft_tensor *eps)
{
    struct draft_graph *g = part->dp->graph;
    struct draft_tensor *at = draft_detach(g, x);
    draft_profile_phase(g, "frozen prediction");
    struct draft_tensor *m = draft_guided_frozen(g, part->dp->pipeline, at, step, &part->conditions, part->frozen);
    struct draft_tensor *kl = draft_mean_square_difference(g, eps, draft_sampler_epsilon(g, step, at, m));
    draft_profile_phase(g, LAST_STEPS);
    return kl;
}

/* --- Steps 4 to 6: decode, score, backward ------------------------------------------------------------------------ */

/* kl NULL: none. */
static bool score_and_backpropagate(struct part *part, struct draft_tensor *x0, struct draft_tensor *kl)
{
    const struct draft_plus *dp = part->dp;
    struct draft_graph *g = dp->graph;

    /* 4. the predicted x_0 of the last step is decoded, not x_prev */
    draft_profile_phase(g, "decoding");
    struct draft_tensor *decoded;
    struct draft_tensor *image = draft_decode_image(g, dp->pipeline, x0, &decoded);
    /* 5. */
    draft_profile_phase(g, "reward");
    struct draft_tensor *term[DRAFT_MAX_TERMS];
    struct draft_tensor *rewards = draft_score(dp->scoring, g, image, &part->asked, term);
    /* loss = -mean(reward) + kl_coeff * KL, over this micro-batch and copy */
    struct draft_tensor *loss = draft_axpby(g, -1, draft_mean(g, rewards), (float)dp->kl_coeff, kl);
    if (!draft_graph_ok(g))
        return false;
    draft_plus_results_keep(g, &part->own, loss, kl, rewards, term, image);
    if (part->copy == 0) {
        draft_observe(part->observer, x0, "x0");
        draft_observe(part->observer, decoded, "decoded");
        draft_observe(part->observer, image, "image");
        draft_observe(part->observer, rewards, "rewards");
    } else {
        draft_observe(part->observer, x0, "lv%d/x0", part->copy - 1);
        draft_observe(part->observer, rewards, "lv%d/rewards", part->copy - 1);
    }
    if (!lap(part, DRAFT_PLUS_FORWARD))
        return false;

    /* 6. its share of the global batch and of the 1 + lv_copies copies */
    int64_t copies = 1 + dp->lv_copies, parts = (part->batch->n + dp->micro_batch - 1) / dp->micro_batch;
    if (!draft_progress_set(dp->progress, DRAFT_PHASE_BACKWARD, part->first / dp->micro_batch * copies + part->copy,
                            parts * copies))
        return draft_fail(&g->error, DRAFT_CANCELLED, "stopped on request before the backward pass");
    float share = (float)((double)part->n / part->batch->n / (double)copies);
    draft_profile_phase(g, "backward");
    return draft_graph_backward(g, loss, &share) && lap(part, DRAFT_PLUS_BACKWARD);
}

/* DRaFT-LV: x_1 = alpha_1 * stopgrad(x_0) + sigma_1 * eps with fresh eps at the noise level of the last timestep;
 * denoised once with guidance, scored, backpropagated. */
static bool lv_copy(struct draft_graph *g, void *context)
{
    struct part *part = context;
    const struct draft_plus *dp = part->dp;
    const struct draft_sampler_step *last = &part->step[0];

    draft_profile_phase(g, LAST_STEPS);
    struct draft_tensor *x = draft_axpby(g, (float)last->signal, part->stopped, (float)last->noise, part->renoise);
    struct draft_predicted d = draft_sampler_predict(g, dp->plan, last, x, predict(part, last, x));
    struct draft_tensor *kl = dp->kl_coeff > 0 ? divergence(part, last, x, d.eps) : NULL;
    return score_and_backpropagate(part, d.x0, kl);
}

/* --- Steps 1 to 6 on one micro-batch ------------------------------------------------------------------------------ */

/* 3. to 6. */
static bool steps_with_gradient(struct draft_graph *g, void *context)
{
    struct part *part = context;
    const struct draft_plus *dp = part->dp;
    int T = dp->plan->count, K = dp->truncation_steps;
    struct draft_sampler_history history = part->history;

    /* 3. steps T-K+1 .. T with gradient, the frozen prediction beside it */
    draft_profile_phase(g, LAST_STEPS);
    struct draft_tensor *x = part->x, *x0 = NULL, *kl = NULL;
    for (int k = 0; k < K; k++) {
        const struct draft_sampler_step *step = &part->step[k];
        const int i = T - K + k;
        struct draft_tensor *m = predict(part, step, x);
        struct draft_predicted d = draft_sampler_predict(g, dp->plan, step, x, m);
        struct draft_tensor *next = draft_sampler_advance(g, dp->plan, step, x, m, &d, &history, part->fresh[k]);
        if (dp->kl_coeff > 0)
            kl = draft_axpby(g, 1 / (float)K, divergence(part, step, x, d.eps), 1, kl);
        draft_observe(part->observer, d.eps, "eps.%d", i);
        draft_observe(part->observer, next, "latent.%d", i);
        x = next;
        x0 = d.x0;
        if (!draft_progress_advance(dp->progress))
            return draft_fail(&g->error, DRAFT_CANCELLED, "stopped on request after denoising step %d", i + 1);
    }

    /* 4. to 6. */
    if (part->stopped && x0 && !draft_copy_values(g, part->stopped, x0)) /* gone after the backward pass */
        return false;
    return score_and_backpropagate(part, x0, kl);
}

/* What decides the launches of one micro-batch's steps with gradient, or of one of its copies. */
static struct draft_replay_key key_of(const struct part *part, const char *name)
{
    const struct draft_plus *dp = part->dp;
    const struct draft_pipeline *p = dp->pipeline;
    const struct draft_adapter *adapter = p->adapter;
    const struct draft_tensor *noise = part->copy > 0 ? part->renoise : part->x, *text = part->asked.text[0];
    const int64_t *context = part->conditions.context->dim;
    return (struct draft_replay_key){
        .name = name,
        .never = part->observer != NULL,
        .number = {part->n, part->batch->n, (double)dp->height, (double)dp->width, dp->truncation_steps, dp->lv_copies,
                   dp->guidance, dp->kl_coeff, dp->recompute, dp->plan->count, dp->plan->clip, (double)context[0],
                   (double)context[1], adapter ? (double)adapter->scale : 0},
        .address = {p->unet, p->base, p->vae, dp->scoring, dp->plan->step, part->own.values->data,
                    part->results->values->data, part->conditions.context->data, part->frozen, noise->data,
                    part->step[0].at->data, text ? text->data : NULL, part->stopped ? part->stopped->data : NULL,
                    adapter && adapter->count > 0 ? adapter->entry[0].lora.down->data : NULL}};
}

/* The numbers and the noise of steps T-K+1 .. T. */
static bool place_steps(struct part *part)
{
    const struct draft_plus *dp = part->dp;
    struct draft_graph *g = dp->graph;
    int T = dp->plan->count, K = dp->truncation_steps;
    part->step = draft_note(g, (size_t)K * sizeof *part->step);
    part->fresh = draft_note(g, (size_t)K * sizeof *part->fresh);
    struct draft_fresh fresh = part->batch->fresh;
    fresh.first = part->first;
    const int64_t dim[] = {part->n, dp->height, dp->width, dp->pipeline->unet_info.in_channels};
    for (int k = 0; part->fresh && k < K; k++) {
        struct draft_tensor *at = draft_sampler_numbers(g);
        if (!at || !draft_sampler_place(g, &dp->plan->step[T - K + k], at, &part->step[k]))
            return false;
        part->fresh[k] = part->step[k].to_fresh != 0 ? draft_new(g, DRAFT_F32, 4, dim) : NULL;
        if (!draft_fresh_noise(g, dp->plan, T - K + k, &fresh, part->fresh[k]))
            return false;
    }
    return draft_graph_ok(g);
}

static bool file_results(const struct part *part)
{
    return draft_plus_results_file(part->dp, &part->own, part->first, part->copy, part->results);
}

static bool micro_batch(struct part *part)
{
    const struct draft_plus *dp = part->dp;
    struct draft_graph *g = dp->graph;
    int K = dp->truncation_steps;
    draft_profile_phase(g, "sampling");

    /* 1. prompts c, noise x_T ~ N(0, I) */
    const char *const *prompts = part->batch->prompts + part->first;
    if (!draft_conditions_make(g, dp->pipeline, prompts, part->n, dp->negative_prompt, dp->guidance,
                               &part->conditions) ||
        !draft_score_read(dp->scoring, g, prompts, part->n, &part->asked))
        return false;
    if (dp->kl_coeff > 0 && K + dp->lv_copies > 1)
        part->frozen = draft_frozen_context(g, dp->pipeline, &part->conditions);
    if (dp->lv_copies > 0)
        part->stopped = draft_new(g, DRAFT_F32, 4,
                                  (int64_t[]){part->n, dp->height, dp->width, dp->pipeline->unet_info.in_channels});
    if (!draft_plus_results_make(dp, part->n, part->n, 1, &part->own) || !place_steps(part))
        return false;
    struct draft_mark mark = draft_graph_mark(g);
    struct draft_tensor *x = draft_sampler_start(g, dp->plan, take_noise(part, part->batch->noise));
    part->x = x;
    if (!x || !draft_sampler_history_make(g, dp->plan, x, &part->history))
        return false;

    /* 2. steps 1 .. T-K without gradient */
    struct draft_fresh fresh = part->batch->fresh;
    fresh.first = part->first;
    struct draft_sampling quietly = {.plan = dp->plan,
                                     .count = dp->plan->count - K,
                                     .fresh = &fresh,
                                     .history = &part->history,
                                     .progress = dp->progress,
                                     .observer = part->observer};
    if (!draft_sample_latents(g, dp->pipeline, &part->conditions, &quietly, x, NULL) || !lap(part, DRAFT_PLUS_SAMPLE))
        return false;

    struct draft_replay_key key = key_of(part, "the steps with gradient");
    if (!draft_replay(g, &key, steps_with_gradient, part) || !file_results(part))
        return false;
    for (part->copy = 1; part->copy <= dp->lv_copies; part->copy++) {
        draft_graph_reset(g, &mark);
        part->renoise = take_noise(part, part->batch->renoise[part->copy - 1]);
        if (!part->renoise)
            return false;
        key = key_of(part, "a copy of DRaFT-LV");
        if (!draft_replay(g, &key, lv_copy, part) || !file_results(part))
            return false;
    }
    return lap(part, DRAFT_PLUS_BACKWARD); /* filing the results */
}

/* --- A step ------------------------------------------------------------------------------------------------------- */

bool draft_plus_run(const struct draft_plus *dp, const struct draft_plus_batch *batch,
                    struct draft_plus_results *results, struct draft_error *err)
{
    assert(dp->truncation_steps >= 1 && dp->truncation_steps <= dp->plan->count);
    assert(dp->lv_copies == 0 || dp->truncation_steps == 1);
    struct draft_graph *g = dp->graph;
    draft_unet_set_recompute(dp->pipeline->unet, dp->recompute);
    draft_vae_set_recompute(dp->pipeline->vae, dp->recompute);

    draft_graph_reset(g, NULL);
    bool ok = draft_plus_results_make(dp, batch->n, dp->micro_batch, 1 + dp->lv_copies, results) &&
              draft_plus_results_start(g, results);
    const struct draft_mark mark = draft_graph_mark(g);
    int64_t denoised = 0, total = (int64_t)dp->plan->count * results->parts;
    for (int first = 0; ok && first < batch->n; first += dp->micro_batch) {
        int left = batch->n - first;
        struct part part = {.dp = dp,
                            .batch = batch,
                            .first = first,
                            .n = left < dp->micro_batch ? left : dp->micro_batch,
                            .observer = first == 0 ? dp->observer : NULL,
                            .results = results};
        draft_graph_reset(g, &mark);
        if (!draft_progress_set(dp->progress, DRAFT_PHASE_SAMPLING, denoised, total))
            ok = draft_fail(&g->error, DRAFT_CANCELLED, "stopped on request");
        ok = ok && micro_batch(&part);
        denoised += dp->plan->count;
    }
    if (!ok)
        draft_fail(err, g->error.code, "%s", g->error.message);
    draft_graph_reset(g, ok ? &mark : NULL);
    return ok;
}

bool draft_plus_step(const struct draft_plus *dp, const struct draft_plus_batch *batch,
                     struct draft_plus_numbers *numbers, struct draft_error *err)
{
    struct draft_plus_results results;
    return draft_plus_run(dp, batch, &results, err) && draft_plus_read(dp, &results, numbers, err);
}
