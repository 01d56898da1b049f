/* conv2d in BF16 over the fake cuDNN, which executes real plans, beside the CPU backend in F32. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/open.h"
#include "ops/op.h"
#include "tensor/half.h"

struct layer {
    int64_t n, h, w, c, o, k;
    struct draft_conv2d_args args;
    bool bias, residual; /* the residual is x */
    int plans;           /* y, residual + y, dx, dx + dx, dw */
};

/* One backend with the layer run twice on one x, so that the second dx and dw are added to the first. */
struct side {
    struct draft_backend *backend;
    struct draft_arena *arena;
    struct draft_graph g;
    struct draft_tensor *x, *w, *b, *y;
};

static float random_value(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    const float uniform = (float)(int32_t)(*state >> 32) * 0x1p-31f;
    return draft_bf16_to_f32(draft_f32_to_bf16(uniform)); /* both sides begin with the same numbers */
}

static struct draft_tensor *leaf(struct draft_graph *g, int rank, const int64_t *dim, float scale, uint64_t *random)
{
    struct draft_tensor *t = draft_new(g, DRAFT_F32, rank, dim);
    float *values = draft_write(g, t);
    for (int64_t i = 0; i < draft_tensor_count(t); i++)
        values[i] = scale * random_value(random);
    assert_true(draft_written(g, t, values));
    t->needs_grad = true;
    return t;
}

static void run(struct side *s, const char *device, enum draft_dtype type, const struct layer *l)
{
    struct draft_error err = {0};
    uint64_t random = 7;
    *s = (struct side){.backend = draft_backend_open(device, NULL, &(struct draft_backend_options){.threads = 1},
                                                     &draft_services, &err)};
    if (s->backend == NULL)
        fail_msg("%s", err.message);
    s->arena = draft_backend_arena(s->backend, "step", (size_t)1 << 30, &err);
    struct draft_graph *g = &s->g;
    assert_true(draft_graph_init(g, s->backend, s->arena, &err));
    const float scale = 0x1p-4f; /* a power of two: exact in BF16 */
    s->x = leaf(g, 4, (const int64_t[]){l->n, l->h, l->w, l->c}, 1, &random);
    s->w = leaf(g, 4, (const int64_t[]){l->o, l->k, l->k, l->c}, scale, &random);
    s->b = l->bias ? leaf(g, 1, &l->o, 1, &random) : NULL;
    struct draft_tensor *x = draft_convert(g, s->x, type);
    struct draft_tensor *first = draft_conv2d(g, x, s->w, s->b, &l->args);
    struct draft_tensor *second = draft_conv2d_onto(g, l->residual ? x : NULL, x, s->w, s->b, &l->args);
    struct draft_tensor *root = s->y = draft_convert(g, draft_concat_batch(g, first, second), DRAFT_F32);
    if (root == NULL)
        fail_msg("%s", g->error.message);
    const int64_t n = draft_tensor_count(root);
    float *seed = malloc((size_t)n * sizeof *seed);
    for (int64_t i = 0; i < n; i++)
        seed[i] = random_value(&random);
    if (!draft_graph_backward(g, root, seed))
        fail_msg("%s", g->error.message);
    free(seed);
}

static void finish(struct side *s)
{
    draft_graph_finish(&s->g);
    draft_arena_destroy(s->arena);
    draft_backend_destroy(s->backend);
}

static float *values_of(struct side *s, const struct draft_tensor *t, void *values, enum draft_dtype type)
{
    const struct draft_tensor view = {
        .dtype = type, .rank = t->rank, .data = values, .dim = {t->dim[0], t->dim[1], t->dim[2], t->dim[3]}};
    const float *read = draft_read(&s->g, &view);
    assert_non_null(read);
    const size_t bytes = (size_t)draft_tensor_count(t) * sizeof *read;
    return memcpy(malloc(bytes), read, bytes);
}

/* ||difference|| / ||expected|| */
static void assert_close(const char *what, const struct layer *l, float *got, float *expected, int64_t n)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)got[i] - expected[i]) * ((double)got[i] - expected[i]);
        size += (double)expected[i] * expected[i];
    }
    if (!(sqrt(difference) <= 2e-2 * sqrt(size)) || size == 0)
        fail_msg("%s of %lld to %lld channels, stride %d: relative error %.3g", what, (long long)l->c, (long long)l->o,
                 l->args.stride, sqrt(difference / size));
    free(got);
    free(expected);
}

static int empty_cache(const char *folder)
{
    DIR *files = opendir(folder);
    const struct dirent *entry;
    char path[512];
    int count = 0;
    while ((entry = readdir(files)) != NULL)
        if (entry->d_name[0] != '.') {
            snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
            unlink(path);
            count++;
        }
    closedir(files);
    return count;
}

static const struct layer LAYERS[] = {
    {2, 16, 16, 64, 64, 3, {1, 1, 1, 1, 1}, true, true, 5},   /* a ResNet's second */
    {2, 16, 16, 64, 32, 3, {1, 1, 1, 1, 1}, true, false, 4},  /* and its first */
    {1, 16, 12, 32, 48, 3, {2, 1, 1, 1, 1}, true, false, 4},  /* a downsampler */
    {1, 15, 14, 32, 32, 3, {2, 0, 0, 1, 1}, true, false, 4},  /* the VAE encoder's */
    {2, 12, 12, 4, 32, 3, {1, 1, 1, 1, 1}, true, false, 3},   /* conv_in: dx is narrowed, and added there */
    {2, 12, 12, 32, 4, 3, {1, 1, 1, 1, 1}, true, false, 4},   /* conv_out */
    {1, 9, 11, 5, 5, 5, {1, 2, 2, 2, 2}, false, true, 3},     /* odd in everything: the residual is added behind */
    {1, 28, 28, 3, 16, 14, {14, 0, 0, 0, 0}, false, false, 0} /* patches: no plan is asked for */
};

static void test_conv2d_through_cudnn__is_the_cpus(void **state)
{
    (void)state;
    char cache[] = "/tmp/draft-test-XXXXXX";
    assert_non_null(mkdtemp(cache));
    setenv("DRAFT_CUDA_CACHE", cache, 1);
    for (size_t i = 0; i < sizeof LAYERS / sizeof *LAYERS; i++) {
        const struct layer *l = &LAYERS[i];
        for (int again = 0; again < 2; again++) { /* the second time with plans from disk */
            struct side cpu, cuda;
            run(&cpu, "cpu", DRAFT_F32, l);
            run(&cuda, "cuda", DRAFT_BF16, l);
            struct side *sides[] = {&cuda, &cpu};
            float *y[2], *dx[2], *dw[2], *db[2];
            for (int k = 0; k < 2; k++) {
                struct side *s = sides[k];
                y[k] = values_of(s, s->y, s->y->data, DRAFT_F32);
                dx[k] = values_of(s, s->x, s->x->grad, DRAFT_F32);
                dw[k] = values_of(s, s->w, s->w->grad, DRAFT_F32);
                db[k] = l->bias ? values_of(s, s->b, s->b->grad, DRAFT_F32) : NULL;
            }
            assert_close("y", l, y[0], y[1], draft_tensor_count(cpu.y));
            assert_close("dx", l, dx[0], dx[1], draft_tensor_count(cpu.x));
            assert_close("dw", l, dw[0], dw[1], draft_tensor_count(cpu.w));
            if (l->bias)
                assert_close("db", l, db[0], db[1], l->o);
            finish(&cpu);
            finish(&cuda);
        }
        assert_int_equal(empty_cache(cache), l->plans);
    }
    rmdir(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_conv2d_through_cudnn__is_the_cpus)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
