#include "train/batches.h"

#include <stdlib.h>

#include "base/rng.h"

struct draft_batches {
    const struct draft_job_config *config;
    size_t numbers;
    int calls;
    uint32_t *order;      /* [prompt_count], of `epoch` */
    int64_t epoch;        /* -1: none yet */
    const char **prompts; /* [global_batch] */
    float *noise;         /* [global_batch, numbers] */
    float **renoise;      /* [lv_copies] of the same */
    int64_t step;         /* of `batch` */
    struct draft_plus_batch batch;
};

static void draw_fresh(void *context, int call, int first, int n, size_t numbers, float *out)
{
    const struct draft_batches *b = context;
    for (int i = 0; i < n; i++)
        draft_philox_randn(b->config->seed, DRAFT_PURPOSE_ANCESTRAL, (uint64_t)b->step,
                           (uint64_t)(first + i) * (uint64_t)b->calls + (uint64_t)call, out + (size_t)i * numbers,
                           numbers);
}

struct draft_batches *draft_batches_create(const struct draft_job_config *config, size_t numbers, int calls,
                                           struct draft_error *err)
{
    struct draft_batches *b = calloc(1, sizeof *b);
    size_t n = (size_t)config->global_batch;
    bool ok = b;
    if (ok) {
        *b = (struct draft_batches){.config = config, .numbers = numbers, .calls = calls, .epoch = -1};
        b->order = malloc((size_t)config->prompt_count * sizeof *b->order);
        b->prompts = malloc(n * sizeof *b->prompts);
        b->noise = malloc(n * numbers * sizeof *b->noise);
        b->renoise = calloc((size_t)config->lv_copies + 1, sizeof *b->renoise);
        ok = b->order && b->prompts && b->noise && b->renoise;
        for (int i = 0; ok && i < config->lv_copies; i++)
            ok = (b->renoise[i] = malloc(n * numbers * sizeof **b->renoise));
    }
    if (!ok) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for a batch of %zu samples of %zu numbers", n, numbers);
        draft_batches_destroy(b);
        return NULL;
    }
    b->batch = (struct draft_plus_batch){.n = config->global_batch,
                                         .prompts = b->prompts,
                                         .noise = b->noise,
                                         .renoise = (const float *const *)b->renoise,
                                         .fresh = {draw_fresh, b, 0}};
    return b;
}

void draft_batches_destroy(struct draft_batches *b)
{
    if (!b)
        return;
    for (int i = 0; b->renoise && i < b->config->lv_copies; i++)
        free(b->renoise[i]);
    free(b->renoise);
    free(b->noise);
    free(b->prompts);
    free(b->order);
    free(b);
}

static const char *prompt_at(struct draft_batches *b, int64_t sample)
{
    int64_t epoch = sample / b->config->prompt_count;
    if (epoch != b->epoch) {
        draft_philox_permutation(b->config->seed, (uint64_t)epoch, b->order, (size_t)b->config->prompt_count);
        b->epoch = epoch;
    }
    return b->config->prompts[b->order[sample % b->config->prompt_count]];
}

const struct draft_plus_batch *draft_batches_take(struct draft_batches *b, int64_t step)
{
    const struct draft_job_config *c = b->config;
    b->step = step;
    for (int i = 0; i < c->global_batch; i++) {
        b->prompts[i] = prompt_at(b, step * c->global_batch + i);
        draft_philox_randn(c->seed, DRAFT_PURPOSE_NOISE, (uint64_t)step, (uint64_t)i, b->noise + (size_t)i * b->numbers,
                           b->numbers);
        for (int copy = 0; copy < c->lv_copies; copy++)
            draft_philox_randn(c->seed, DRAFT_PURPOSE_RENOISE, (uint64_t)step,
                               (uint64_t)copy * (uint64_t)c->global_batch + (uint64_t)i,
                               b->renoise[copy] + (size_t)i * b->numbers, b->numbers);
    }
    return &b->batch;
}
