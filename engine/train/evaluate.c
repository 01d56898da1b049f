#include "train/evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "ops/ops.h"

struct sums {
    double reward, reward_squared, kl, lpips;
    double term[DRAFT_MAX_TERMS], measure[DRAFT_MAX_TERMS];
};

struct buffers {
    const char **prompts; /* [micro_batch], all the same */
    float *noise;         /* [micro_batch, c, h, w] */
    float *pictures;      /* [seeds, H, W, 3] of one prompt, for LPIPS */
    double *distance;     /* [seeds * seeds] */
};

static size_t picture_numbers(const struct draft_evaluation *e)
{
    size_t factor = (size_t)e->pipeline->vae_info.factor;
    return (size_t)e->height * factor * (size_t)e->width * factor * 3;
}

static size_t latent_numbers(const struct draft_evaluation *e)
{
    return (size_t)(e->height * e->width * e->pipeline->unet_info.in_channels);
}

static void add_rewards(const struct draft_evaluation *e, const struct draft_tensor *rewards,
                        struct draft_tensor *const *term, struct sums *sums)
{
    const float *reward = draft_read(e->graph, rewards);
    for (int64_t i = 0; reward && i < rewards->dim[0]; i++) {
        double r = reward[i];
        sums->reward += r;
        sums->reward_squared += r * r;
    }
    for (int t = 0; t < e->scoring->terms; t++) {
        const float *value = draft_read(e->graph, term[t]);
        for (int64_t i = 0; value && i < rewards->dim[0]; i++)
            sums->term[t] += value[i];
    }
}

/* The prompt that a sampler's fresh noise is drawn for. */
struct place {
    const struct draft_evaluation *evaluation;
    int prompt;
};

static void draw_fresh(void *context, int call, int first, int n, size_t numbers, float *out)
{
    const struct place *place = context;
    const struct draft_evaluation *e = place->evaluation;
    for (int i = 0; i < n; i++) {
        uint64_t sample = (uint64_t)place->prompt * (uint64_t)e->seeds + (uint64_t)(first + i);
        draft_philox_randn(e->seed, DRAFT_PURPOSE_EVALUATION_ANCESTRAL, 0,
                           sample * (uint64_t)e->plan->count + (uint64_t)call, out + (size_t)i * numbers, numbers);
    }
}

/* Pictures first .. first+n-1 of prompt p. */
static bool some_pictures(const struct draft_evaluation *e, int p, int first, int n, struct buffers *b,
                          struct sums *sums)
{
    struct draft_graph *g = e->graph;
    for (int i = 0; i < n; i++) {
        b->prompts[i] = e->prompts[p];
        draft_philox_randn(e->seed, DRAFT_PURPOSE_EVALUATION, 0,
                           (uint64_t)p * (uint64_t)e->seeds + (uint64_t)(first + i),
                           b->noise + (size_t)i * latent_numbers(e), latent_numbers(e));
    }
    struct draft_conditions conditions;
    if (!draft_conditions_make(g, e->pipeline, b->prompts, n, e->negative_prompt, e->guidance, &conditions))
        return false;
    struct draft_tensor *x =
        draft_latents_from_nchw(g, b->noise, n, e->height, e->width, e->pipeline->unet_info.in_channels);
    if (!(x = draft_sampler_start(g, e->plan, x)))
        return false;
    struct place place = {e, p};
    struct draft_fresh fresh = {draw_fresh, &place, first};
    struct draft_sampling sampling = {
        .plan = e->plan, .count = e->plan->count, .fresh = &fresh, .kl_steps = e->kl_steps, .progress = e->progress};
    double kl = 0;
    x = draft_sample_latents(g, e->pipeline, &conditions, &sampling, x, &kl);
    sums->kl += n * kl;

    struct draft_tensor *image = draft_decode_image(g, e->pipeline, x, NULL);
    struct draft_tensor *term[DRAFT_MAX_TERMS];
    struct draft_asked asked;
    if (!draft_score_read(e->scoring, g, b->prompts, n, &asked))
        return false;
    struct draft_tensor *rewards = draft_score(e->scoring, g, image, &asked, term);
    if (!draft_graph_ok(g))
        return false;
    add_rewards(e, rewards, term, sums);
    const float *pixels = b->pictures || draft_score_measured(e->scoring) ? draft_read(g, image) : NULL;
    if (pixels && b->pictures)
        memcpy(b->pictures + (size_t)first * picture_numbers(e), pixels,
               (size_t)n * picture_numbers(e) * sizeof(float));
    return draft_graph_ok(g) && draft_score_measures(e->scoring, pixels, n, (int)image->dim[1], (int)image->dim[2],
                                                     sums->measure, &g->error);
}

static bool add_diversity(const struct draft_evaluation *e, struct buffers *b, struct sums *sums)
{
    struct draft_graph *g = e->graph;
    int64_t factor = e->pipeline->vae_info.factor;
    struct draft_tensor *images =
        draft_new(g, DRAFT_F32, 4, (int64_t[]){e->seeds, e->height * factor, e->width * factor, 3});
    float *pixels = draft_write(g, images);
    if (!pixels)
        return false;
    size_t count = (size_t)e->seeds * picture_numbers(e);
    for (size_t i = 0; i < count; i++)
        pixels[i] = 2 * b->pictures[i] - 1;
    if (!draft_written(g, images, pixels) || !draft_lpips_pairs(g, e->lpips, images, b->distance))
        return false;
    sums->lpips += draft_lpips_mean_pairwise(b->distance, e->seeds);
    return true;
}

static bool all_pictures(const struct draft_evaluation *e, struct buffers *b, struct sums *sums)
{
    struct draft_graph *g = e->graph;
    int64_t batches = (e->seeds + e->micro_batch - 1) / e->micro_batch;
    if (!draft_progress_set(e->progress, DRAFT_PHASE_EVALUATING, 0, e->prompt_count * batches * e->plan->count))
        return draft_fail(&g->error, DRAFT_CANCELLED, "the evaluation was stopped on request");
    for (int p = 0; p < e->prompt_count; p++) {
        for (int first = 0; first < e->seeds; first += e->micro_batch) {
            int left = e->seeds - first;
            draft_graph_reset(g, NULL);
            if (!some_pictures(e, p, first, left < e->micro_batch ? left : e->micro_batch, b, sums))
                return false;
        }
        draft_graph_reset(g, NULL);
        if (e->lpips && !add_diversity(e, b, sums))
            return false;
    }
    return true;
}

static void divide(const struct draft_evaluation *e, const struct sums *sums, struct draft_evaluation_numbers *out)
{
    double pictures = (double)e->prompt_count * e->seeds;
    out->reward = sums->reward / pictures;
    double variance = sums->reward_squared / pictures - out->reward * out->reward;
    out->reward_std = variance < 0 ? 0 : sqrt(variance);
    out->kl = sums->kl / pictures;
    out->lpips = e->lpips ? sums->lpips / e->prompt_count : NAN;
    for (int t = 0; t < e->scoring->terms; t++) {
        out->term[t] = sums->term[t] / pictures;
        out->measure[t] = sums->measure[t] / pictures;
    }
}

bool draft_evaluate(const struct draft_evaluation *e, struct draft_evaluation_numbers *numbers, struct draft_error *err)
{
    struct draft_graph *g = e->graph;
    size_t batch = (size_t)(e->micro_batch < e->seeds ? e->micro_batch : e->seeds), seeds = (size_t)e->seeds;
    struct buffers b = {
        .prompts = malloc(batch * sizeof *b.prompts),
        .noise = malloc(batch * latent_numbers(e) * sizeof *b.noise),
        .pictures = e->lpips ? malloc(seeds * picture_numbers(e) * sizeof *b.pictures) : NULL,
        .distance = e->lpips ? malloc(seeds * seeds * sizeof *b.distance) : NULL,
    };
    struct sums sums = {0};
    bool was_recording = draft_no_grad(g);
    bool ok = b.prompts && b.noise && (!e->lpips || (b.pictures && b.distance));
    if (!ok)
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the pictures of an evaluation");
    else if (!(ok = all_pictures(e, &b, &sums)))
        draft_fail(err, g->error.code, "%s", g->error.message);
    draft_graph_reset(g, NULL);
    g->recording = was_recording;
    free(b.prompts);
    free(b.noise);
    free(b.pictures);
    free(b.distance);
    if (ok)
        divide(e, &sums, numbers);
    return ok;
}
