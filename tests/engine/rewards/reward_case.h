/* A reward opened on a graph of its own, and its score with the gradient of sum(seed * score) in the pictures.
 * TEST_DEVICE=cuda, TEST_PRECISION=bf16: as in ops/op_case.h. */
#ifndef TESTS_ENGINE_REWARDS_REWARD_CASE_H
#define TESTS_ENGINE_REWARDS_REWARD_CASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/open.h"
#include "rewards/reward.h"

struct reward_case {
    struct draft_backend *backend;
    struct draft_arena *weights, *step;
    struct draft_graph g;
    struct draft_reward *reward;
};

static inline void reward_open(struct reward_case *c, const char *spec)
{
    struct draft_error err = {0};
    struct draft_reward_spec parsed;
    const char *device = getenv("TEST_DEVICE"), *precision = getenv("TEST_PRECISION");
    *c = (struct reward_case){.backend = draft_backend_open(device != NULL ? device : "cpu", NULL,
                                                            &(struct draft_backend_options){.threads = 2},
                                                            &draft_services, &err),
                              .weights = draft_arena_create("engine", (size_t)1 << 30, &err)};
    c->step = c->backend != NULL ? draft_backend_arena(c->backend, "step", (size_t)1 << 32, &err) : NULL;
    if (c->step == NULL || !draft_graph_init(&c->g, c->backend, c->step, &err) ||
        !draft_reward_spec_parse(spec, &parsed, &err))
        fail_msg("%s", err.message);
    if (precision != NULL && strcmp(precision, "bf16") == 0)
        c->g.activations = DRAFT_BF16;
    c->reward = draft_reward_kind_find(parsed.kind)->open(&parsed, c->weights, &err);
    if (c->reward == NULL)
        fail_msg("%s", err.message);
}

static inline void reward_close(struct reward_case *c)
{
    c->reward->kind->close(c->reward);
    draft_graph_finish(&c->g);
    draft_arena_destroy(c->step);
    draft_arena_destroy(c->weights);
    draft_backend_destroy(c->backend);
}

/* pixels [n, h, w, 3] -> out[n]; gradient (may be NULL) like pixels, of sum(seed[i] * score[i]) */
static inline void reward_score(struct reward_case *c, float *pixels, int64_t n, int64_t h, int64_t w,
                                const char *const *prompts, float *out, const float *seed, float *gradient)
{
    size_t bytes = (size_t)(n * h * w * 3) * sizeof *pixels;
    struct draft_tensor *images = draft_new(&c->g, DRAFT_F32, 4, (int64_t[]){n, h, w, 3});
    assert_true(images != NULL && draft_written(&c->g, images, memcpy(draft_write(&c->g, images), pixels, bytes)));
    images->needs_grad = gradient != NULL;
    c->g.recording = gradient != NULL;
    struct draft_tensor *score = draft_reward_score(c->reward, &c->g, images, prompts);
    const float *values = draft_read(&c->g, score);
    if (values == NULL)
        fail_msg("%s", c->g.error.message);
    assert_int_equal(score->rank, 1);
    assert_int_equal(score->dim[0], n);
    memcpy(out, values, (size_t)n * sizeof *out);
    if (gradient != NULL && (!draft_graph_backward(&c->g, score, seed) ||
                             !draft_backend_download(c->backend, gradient, images->grad, bytes, &c->g.error)))
        fail_msg("%s", c->g.error.message);
    draft_graph_reset(&c->g, NULL);
}

#endif
