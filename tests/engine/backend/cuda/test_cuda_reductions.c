#include "engine/backend/cuda/device_op.h"

typedef const struct device_op *op_of;

static int64_t count_of(op_of op)
{
    int64_t n = 1;
    for (int i = 0; i < op->rank[0]; i++)
        n *= op->dim[0][i];
    return n;
}

/* --- Losses
 * ------------------------------------------------------------------------------------------------------------ */

static struct draft_tensor *mean(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    (void)context;
    return draft_mean(g, in[0]);
}

static void mean_forward(enum draft_dtype type, op_of op, void *const *in, void *y)
{
    draft_cuda_mean(NULL, type, count_of(op), in[0], y, memory(draft_cuda_mean_scratch(count_of(op))));
}

static void mean_backward(enum draft_dtype type, op_of op, void *const *in, const void *dy,
                          const struct draft_cuda_gradient *d)
{
    (void)in;
    draft_cuda_mean_backward(NULL, type, count_of(op), dy, d[0]);
}

static struct draft_tensor *square_difference(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    (void)context;
    return draft_mean_square_difference(g, in[0], in[1]);
}

static void square_difference_forward(enum draft_dtype type, op_of op, void *const *in, void *y)
{
    int64_t n = count_of(op);
    draft_cuda_mean_square_difference(NULL, type, n, in[0], in[1], y, memory(draft_cuda_mean_scratch(n)));
}

static void square_difference_backward(enum draft_dtype type, op_of op, void *const *in, const void *dy,
                                       const struct draft_cuda_gradient *d)
{
    for (int i = 0; i < 2; i++)
        draft_cuda_mean_square_difference_backward(NULL, type, count_of(op), in[i], in[1 - i], dy, d[i]);
}

static struct draft_tensor *cosine(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    (void)context;
    return draft_cosine(g, in[0], in[1]);
}

static void cosine_forward(enum draft_dtype type, op_of op, void *const *in, void *y)
{
    draft_cuda_cosine(NULL, type, op->dim[0][0], op->dim[0][1], in[0], in[1], y);
}

static void cosine_backward(enum draft_dtype type, op_of op, void *const *in, const void *dy,
                            const struct draft_cuda_gradient *d)
{
    for (int i = 0; i < 2; i++)
        draft_cuda_cosine_backward(NULL, type, op->dim[0][0], op->dim[0][1], in[i], in[1 - i], dy, d[i]);
}

static void test_cuda_reductions__losses(void **state)
{
    (void)state;
    static const struct device_op ops[] = {
        {"mean", mean, mean_forward, mean_backward, 1, {1}, {{9001}}, 0.2, 1, true, .number = {0}},
        {"mean of one", mean, mean_forward, mean_backward, 1, {1}, {{1}}, 0.2, 1, true, .number = {0}},
        {"square difference",
         square_difference,
         square_difference_forward,
         square_difference_backward,
         2,
         {2, 2},
         {{65, 64}, {65, 64}},
         0,
         1,
         true,
         .number = {0}},
        {"cosine",
         cosine,
         cosine_forward,
         cosine_backward,
         2,
         {2, 2},
         {{3, 768}, {3, 768}},
         0.1,
         1,
         true,
         .number = {0}},
        {"odd cosine", cosine, cosine_forward, cosine_backward, 2, {2, 2}, {{1, 5}, {1, 5}}, 0, 1, true, .number = {0}},
    };
    run_device_ops(ops, sizeof ops / sizeof *ops);
}

/* --- Over rows: several chunks, several tiles, with strides; the sum in F32
 * -------------------------------------------- */

static void run_sum_rows(enum draft_dtype type, const void *context)
{
    const struct draft_cuda_rows *r = context;
    int64_t size = (r->b - 1) * r->b_stride + (r->rows - 1) * r->x_stride + r->c;
    float *x = numbers(type, size, 1, 0.1), *before = numbers(DRAFT_F32, r->b * r->c, 1, 0);
    float *want = memory((size_t)(r->b * r->c) * 4);
    for (int64_t b = 0; b < r->b; b++)
        for (int64_t c = 0; c < r->c; c++) {
            double sum = (double)before[b * r->c + c];
            for (int64_t i = 0; i < r->rows; i++)
                sum += (double)x[b * r->b_stride + i * r->x_stride + c];
            want[b * r->c + c] = (float)sum;
        }
    void *sum = device(DRAFT_F32, r->b * r->c, before);
    draft_cuda_sum_rows(NULL, type, DRAFT_F32, r, device(type, size, x), (struct draft_cuda_gradient){sum, true},
                        memory(draft_cuda_sum_rows_scratch(r)));
    check("sum", DRAFT_F32, r->b * r->c, sum, want, 1e-6);
}

static void test_cuda_reductions__sums_over_rows(void **state)
{
    (void)state;
    static const struct draft_cuda_rows shapes[] = {
        {1, 1000, 64, 64, 0}, {3, 100, 8, 8, 800}, {2, 7, 33, 40, 300}, {1, 3, 3000, 3000, 0}, {1, 1, 1, 1, 0},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        in_every_way("sum of rows", run_sum_rows, &shapes[i]);
}

/* --- LPIPS
 * --------------------------------------------------------------------------------------------------------------- */

static void run_lpips(enum draft_dtype type, const void *context)
{
    (void)context;
    enum { N = 3, POSITIONS = 9, C = 40, LENGTH = POSITIONS * C };
    float *x = numbers(type, N * LENGTH, 1, 0), *linear = numbers(DRAFT_F32, C, 0.1, 1);
    float *want = memory(N * LENGTH * 4), *vectors = memory(N * LENGTH * 4), distances[N * N] = {0};
    float *got = memory(N * N * sizeof *got);
    for (int i = 0; i < N * POSITIONS; i++) {
        double square = 0;
        for (int c = 0; c < C; c++)
            square += (double)x[i * C + c] * (double)x[i * C + c];
        for (int c = 0; c < C; c++)
            want[i * C + c] =
                (float)((double)x[i * C + c] / (sqrt(square) + 1e-10) * sqrt((double)linear[c] / POSITIONS));
    }
    for (int i = 0; i < N; i++)
        draft_cuda_lpips_stage(NULL, type, POSITIONS, C, device(type, LENGTH, x + i * LENGTH), linear,
                               vectors + i * LENGTH);
    check("vectors", DRAFT_F32, N * LENGTH, vectors, want, 1e-6);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            double sum = 0;
            for (int k = 0; k < LENGTH; k++)
                sum += pow((double)vectors[i * LENGTH + k] - (double)vectors[j * LENGTH + k], 2);
            distances[i * N + j] = (float)sum;
        }
    draft_cuda_pair_distances(NULL, N, LENGTH, vectors, got);
    check("distances", DRAFT_F32, N * N, got, distances, 1e-7);
    for (int i = 0; i < N; i++)
        assert_true(got[i * N + i] == 0);
}

static void test_cuda_reductions__lpips(void **state)
{
    (void)state;
    in_every_way("lpips", run_lpips, NULL);
}

/* --- A matrix times one row; what is added to it, a bias twice ---------------------------------------------------- */

static struct draft_tensor *row(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    (void)context;
    return draft_linear_onto(g, in[2], in[0], in[1], in[2], NULL);
}

static void row_forward(enum draft_dtype type, op_of op, void *const *in, void *y)
{
    const int64_t o = op->dim[1][0], k = op->dim[1][1], first = o / 3; /* in two parts, as two matrices are */
    const size_t size = size_of(type);
    const struct draft_cuda_row part[] = {{in[1], in[2], in[2], y, first},
                                          {(char *)in[1] + (size_t)(first * k) * size,
                                           (char *)in[2] + (size_t)first * size, (char *)in[2] + (size_t)first * size,
                                           (char *)y + (size_t)first * size, o - first}};
    draft_cuda_row_products(NULL, type, k, in[0], part, 2);
}

static void test_cuda_reductions__row_product(void **state)
{
    (void)state;
    static const struct device_op ops[] = {
        {"row", row, row_forward, NULL, 3, {2, 2, 1}, .dim = {{1, 320}, {77, 320}, {77}}},
        {"odd row", row, row_forward, NULL, 3, {2, 2, 1}, .dim = {{1, 37}, {8, 37}, {8}}},
    };
    run_device_ops(ops, sizeof ops / sizeof *ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_reductions__losses),
        cmocka_unit_test(test_cuda_reductions__sums_over_rows),
        cmocka_unit_test(test_cuda_reductions__lpips),
        cmocka_unit_test(test_cuda_reductions__row_product),
    };
    return cmocka_run_group_tests(tests, open_cpu, close_cpu);
}
