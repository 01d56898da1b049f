#include "engine/backend/cuda/device_op.h"

typedef const struct device_op *op_of;

static int64_t count_of(op_of op, int input)
{
    int64_t n = 1;
    for (int i = 0; i < op->rank[input]; i++)
        n *= op->dim[input][i];
    return n;
}

/* --- activate: number[0] the kind --------------------------------------------------------------------------------- */

static struct draft_tensor *activate(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    return draft_activate(g, in[0], (enum draft_activation)((op_of)context)->number[0]);
}

static enum draft_map map_of(op_of op)
{
    static const enum draft_map maps[] = {[DRAFT_SILU] = DRAFT_MAP_SILU,
                                          [DRAFT_GELU] = DRAFT_MAP_GELU,
                                          [DRAFT_QUICK_GELU] = DRAFT_MAP_QUICK_GELU,
                                          [DRAFT_RELU] = DRAFT_MAP_RELU};
    return maps[op->number[0]];
}

static void map(enum draft_dtype type, op_of op, void *const *in, void *y)
{
    draft_cuda_map(NULL, type, map_of(op), count_of(op, 0), in[0], y);
}

static void map_backward(enum draft_dtype type, op_of op, void *const *in, const void *dy,
                         const struct draft_cuda_gradient *d)
{
    draft_cuda_map_backward(NULL, type, map_of(op), count_of(op, 0), in[0], dy, d[0]);
}

static void test_cuda_elementwise__activations(void **state)
{
    (void)state;
    for (int kind = DRAFT_SILU; kind <= DRAFT_RELU; kind++)
        for (int64_t n = 1000; n <= 1001; n++) {
            struct device_op op = {"activate",  activate,     map,        map_backward,    .inputs = 1,
                                   .rank = {1}, .dim = {{n}}, .scale = 3, .number = {kind}};
            run_device_ops(&op, 1);
        }
}

/* --- geglu -------------------------------------------------------------------------------------------------------- */

static struct draft_tensor *geglu(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    (void)context;
    return draft_geglu(g, in[0]);
}

static void geglu_forward(enum draft_dtype type, op_of op, void *const *in, void *y)
{
    draft_cuda_geglu(NULL, type, op->dim[0][0], op->dim[0][1] / 2, in[0], y, op->dim[0][1] / 2);
}

static void geglu_backward(enum draft_dtype type, op_of op, void *const *in, const void *dy,
                           const struct draft_cuda_gradient *d)
{
    draft_cuda_geglu_backward(NULL, type, op->dim[0][0], op->dim[0][1] / 2, in[0], dy, d[0]);
}

static void test_cuda_elementwise__geglu(void **state)
{
    (void)state;
    static const struct device_op ops[] = {
        {"geglu", geglu, geglu_forward, geglu_backward, 1, {2}, .dim = {{33, 128}}, .scale = 2},
        {"odd geglu", geglu, geglu_forward, geglu_backward, 1, {2}, .dim = {{7, 26}}, .scale = 2},
    };
    run_device_ops(ops, 2);
}

/* --- sums --------------------------------------------------------------------------------------------------------- */

static struct draft_tensor *axpby(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    op_of op = context;
    return draft_axpby(g, op->real[0], in[0], op->real[1], op->inputs > 1 ? in[1] : NULL);
}

static void axpby_forward(enum draft_dtype type, op_of op, void *const *in, void *y)
{
    draft_cuda_axpby(NULL, type, count_of(op, 0), op->real[0], in[0], op->real[1], op->inputs > 1 ? in[1] : NULL,
                     (struct draft_cuda_gradient){y, false});
}

static void axpby_backward(enum draft_dtype type, op_of op, void *const *in, const void *dy,
                           const struct draft_cuda_gradient *d)
{
    (void)in;
    for (int i = 0; i < op->inputs; i++)
        draft_cuda_axpby(NULL, type, count_of(op, 0), op->real[i], dy, 0, NULL, d[i]);
}

static struct draft_tensor *add_positions(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    (void)context;
    return draft_add_positions(g, in[0], in[1]);
}

static void add_positions_forward(enum draft_dtype type, op_of op, void *const *in, void *y)
{
    draft_cuda_add_to_rows(NULL, type, op->dim[0][0], op->dim[0][1] * op->dim[0][2], in[0], in[1], y);
}

static void add_positions_backward(enum draft_dtype type, op_of op, void *const *in, const void *dy,
                                   const struct draft_cuda_gradient *d)
{
    (void)in;
    int64_t size = op->dim[0][1] * op->dim[0][2];
    struct draft_cuda_rows rows = {1, op->dim[0][0], size, size, 0};
    draft_cuda_axpby(NULL, type, count_of(op, 0), 1, dy, 0, NULL, d[0]);
    draft_cuda_sum_rows(NULL, type, type, &rows, dy, d[1], memory(draft_cuda_sum_rows_scratch(&rows)));
}

static void test_cuda_elementwise__sums(void **state)
{
    (void)state;
    static const struct device_op ops[] = {
        {"axpby", axpby, axpby_forward, axpby_backward, 2, {1, 1}, .dim = {{800}, {800}}, .real = {0.7f, -1.3f}},
        {"odd axpby", axpby, axpby_forward, axpby_backward, 2, {1, 1}, .dim = {{77}, {77}}, .real = {0.7f, -1.3f}},
        {"scaling", axpby, axpby_forward, axpby_backward, 1, {1}, .dim = {{33}}, .real = {0.18f}},
        {"add positions",
         add_positions,
         add_positions_forward,
         add_positions_backward,
         2,
         {3, 2},
         .dim = {{3, 9, 8}, {9, 8}}},
    };
    run_device_ops(ops, sizeof ops / sizeof *ops);
}

/* --- pictures ----------------------------------------------------------------------------------------------------- */

static struct draft_tensor *scale_clamp(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    op_of op = context;
    return draft_scale_clamp(g, in[0], op->real[0], op->real[1], op->real[2], op->real[3]);
}

static struct draft_cuda_clamp clamp_of(op_of op)
{
    return (struct draft_cuda_clamp){op->real[0], op->real[1], op->real[2], op->real[3]};
}

static void clamp_forward(enum draft_dtype type, op_of op, void *const *in, void *y)
{
    draft_cuda_scale_clamp(NULL, type, count_of(op, 0), clamp_of(op), in[0], y);
}

static void clamp_backward(enum draft_dtype type, op_of op, void *const *in, const void *dy,
                           const struct draft_cuda_gradient *d)
{
    draft_cuda_scale_clamp_backward(NULL, type, count_of(op, 0), clamp_of(op), in[0], dy, d[0]);
}

static const float MEAN[] = {0.48f, 0.46f, 0.41f, 0.1f}, STD[] = {0.27f, 0.26f, 0.28f, 2};

static struct draft_tensor *normalize(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    (void)context;
    return draft_normalize_channels(g, in[0], MEAN, STD);
}

static void normalize_forward(enum draft_dtype type, op_of op, void *const *in, void *y)
{
    draft_cuda_normalize_channels(NULL, type, count_of(op, 0) / op->dim[0][3], op->dim[0][3], MEAN, STD, in[0], y);
}

static void normalize_backward(enum draft_dtype type, op_of op, void *const *in, const void *dy,
                               const struct draft_cuda_gradient *d)
{
    (void)in;
    draft_cuda_normalize_channels_backward(NULL, type, count_of(op, 0) / op->dim[0][3], op->dim[0][3], STD, dy, d[0]);
}

static void test_cuda_elementwise__pictures(void **state)
{
    (void)state;
    static const struct device_op ops[] = {
        {"scale clamp", scale_clamp, clamp_forward, clamp_backward, 1, {1}, .dim = {{999}}, .real = {0.5f, 0.5f, 0, 1}},
        {"three channels", normalize, normalize_forward, normalize_backward, 1, {4}, .dim = {{2, 4, 8, 3}}},
        {"odd, three channels", normalize, normalize_forward, normalize_backward, 1, {4}, .dim = {{1, 5, 7, 3}}},
        {"four channels", normalize, normalize_forward, normalize_backward, 1, {4}, .dim = {{1, 5, 2, 4}}},
    };
    run_device_ops(ops, sizeof ops / sizeof *ops);
}

/* --- a sampler's step --------------------------------------------------------------------------------------------- */

static void run_step(enum draft_dtype type, const void *context)
{
    const int64_t n = *(const int64_t *)context;
    const float weights[] = {0.9f, -0.4f};
    float *x = numbers(DRAFT_F32, n, 1, 0), *m = numbers(DRAFT_F32, n, 1, 0), *next = memory((size_t)n * sizeof *next);
    (void)type; /* latents are F32 */
    for (int64_t i = 0; i < n; i++)
        next[i] = weights[0] * x[i] + weights[1] * m[i] + x[i];
    float *d_x = device(DRAFT_F32, n, x);
    const float *at = device(DRAFT_F32, 2, weights);
    draft_cuda_combine(NULL, n, at, d_x, at + 1, device(DRAFT_F32, n, m), (struct draft_cuda_gradient){d_x, true});
    check("next x, in place", DRAFT_F32, n, d_x, next, 1e-6);
}

static void test_cuda_elementwise__a_samplers_step(void **state)
{
    (void)state;
    in_every_order("odd step", DRAFT_F32, run_step, &(int64_t){333});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_elementwise__activations),
        cmocka_unit_test(test_cuda_elementwise__geglu),
        cmocka_unit_test(test_cuda_elementwise__sums),
        cmocka_unit_test(test_cuda_elementwise__pictures),
        cmocka_unit_test(test_cuda_elementwise__a_samplers_step),
    };
    return cmocka_run_group_tests(tests, open_cpu, close_cpu);
}
