#include "engine/backend/cuda/device_op.h"

typedef const struct device_op *op_of;

static int64_t rows_of(op_of op)
{
    int64_t n = 1;
    for (int i = 0; i + 1 < op->rank[0]; i++)
        n *= op->dim[0][i];
    return n;
}

static int64_t last_of(op_of op, int input)
{
    return op->dim[input][op->rank[input] - 1];
}

/* --- Windows: number is top, left, height, width ------------------------------------------------------------------ */

static struct draft_tensor *crop(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    const int64_t *a = ((op_of)context)->number;
    return draft_crop(g, in[0], a[0], a[1], a[2], a[3]);
}

static struct draft_cuda_window crop_window(op_of op)
{
    const int64_t *a = op->number, *x = op->dim[0], c = x[3];
    return (struct draft_cuda_window){x[0], a[2], a[3] * c, x[1], x[2] * c, a[0], a[1] * c};
}

static void crop_forward(enum draft_dtype type, op_of op, void *const *in, void *y)
{
    struct draft_cuda_window w = crop_window(op);
    draft_cuda_cut(NULL, type, &w, in[0], (struct draft_cuda_gradient){y, false});
}

static void crop_backward(enum draft_dtype type, op_of op, void *const *in, const void *dy,
                          const struct draft_cuda_gradient *d)
{
    (void)in;
    struct draft_cuda_window w = crop_window(op);
    draft_cuda_paste(NULL, type, &w, dy, d[0], true);
}

static struct draft_tensor *pad(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    const int64_t *a = ((op_of)context)->number;
    return draft_pad(g, in[0], a[0], a[1], a[2], a[3]);
}

static struct draft_cuda_window pad_window(op_of op)
{
    const int64_t *a = op->number, *x = op->dim[0], c = x[3];
    return (struct draft_cuda_window){x[0], x[1], x[2] * c, a[2], a[3] * c, a[0], a[1] * c};
}

static void pad_forward(enum draft_dtype type, op_of op, void *const *in, void *y)
{
    struct draft_cuda_window w = pad_window(op);
    draft_cuda_paste(NULL, type, &w, in[0], (struct draft_cuda_gradient){y, false}, true);
}

static void pad_backward(enum draft_dtype type, op_of op, void *const *in, const void *dy,
                         const struct draft_cuda_gradient *d)
{
    (void)in;
    struct draft_cuda_window w = pad_window(op);
    draft_cuda_cut(NULL, type, &w, dy, d[0]);
}

static struct draft_tensor *concat_channels(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    (void)context;
    return draft_concat_channels(g, in[0], in[1]);
}

static struct draft_cuda_window part(op_of op, int i)
{
    int64_t rows = rows_of(op), a = last_of(op, 0), b = last_of(op, 1);
    return (struct draft_cuda_window){1, rows, i == 0 ? a : b, rows, a + b, 0, i == 0 ? 0 : a};
}

static void concat_forward(enum draft_dtype type, op_of op, void *const *in, void *y)
{
    draft_cuda_join(NULL, type, rows_of(op), last_of(op, 0), last_of(op, 1), in[0], in[1], y);
}

static void concat_backward(enum draft_dtype type, op_of op, void *const *in, const void *dy,
                            const struct draft_cuda_gradient *d)
{
    (void)in;
    for (int i = 0; i < 2; i++) {
        struct draft_cuda_window w = part(op, i);
        draft_cuda_cut(NULL, type, &w, dy, d[i]);
    }
}

static struct draft_tensor *slice_batch(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    const int64_t *a = ((op_of)context)->number;
    return draft_slice_batch(g, in[0], a[0], a[1]);
}

static struct draft_cuda_window rows_window(op_of op)
{
    const int64_t *a = op->number, *x = op->dim[0];
    return (struct draft_cuda_window){1, a[1] * x[1], x[2], x[0] * x[1], x[2], a[0] * x[1], 0};
}

static void slice_forward(enum draft_dtype type, op_of op, void *const *in, void *y)
{
    struct draft_cuda_window w = rows_window(op);
    draft_cuda_cut(NULL, type, &w, in[0], (struct draft_cuda_gradient){y, false});
}

static void slice_backward(enum draft_dtype type, op_of op, void *const *in, const void *dy,
                           const struct draft_cuda_gradient *d)
{
    (void)in;
    struct draft_cuda_window w = rows_window(op);
    draft_cuda_paste(NULL, type, &w, dy, d[0], true);
}

static void test_cuda_movement__windows(void **state)
{
    (void)state;
    static const struct device_op ops[] = {
        {"crop", crop, crop_forward, crop_backward, 1, {4}, {{2, 9, 12, 3}}, .number = {2, 4, 5, 8}},
        {"wide crop", crop, crop_forward, crop_backward, 1, {4}, {{1, 5, 6, 8}}, .number = {0, 1, 5, 4}},
        {"pad", pad, pad_forward, pad_backward, 1, {4}, {{2, 3, 5, 3}}, .number = {1, 2, 7, 9}},
        {"wide pad", pad, pad_forward, pad_backward, 1, {4}, {{1, 3, 4, 8}}, .number = {0, 0, 4, 5}},
        {"concat", concat_channels, concat_forward, concat_backward, 2, {3, 3}, .dim = {{2, 9, 16}, {2, 9, 40}}},
        {"one row", concat_channels, concat_forward, concat_backward, 2, {2, 2}, .dim = {{1, 40}, {1, 8}}},
        {"odd concat", concat_channels, concat_forward, concat_backward, 2, {2, 2}, .dim = {{7, 5}, {7, 8}}},
        {"slice", slice_batch, slice_forward, slice_backward, 1, {3}, {{4, 3, 8}}, .number = {1, 2}},
    };
    run_device_ops(ops, sizeof ops / sizeof *ops);
}

/* --- Tokens and tables
 * ------------------------------------------------------------------------------------------------ */

static struct draft_tensor *prepend(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    (void)context;
    return draft_prepend_token(g, in[0], in[1]);
}

static void prepend_forward(enum draft_dtype type, op_of op, void *const *in, void *y)
{
    draft_cuda_prepend_token(NULL, type, op->dim[1][0], op->dim[1][1], op->dim[1][2], in[0], in[1], y);
}

static void prepend_backward(enum draft_dtype type, op_of op, void *const *in, const void *dy,
                             const struct draft_cuda_gradient *d)
{
    (void)in;
    int64_t n = op->dim[1][0], s = op->dim[1][1], c = op->dim[1][2];
    struct draft_cuda_rows tokens = {1, n, c, (s + 1) * c, 0};
    struct draft_cuda_window rest = {n, s, c, s + 1, c, 1, 0};
    draft_cuda_sum_rows(NULL, type, type, &tokens, dy, d[0], memory(draft_cuda_sum_rows_scratch(&tokens)));
    draft_cuda_cut(NULL, type, &rest, dy, d[1]);
}

static const int32_t INDEX[] = {4, 0, 2};

static struct draft_tensor *select_token(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    (void)context;
    return draft_select_token(g, in[0], INDEX);
}

static void select_forward(enum draft_dtype type, op_of op, void *const *in, void *y)
{
    draft_cuda_select_token(NULL, type, op->dim[0][0], op->dim[0][1], op->dim[0][2], INDEX, in[0], y);
}

static void select_backward(enum draft_dtype type, op_of op, void *const *in, const void *dy,
                            const struct draft_cuda_gradient *d)
{
    (void)in;
    draft_cuda_select_token_backward(NULL, type, op->dim[0][0], op->dim[0][1], op->dim[0][2], INDEX, dy, d[0]);
}

enum { IDS = 6 };
static int32_t ids[IDS] = {3, 0, 3, 10, 3, 9};

static struct draft_tensor *embedding(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    (void)context;
    struct draft_tensor *t = draft_new(g, DRAFT_I32, 2, (int64_t[]){2, IDS / 2});
    if (t)
        memcpy(t->data, ids, sizeof ids);
    return t ? draft_embedding(g, in[0], t) : NULL;
}

static void embedding_forward(enum draft_dtype type, op_of op, void *const *in, void *y)
{
    draft_cuda_embedding(NULL, type, IDS, op->dim[0][1], ids, in[0], y);
}

static void embedding_backward(enum draft_dtype type, op_of op, void *const *in, const void *dy,
                               const struct draft_cuda_gradient *d)
{
    (void)in;
    draft_cuda_embedding_backward(NULL, type, IDS, op->dim[0][0], op->dim[0][1], ids, dy, d[0]);
}

static void test_cuda_movement__tokens_and_tables(void **state)
{
    (void)state;
    static const struct device_op ops[] = {
        {"prepend", prepend, prepend_forward, prepend_backward, 2, {1, 3}, .dim = {{16}, {2, 5, 16}}},
        {"odd prepend", prepend, prepend_forward, prepend_backward, 2, {1, 3}, .dim = {{5}, {3, 4, 5}}},
        {"select", select_token, select_forward, select_backward, 1, {3}, .dim = {{3, 5, 8}}},
        {"odd select", select_token, select_forward, select_backward, 1, {3}, .dim = {{3, 5, 7}}},
        {"embedding", embedding, embedding_forward, embedding_backward, 1, {2}, .dim = {{11, 24}}},
    };
    run_device_ops(ops, sizeof ops / sizeof *ops);
}

/* --- Patches: a convolution as a product, done here in double
 * ------------------------------------------------------------ */

static void run_patches(enum draft_dtype type, const void *context)
{
    const struct draft_conv_shape *s = context;
    const int64_t oh = draft_conv_out_h(s), ow = draft_conv_out_w(s), k = s->kh * s->kw * s->c,
                  stride = (k + 7) / 8 * 8;
    const int64_t rows = s->n * oh * ow, size = s->n * s->h * s->w * s->c;
    float *x = numbers(type, size, 1, 0), *d = numbers(type, rows * stride, 1, 0), *before = numbers(type, size, 2, 0);
    float *want = memory((size_t)(rows * stride) * 4), *dx = added(size, before, before);
    for (int64_t i = 0; i < size; i++)
        dx[i] = before[i];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < stride; i++) {
            int64_t y = r / ow % oh * s->stride + i / s->c / s->kw - s->pad_top;
            int64_t z = r % ow * s->stride + i / s->c % s->kw - s->pad_left;
            int64_t from = ((r / ow / oh * s->h + y) * s->w + z) * s->c + i % s->c;
            bool there = i < k && y >= 0 && y < s->h && z >= 0 && z < s->w;
            want[r * stride + i] = there ? x[from] : 0;
            if (there)
                dx[from] += d[r * stride + i];
        }
    void *patches = device(type, rows * stride, NULL), *d_x = device(type, size, before);
    draft_cuda_patches(NULL, type, s, device(type, size, x), stride, patches);
    check("patches", type, rows * stride, patches, want, 0);
    draft_cuda_patches_backward(NULL, type, s, device(type, rows * stride, d), stride,
                                (struct draft_cuda_gradient){d_x, true});
    check("dx", type, size, d_x, dx, BOUND[type]);
}

static void test_cuda_movement__patches(void **state)
{
    (void)state;
    static const struct draft_conv_shape shapes[] = {
        {.n = 2, .h = 28, .w = 42, .c = 3, .kh = 14, .kw = 14, .stride = 14},
        {.n = 1,
         .h = 7,
         .w = 6,
         .c = 8,
         .kh = 3,
         .kw = 3,
         .stride = 1,
         .pad_top = 1,
         .pad_left = 1,
         .pad_bottom = 1,
         .pad_right = 1},
        {.n = 1, .h = 8, .w = 9, .c = 4, .kh = 3, .kw = 3, .stride = 2, .pad_bottom = 1, .pad_right = 1},
        {.n = 1, .h = 13, .w = 11, .c = 3, .kh = 5, .kw = 4, .stride = 3, .pad_top = 2, .pad_left = 1},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        in_every_way("patches", run_patches, &shapes[i]);
}

/* --- Types and layouts
 * ------------------------------------------------------------------------------------------------- */

static void run_types(enum draft_dtype type, const void *context)
{
    const int64_t n = *(const int64_t *)context;
    float *x = numbers(type, n, 1, 0), *seven = memory((size_t)n * 4);
    void *wide = device(DRAFT_F32, n, NULL), *back = device(type, n, NULL), *filled = device(type, n, NULL);
    for (int64_t i = 0; i < n; i++)
        seven[i] = 7;
    float *twice = memory((size_t)n * 4);
    for (int64_t i = 0; i < n; i++)
        twice[i] = 2 * x[i];
    void *sum = device(type, n, x);
    draft_cuda_convert(NULL, type, DRAFT_F32, n, device(type, n, x), (struct draft_cuda_gradient){wide, false});
    draft_cuda_convert(NULL, DRAFT_F32, type, n, wide, (struct draft_cuda_gradient){back, false});
    draft_cuda_convert(NULL, DRAFT_F32, type, n, wide, (struct draft_cuda_gradient){sum, true});
    check("added", type, n, sum, twice, 0);
    draft_cuda_fill(NULL, type, n, 7, filled);
    check("wide", DRAFT_F32, n, wide, x, 0);
    check("back", type, n, back, x, 0);
    check("filled", type, n, filled, seven, 0);
}

/* Two matrices, whose copies stand behind another's rows and touch, both longer than a block's share at a time. */
static void run_matrices(enum draft_dtype type, const void *context)
{
    enum { ROWS = 70, WIDE = 520 };
    const int64_t c = *(const int64_t *)context, stride = c + 12;
    if (type != DRAFT_BF16)
        return; /* it converts to that alone */
    float *narrow = numbers(type, ROWS * c, 1, 0), *wide = numbers(type, ROWS * WIDE, 1, 0);
    void *behind = device(type, ROWS * stride, NULL), *touching = device(type, ROWS * WIDE, NULL);
    struct draft_cuda_conversion *all = memory(2 * sizeof *all);
    all[0] = (struct draft_cuda_conversion){narrow, (char *)behind + 12 * size_of(type), ROWS, c, stride};
    all[1] = (struct draft_cuda_conversion){wide, touching, 1, ROWS * WIDE, ROWS * WIDE};
    draft_cuda_convert_matrices(NULL, all, 2, c % 4 == 0);
    check("touching", type, ROWS * WIDE, touching, wide, 0);
    for (int row = 0; row < ROWS; row++)
        check("behind", type, c, (char *)behind + (size_t)(row * stride + 12) * size_of(type), narrow + row * c, 0);
    void *alone = device(type, ROWS * stride, NULL);
    all[0].to = alone;
    draft_cuda_convert_rows(NULL, &all[0]);
    for (int row = 0; row < ROWS; row++)
        check("alone", type, c, (char *)alone + (size_t)(row * stride) * size_of(type), narrow + row * c, 0);
}

static void test_cuda_movement__types(void **state)
{
    (void)state;
    in_every_way("types", run_types, &(int64_t){1000});
    in_every_way("odd types", run_types, &(int64_t){77});
    in_every_way("matrices", run_matrices, &(int64_t){8});
    in_every_way("odd matrices", run_matrices, &(int64_t){7});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_movement__windows),
        cmocka_unit_test(test_cuda_movement__tokens_and_tables),
        cmocka_unit_test(test_cuda_movement__patches),
        cmocka_unit_test(test_cuda_movement__types),
    };
    return cmocka_run_group_tests(tests, open_cpu, close_cpu);
}
