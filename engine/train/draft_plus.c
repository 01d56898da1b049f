#include "train/draft_plus.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "autograd/profile.h"
#include "ops/ops.h"

/* The profile's name for the K steps with gradient. */
static const char LAST_STEPS[] = "last steps";

/* Sums over all pictures of a step; divided at the end. */
struct sums {
    double reward, reward_squared, kl;
    double term[DRAFT_MAX_TERMS], measure[DRAFT_MAX_TERMS];
    double sample_seconds, forward_seconds, backward_seconds;
};

/* One micro-batch on its way: pictures first .. first+n-1 of the global batch. */
struct part {
    const struct draft_plus *dp;
    const struct draft_plus_batch *batch;
    int first, n;
    struct draft_conditions conditions;
    struct draft_unet_context *frozen; /* where the frozen network is called more than once; else NULL */
    const struct draft_observer *observer;
    struct sums *sums;
    double since; /* when the present phase began */
};

static double lap(struct part *part)
{
    double now = draft_clock_seconds(), passed = now - part->since;
    part->since = now;
    return passed;
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

static bool count(struct part *part, const struct draft_tensor *image, const struct draft_tensor *rewards,
                  struct draft_tensor *const *term, const struct draft_tensor *kl)
{
    struct draft_graph *g = part->dp->graph;
    struct sums *sums = part->sums;
    const float *reward = draft_read(g, rewards), *divergence_of_part = draft_read(g, kl);
    for (int i = 0; reward && i < part->n; i++) {
        double r = reward[i];
        sums->reward += r;
        sums->reward_squared += r * r;
    }
    for (int t = 0; t < part->dp->scoring->terms; t++) {
        const float *value = draft_read(g, term[t]);
        for (int i = 0; value && i < part->n; i++)
            sums->term[t] += value[i];
    }
    if (divergence_of_part)
        sums->kl += part->n * (double)*divergence_of_part;
    return draft_graph_ok(g) && draft_score_measures(part->dp->scoring, g, image, sums->measure);
}

/* `copy` 0 is the sampled picture; 1 .. lv_copies are DRaFT-LV's. kl NULL: none. */
static bool score_and_backpropagate(struct part *part, struct draft_tensor *x0, struct draft_tensor *kl, int copy)
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
    struct draft_tensor *rewards = draft_score(dp->scoring, g, image, part->batch->prompts + part->first, term);
    /* loss = -mean(reward) + kl_coeff * KL, over this micro-batch and copy */
    struct draft_tensor *loss = draft_axpby(g, -1, draft_mean(g, rewards), (float)dp->kl_coeff, kl);
    if (!draft_graph_ok(g) || !count(part, image, rewards, term, kl))
        return false;
    if (copy == 0) {
        draft_observe(part->observer, x0, "x0");
        draft_observe(part->observer, decoded, "decoded");
        draft_observe(part->observer, image, "image");
        draft_observe(part->observer, rewards, "rewards");
    } else {
        draft_observe(part->observer, x0, "lv%d/x0", copy - 1);
        draft_observe(part->observer, rewards, "lv%d/rewards", copy - 1);
    }
    part->sums->forward_seconds += lap(part);

    /* 6. its share of the global batch and of the 1 + lv_copies copies */
    int64_t copies = 1 + dp->lv_copies, parts = (part->batch->n + dp->micro_batch - 1) / dp->micro_batch;
    if (!draft_progress_set(dp->progress, DRAFT_PHASE_BACKWARD, part->first / dp->micro_batch * copies + copy,
                            parts * copies))
        return draft_fail(&g->error, DRAFT_CANCELLED, "stopped on request before the backward pass");
    float share = (float)((double)part->n / part->batch->n / (double)copies);
    draft_profile_phase(g, "backward");
    bool done = draft_graph_backward(g, loss, &share);
    part->sums->backward_seconds += lap(part);
    return done;
}

/* DRaFT-LV: x_1 = alpha_1 * stopgrad(x_0) + sigma_1 * eps with fresh eps at the noise level of the last timestep;
 * denoised once with guidance, scored, backpropagated. */
static bool lv_copy(struct part *part, struct draft_tensor *x0, int copy)
{
    const struct draft_plus *dp = part->dp;
    struct draft_graph *g = dp->graph;
    const struct draft_sampler_step *last = &dp->plan->step[dp->plan->count - 1];

    draft_profile_phase(g, LAST_STEPS);
    struct draft_tensor *eps = take_noise(part, part->batch->renoise[copy - 1]);
    struct draft_tensor *x = draft_axpby(g, (float)last->signal, x0, (float)last->noise, eps);
    struct draft_predicted d = draft_sampler_predict(g, dp->plan, last, x, predict(part, last, x));
    struct draft_tensor *kl = dp->kl_coeff > 0 ? divergence(part, last, x, d.eps) : NULL;
    return score_and_backpropagate(part, d.x0, kl, copy);
}

/* --- Steps 1 to 6 on one micro-batch ------------------------------------------------------------------------------ */

static bool micro_batch(struct part *part)
{
    const struct draft_plus *dp = part->dp;
    struct draft_graph *g = dp->graph;
    int T = dp->plan->count, K = dp->truncation_steps;
    part->since = draft_clock_seconds();
    draft_profile_phase(g, "sampling");

    /* 1. prompts c, noise x_T ~ N(0, I) */
    if (!draft_conditions_make(g, dp->pipeline, part->batch->prompts + part->first, part->n, dp->negative_prompt,
                               dp->guidance, &part->conditions))
        return false;
    if (dp->kl_coeff > 0 && K + dp->lv_copies > 1)
        part->frozen = draft_frozen_context(g, dp->pipeline, &part->conditions);
    struct draft_tensor *stopped = NULL; /* stopgrad(x_0), for DRaFT-LV */
    if (dp->lv_copies > 0)
        stopped = draft_new(g, DRAFT_F32, 4,
                            (int64_t[]){part->n, dp->height, dp->width, dp->pipeline->unet_info.in_channels});
    struct draft_mark mark = draft_graph_mark(g);
    struct draft_tensor *x = draft_sampler_start(g, dp->plan, take_noise(part, part->batch->noise));
    struct draft_sampler_history history;
    struct draft_fresh fresh = part->batch->fresh;
    fresh.first = part->first;
    if (!x || !draft_sampler_history_make(g, dp->plan, x, &history))
        return false;

    /* 2. steps 1 .. T-K without gradient */
    struct draft_sampling quietly = {.plan = dp->plan,
                                     .count = T - K,
                                     .fresh = &fresh,
                                     .history = &history,
                                     .progress = dp->progress,
                                     .observer = part->observer};
    x = draft_sample_latents(g, dp->pipeline, &part->conditions, &quietly, x, NULL);
    part->sums->sample_seconds += lap(part);

    /* 3. steps T-K+1 .. T with gradient, the frozen prediction beside it */
    draft_profile_phase(g, LAST_STEPS);
    struct draft_tensor *x0 = NULL, *kl = NULL;
    for (int i = T - K; i < T; i++) {
        const struct draft_sampler_step *step = &dp->plan->step[i];
        struct draft_tensor *m = predict(part, step, x);
        struct draft_predicted d = draft_sampler_predict(g, dp->plan, step, x, m);
        struct draft_tensor *z = draft_fresh_noise(g, dp->plan, i, &fresh, x);
        struct draft_tensor *next = draft_sampler_advance(g, dp->plan, step, x, m, &d, &history, z);
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
    if (stopped && x0 && !draft_copy_values(g, stopped, x0)) /* gone after the backward pass */
        return false;
    if (!score_and_backpropagate(part, x0, kl, 0))
        return false;
    for (int copy = 1; copy <= dp->lv_copies; copy++) {
        draft_graph_reset(g, &mark);
        if (!lv_copy(part, stopped, copy))
            return false;
    }
    return true;
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
    out->sample_seconds = sums->sample_seconds;
    out->forward_seconds = sums->forward_seconds;
    out->backward_seconds = sums->backward_seconds;
}

bool draft_plus_step(const struct draft_plus *dp, const struct draft_plus_batch *batch,
                     struct draft_plus_numbers *numbers, struct draft_error *err)
{
    assert(dp->truncation_steps >= 1 && dp->truncation_steps <= dp->plan->count);
    assert(dp->lv_copies == 0 || dp->truncation_steps == 1);
    struct draft_graph *g = dp->graph;
    *numbers = (struct draft_plus_numbers){0};
    draft_unet_set_recompute(dp->pipeline->unet, dp->recompute);
    draft_vae_set_recompute(dp->pipeline->vae, dp->recompute);

    struct sums sums = {0};
    int64_t denoised = 0, total = (int64_t)dp->plan->count * ((batch->n + dp->micro_batch - 1) / dp->micro_batch);
    bool ok = true;
    for (int first = 0; ok && first < batch->n; first += dp->micro_batch) {
        int left = batch->n - first;
        struct part part = {.dp = dp,
                            .batch = batch,
                            .first = first,
                            .n = left < dp->micro_batch ? left : dp->micro_batch,
                            .observer = first == 0 ? dp->observer : NULL,
                            .sums = &sums};
        draft_graph_reset(g, NULL);
        if (!draft_progress_set(dp->progress, DRAFT_PHASE_SAMPLING, denoised, total))
            ok = draft_fail(&g->error, DRAFT_CANCELLED, "stopped on request");
        ok = ok && micro_batch(&part);
        denoised += dp->plan->count;
    }
    if (!ok)
        draft_fail(err, g->error.code, "%s", g->error.message);
    draft_graph_reset(g, NULL);
    if (ok)
        divide(dp, &sums, (double)batch->n * (1 + dp->lv_copies), numbers);
    return ok;
}
