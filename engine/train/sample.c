#include "train/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

double draft_aig_weight(enum draft_aig aig, double p, int i, int count)
{
    double at = (double)i / count;
    switch (aig) {
    case DRAFT_AIG_DRAFT:
        return 1;
    case DRAFT_AIG_BASE:
        return 0;
    case DRAFT_AIG_LINEAR:
        return at;
    case DRAFT_AIG_POWER:
        return pow(at, p);
    case DRAFT_AIG_STEP:
        return at < p ? 0 : 1;
    }
    return 1;
}

/* What a picture needs besides the arena. */
struct workspace {
    struct draft_sampler_plan plan;
    struct draft_torch_generator generator;
    double *tuned;
    float *noise;
};

/* As diffusers does: one generator a picture, first for x_T, then for each call. */
static void draw_fresh(void *context, int call, int first, int n, size_t numbers, float *out)
{
    (void)call;
    (void)first;
    draft_torch_generator_randn(context, out, (size_t)n * numbers);
}

static bool draw(struct draft_graph *g, struct draft_pipeline *p, struct draft_scoring *scoring,
                 const struct draft_sample_request *request, struct draft_progress *progress, struct workspace *w,
                 struct draft_picture *picture)
{
    int64_t h = request->height / p->vae_info.factor, width = request->width / p->vae_info.factor;
    int64_t c = p->unet_info.in_channels;
    int count = w->plan.count;
    for (int i = 0; i < count; i++)
        w->tuned[i] = request->lora_scale == 0 ? 0 : draft_aig_weight(request->aig, request->aig_power, i, count);
    draft_torch_generator_seed(&w->generator, request->seed);
    draft_torch_generator_randn(&w->generator, w->noise, (size_t)(h * width * c));

    struct draft_conditions conditions;
    if (!draft_conditions_make(g, p, &request->prompt, 1, request->negative, request->guidance, &conditions))
        return false;
    struct draft_tensor *x = draft_latents_from_nchw(g, w->noise, 1, h, width, c);
    if (!(x = draft_sampler_start(g, &w->plan, x)))
        return false;
    struct draft_fresh fresh = {draw_fresh, &w->generator, 0};
    struct draft_sampling sampling = {
        .plan = &w->plan, .count = count, .fresh = &fresh, .tuned = w->tuned, .progress = progress};
    x = draft_sample_latents(g, p, &conditions, &sampling, x, NULL);
    struct draft_tensor *image = draft_decode_image(g, p, x, NULL);
    struct draft_asked asked;
    if (!draft_score_read(scoring, g, &request->prompt, 1, &asked))
        return false;
    const float *reward = draft_read(g, draft_score(scoring, g, image, &asked, NULL));
    const float *pixels = draft_read(g, image);
    if (!reward || !pixels)
        return false;

    *picture = (struct draft_picture){
        .height = (int)image->dim[1], .width = (int)image->dim[2], .sampler = w->plan.sampler->title};
    size_t bytes = (size_t)draft_tensor_count(image) * sizeof(float);
    picture->rgb = malloc(bytes);
    if (!picture->rgb)
        return draft_fail(&g->error, DRAFT_OUT_OF_MEMORY, "no memory for a picture of %d x %d", picture->width,
                          picture->height);
    memcpy(picture->rgb, pixels, bytes);
    picture->reward = *reward;
    return true;
}

bool draft_sample_picture(struct draft_graph *g, struct draft_pipeline *p, struct draft_scoring *scoring,
                          const struct draft_sample_request *request, struct draft_progress *progress,
                          struct draft_picture *picture, struct draft_error *err)
{
    const struct draft_sampler *sampler = draft_sampler_find(request->sampler, err);
    struct workspace w = {.tuned = NULL};
    if (!sampler || !draft_sampler_plan_make(&w.plan, sampler, &p->scheduler, request->steps, err))
        return false;
    size_t pixels = (size_t)(request->height / p->vae_info.factor) * (size_t)(request->width / p->vae_info.factor);
    w.tuned = malloc((size_t)w.plan.count * sizeof *w.tuned);
    w.noise = malloc(pixels * (size_t)p->unet_info.in_channels * sizeof *w.noise);
    bool ok = w.tuned && w.noise;
    float strength = p->adapter ? p->adapter->strength : 1;
    if (!ok) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the noise of a picture");
    } else {
        draft_graph_reset(g, NULL);
        bool was_recording = draft_no_grad(g);
        if (p->adapter)
            draft_adapter_set_strength(p->adapter, (float)request->lora_scale);
        ok = draw(g, p, scoring, request, progress, &w, picture);
        if (p->adapter)
            draft_adapter_set_strength(p->adapter, strength);
        g->recording = was_recording;
        if (!ok)
            draft_fail(err, g->error.code, "%s", g->error.message);
        draft_graph_reset(g, NULL);
    }
    draft_sampler_plan_free(&w.plan);
    free(w.tuned);
    free(w.noise);
    return ok;
}
