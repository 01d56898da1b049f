#include "engine/backend/cuda/cpu_reference.h"

struct norm {
    const char *name;
    int64_t n, positions, c, groups;
    bool silu, layer, accumulate, frozen, in_place;
    double scale, mean;
    double bound; /* 0: the type's */
};

static struct draft_tensor *norm_op(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    const struct norm *s = context;
    if (s->layer)
        return draft_layer_norm(g, in[0], in[1], in[2], 1e-5f);
    return draft_group_norm(g, in[0], in[1], in[2], (int)s->groups, 1e-5f, s->silu);
}

static void run_norm(enum draft_dtype type, const void *context)
{
    const struct norm *s = context;
    int64_t count = s->n * s->positions * s->c;
    float *x = numbers(type, count, s->scale, s->mean), *dy = numbers(type, count, 1, 0);
    float *gamma = numbers(DRAFT_F32, s->c, 0.3, 1), *beta = numbers(DRAFT_F32, s->c, 0.3, 0);
    int64_t dim[] = {s->n, s->positions, s->c};
    struct draft_tensor in[] = {input(DRAFT_F32, 3, dim, x), input(DRAFT_F32, 1, &s->c, gamma),
                                input(DRAFT_F32, 1, &s->c, beta)};
    struct cpu_result want = on_cpu(norm_op, s, in, 3, dy);

    struct draft_group_norm_shape shape = {s->n, s->positions, s->c, s->groups, 1e-5f, s->silu};
    int64_t rows = s->n * s->positions, stride = s->layer ? s->c + 8 : s->c;
    void *d_x = device(type, count, x), *d_dy = device(type, count, dy);
    void *y = device(type, rows * stride, NULL);
    float *stats = memory((size_t)(s->layer ? rows : s->n * s->groups) * 2 * sizeof *stats);
    /* What is added to is as large as what is added. */
    float *x0 = numbers(type, count, mean_square_root(count, want.gradient[0]), 0);
    float *gamma0 = numbers(DRAFT_F32, s->c, 1, 0), *beta0 = numbers(DRAFT_F32, s->c, 1, 0);
    void *dx = s->in_place ? d_dy : device(type, count, s->accumulate ? x0 : NULL);
    void *dgamma = device(DRAFT_F32, s->c, s->accumulate ? gamma0 : NULL);
    void *dbeta = device(DRAFT_F32, s->c, s->accumulate ? beta0 : NULL);
    struct draft_cuda_gradient to_x = {dx, s->accumulate}, to_gamma = {s->frozen ? NULL : dgamma, s->accumulate},
                               to_beta = {s->frozen ? NULL : dbeta, s->accumulate};
    if (s->layer) {
        draft_cuda_layer_norm(NULL, type, rows, s->c, 1e-5f, d_x, gamma, beta, y, stride, stats);
        draft_cuda_layer_norm_backward(NULL, type, rows, s->c, d_x, gamma, stats, d_dy, to_x, to_gamma, to_beta,
                                       memory(s->frozen ? 0 : draft_cuda_layer_norm_scratch(rows, s->c)));
    } else {
        draft_cuda_group_norm(NULL, type, &shape, d_x, gamma, beta, y, stats,
                              memory(draft_cuda_group_norm_scratch(&shape)));
        draft_cuda_group_norm_backward(NULL, type, &shape, d_x, gamma, beta, stats, d_dy, to_x, to_gamma, to_beta,
                                       memory(draft_cuda_group_norm_scratch(&shape)));
    }
    double bound = s->bound > 0 ? s->bound : BOUND[type];
    for (int64_t r = 0; r < rows; r++)
        check("y", type, s->c, (char *)y + (size_t)(r * stride) * size_of(type), want.y + r * s->c, 4 * bound);
    check("dx", type, count, dx, s->accumulate ? added(count, x0, want.gradient[0]) : want.gradient[0], bound);
    if (s->frozen)
        return;
    check("dgamma", DRAFT_F32, s->c, dgamma, s->accumulate ? added(s->c, gamma0, want.gradient[1]) : want.gradient[1],
          bound);
    check("dbeta", DRAFT_F32, s->c, dbeta, s->accumulate ? added(s->c, beta0, want.gradient[2]) : want.gradient[2],
          bound);
}

static void run_norms(const struct norm *cases, size_t count)
{
    for (size_t i = 0; i < count; i++)
        in_every_way(cases[i].name, run_norm, &cases[i]);
}

static void test_cuda_norms__group_norm_and_its_gradients(void **state)
{
    (void)state;
    static const struct norm cases[] = {
        {.name = "group norm", .n = 2, .positions = 64, .c = 320, .groups = 32, .silu = true, .scale = 2},
        {.name = "one position", .n = 3, .positions = 1, .c = 64, .groups = 32, .scale = 1},
        {.name = "odd channels", .n = 5, .positions = 63, .c = 13, .groups = 13, .silu = true, .scale = 1},
        {.name = "odd group", .n = 1, .positions = 129, .c = 33, .groups = 1, .scale = 1},
        {.name = "two tiles", .n = 1, .positions = 5, .c = 2560, .groups = 32, .silu = true, .scale = 1},
        {.name = "tall", .n = 1, .positions = 4099, .c = 32, .groups = 4, .scale = 1, .accumulate = true},
        {.name = "many chunks", .n = 1, .positions = 520, .c = 1024, .groups = 32, .scale = 1, .frozen = true},
        {.name = "groups of 8", .n = 2, .positions = 9, .c = 64, .groups = 8, .silu = true, .scale = 1, .frozen = true},
        {.name = "groups of 20",
         .n = 1,
         .positions = 300,
         .c = 60,
         .groups = 3,
         .silu = true,
         .scale = 1,
         .frozen = true},
        /* forward in three kernels: groups too wide or too long for one */
        {.name = "wide", .n = 2, .positions = 5, .c = 2560, .groups = 1, .silu = true, .scale = 1, .frozen = true},
        {.name = "long", .n = 1, .positions = 4099, .c = 32, .groups = 1, .scale = 1, .frozen = true},
        {.name = "long and odd", .n = 1, .positions = 4099, .c = 33, .groups = 1, .scale = 1, .frozen = true},
        {.name = "in place",
         .n = 2,
         .positions = 35,
         .c = 96,
         .groups = 32,
         .silu = true,
         .scale = 1,
         .frozen = true,
         .in_place = true},
    };
    run_norms(cases, sizeof cases / sizeof *cases);
}

static void test_cuda_norms__layer_norm_and_its_gradients(void **state)
{
    (void)state;
    static const struct norm cases[] = {
        {.name = "layer norm", .n = 2, .positions = 37, .c = 320, .layer = true, .scale = 2},
        {.name = "odd", .n = 7, .positions = 1, .c = 33, .layer = true, .scale = 1, .accumulate = true},
        {.name = "narrow", .n = 1, .positions = 200, .c = 5, .layer = true, .scale = 1},
        {.name = "wide", .n = 1, .positions = 3, .c = 1280, .layer = true, .scale = 1},
        {.name = "in place",
         .n = 1,
         .positions = 50,
         .c = 64,
         .layer = true,
         .scale = 1,
         .frozen = true,
         .in_place = true},
    };
    run_norms(cases, sizeof cases / sizeof *cases);
}

static void test_cuda_norms__a_large_mean_costs_no_more_than_its_rounding(void **state)
{
    (void)state;
    static const struct norm cases[] = {
        {.name = "group", .n = 1, .positions = 300, .c = 64, .groups = 16, .scale = 1, .mean = 100, .bound = 2e-5},
        {.name = "layer", .n = 40, .positions = 1, .c = 96, .layer = true, .scale = 1, .mean = 100, .bound = 2e-5},
    };
    for (int i = 0; i < 2; i++)
        in_every_order(cases[i].name, DRAFT_F32, run_norm, &cases[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_norms__group_norm_and_its_gradients),
        cmocka_unit_test(test_cuda_norms__layer_norm_and_its_gradients),
        cmocka_unit_test(test_cuda_norms__a_large_mean_costs_no_more_than_its_rounding),
    };
    return cmocka_run_group_tests(tests, open_cpu, close_cpu);
}
