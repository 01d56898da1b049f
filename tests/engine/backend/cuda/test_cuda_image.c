#include "engine/backend/cuda/device_op.h"

#include "ops/jpeg.h"

typedef const struct device_op *op_of;

/* number[0], [1]: height and width of the result */
static struct draft_cuda_image image_of(op_of op)
{
    const int64_t *x = op->dim[0];
    return (struct draft_cuda_image){x[0], x[1], x[2], x[3], op->number[0], op->number[1]};
}

static struct draft_tensor *upsample(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    op_of op = context;
    return draft_upsample_nearest(g, in[0], op->number[0], op->number[1]);
}

static void upsample_forward(enum draft_dtype type, op_of op, void *const *in, void *y)
{
    struct draft_cuda_image image = image_of(op);
    draft_cuda_upsample_nearest(NULL, type, &image, in[0], y);
}

static void upsample_backward(enum draft_dtype type, op_of op, void *const *in, const void *dy,
                              const struct draft_cuda_gradient *d)
{
    (void)in;
    struct draft_cuda_image image = image_of(op);
    draft_cuda_upsample_nearest_backward(NULL, type, &image, dy, d[0]);
}

static void test_cuda_image__upsample_nearest(void **state)
{
    (void)state;
    static const struct device_op ops[] = {
        {"twice", upsample, upsample_forward, upsample_backward, 1, {4}, {{2, 4, 5, 8}}, .number = {8, 10}},
        {"any factor", upsample, upsample_forward, upsample_backward, 1, {4}, {{1, 7, 3, 3}}, .number = {17, 10}},
        {"to odd", upsample, upsample_forward, upsample_backward, 1, {4}, {{1, 4, 4, 16}}, .number = {7, 7}},
        {"smaller", upsample, upsample_forward, upsample_backward, 1, {4}, {{1, 9, 10, 4}}, .number = {5, 3}},
    };
    run_device_ops(ops, sizeof ops / sizeof *ops);
}

/* number[2], [3]: window and stride */
static struct draft_tensor *max_pool(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    op_of op = context;
    return draft_max_pool(g, in[0], (int)op->number[2], (int)op->number[3]);
}

static void max_pool_forward(enum draft_dtype type, op_of op, void *const *in, void *y)
{
    struct draft_cuda_image image = image_of(op);
    draft_cuda_max_pool(NULL, type, &image, op->number[2], op->number[3], in[0], y);
}

static void test_cuda_image__max_pool(void **state)
{
    (void)state;
    static const struct device_op ops[] = {
        {"pool", max_pool, max_pool_forward, NULL, 1, {4}, {{2, 7, 9, 8}}, .number = {3, 4, 3, 2}},
        {"odd pool", max_pool, max_pool_forward, NULL, 1, {4}, {{1, 6, 8, 3}}, .number = {3, 4, 2, 2}},
    };
    run_device_ops(ops, 2);
}

static void run_pool_nan(enum draft_dtype type, const void *context)
{
    (void)context;
    const struct draft_cuda_image image = {1, 2, 2, 1, 1, 1};
    for (int place = 0; place < 4; place++) {
        float x[4] = {1, 2, 3, 4};
        x[place] = NAN;
        void *y = device(type, 1, (float[]){0});
        draft_cuda_max_pool(NULL, type, &image, 2, 1, device(type, 4, x), y);
        assert_true(isnan(at(type, y, 0)));
    }
}

static void test_cuda_image__a_nan_survives_pooling(void **state)
{
    (void)state;
    in_every_way("NaN", run_pool_nan, NULL);
}

/* One axis with a table of its own; the transposed table is the backward pass. */
static void run_resample(enum draft_dtype type, const void *context)
{
    (void)context;
    enum { OUTER = 3, IN = 7, OUT = 4, INNER = 5, WIDTH = 3 };
    static const int32_t first[OUT] = {0, 1, 3, 5}, count[OUT] = {2, 3, 3, 2};
    float *weight = numbers(DRAFT_F32, OUT * WIDTH, 1, 0), *x = numbers(type, OUTER * IN * INNER, 1, 0);
    float *before = numbers(type, OUTER * OUT * INNER, 1, 0), *want = added(OUTER * OUT * INNER, before, before);
    for (int o = 0; o < OUTER; o++)
        for (int i = 0; i < OUT; i++)
            for (int c = 0; c < INNER; c++) {
                double sum = (double)before[(o * OUT + i) * INNER + c];
                for (int j = 0; j < count[i]; j++)
                    sum += (double)weight[i * WIDTH + j] * (double)x[(o * IN + first[i] + j) * INNER + c];
                want[(o * OUT + i) * INNER + c] = (float)sum;
            }
    const struct draft_cuda_taps taps = {OUT, WIDTH, first, count, weight};
    void *y = device(type, OUTER * OUT * INNER, before), *middle = device(DRAFT_F32, OUTER * OUT * INNER, before);
    draft_cuda_resample(NULL, type, type, &taps, OUTER, IN, INNER, device(type, OUTER * IN * INNER, x),
                        (struct draft_cuda_gradient){y, true});
    draft_cuda_resample(NULL, type, DRAFT_F32, &taps, OUTER, IN, INNER, device(type, OUTER * IN * INNER, x),
                        (struct draft_cuda_gradient){middle, true});
    check("resampled", type, OUTER * OUT * INNER, y, want, BOUND[type]);
    check("resampled to fp32", DRAFT_F32, OUTER * OUT * INNER, middle, want, BOUND[DRAFT_F32]);
}

static void test_cuda_image__resample(void **state)
{
    (void)state;
    in_every_way("resample", run_resample, NULL);
}

/* number[2]: quality. The sum of the sizes' own gradients is wanted too, so dy is as any. */
static struct draft_tensor *jpeg_size(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    return draft_jpeg_size(g, in[0], (int)((op_of)context)->number[2]);
}

static struct draft_cuda_pictures pictures_of(op_of op)
{
    return (struct draft_cuda_pictures){op->dim[0][0], op->dim[0][1], op->dim[0][2]};
}

static void jpeg_forward(enum draft_dtype type, op_of op, void *const *in, void *y)
{
    struct draft_cuda_pictures p = pictures_of(op);
    struct draft_jpeg_model model = draft_jpeg_model((int)op->number[2]);
    draft_cuda_jpeg_size(NULL, type, &p, &model, in[0], y, memory(draft_cuda_jpeg_size_scratch(&p)));
}

static void jpeg_backward(enum draft_dtype type, op_of op, void *const *in, const void *dy,
                          const struct draft_cuda_gradient *d)
{
    struct draft_cuda_pictures p = pictures_of(op);
    struct draft_jpeg_model model = draft_jpeg_model((int)op->number[2]);
    draft_cuda_jpeg_size_backward(NULL, type, &p, &model, in[0], dy, d[0], memory(draft_cuda_jpeg_size_scratch(&p)));
}

static void test_cuda_image__jpeg_size(void **state)
{
    (void)state;
    static const struct device_op ops[] = {
        {"jpeg",
         jpeg_size,
         jpeg_forward,
         jpeg_backward,
         1,
         {4},
         {{2, 32, 48, 3}},
         0.5,
         0.2,
         true,
         .number = {0, 0, 75}},
        {"odd jpeg",
         jpeg_size,
         jpeg_forward,
         jpeg_backward,
         1,
         {4},
         {{1, 21, 40, 3}},
         0.5,
         0.3,
         true,
         .number = {0, 0, 50}},
        {"dummy blocks",
         jpeg_size,
         jpeg_forward,
         jpeg_backward,
         1,
         {4},
         {{2, 7, 17, 3}},
         0.5,
         0.1,
         true,
         .number = {0, 0, 95}},
        {"one pixel",
         jpeg_size,
         jpeg_forward,
         jpeg_backward,
         1,
         {4},
         {{1, 1, 1, 3}},
         0.5,
         0.1,
         true,
         .number = {0, 0, 85}},
    };
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        in_every_way(ops[i].name, run_device_op, &ops[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_image__upsample_nearest),
        cmocka_unit_test(test_cuda_image__max_pool),
        cmocka_unit_test(test_cuda_image__a_nan_survives_pooling),
        cmocka_unit_test(test_cuda_image__resample),
        cmocka_unit_test(test_cuda_image__jpeg_size),
    };
    return cmocka_run_group_tests(tests, open_cpu, close_cpu);
}
