#include "op_case.h"

enum { X, W, B, RESIDUAL };
enum { WEIGHTS = 1 << W | 1 << B }; /* bits of inputs that are F32 always */

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    return draft_conv2d_onto(g, in[RESIDUAL], in[X], in[W], in[B], context);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    const struct draft_conv2d_args *a = c->context;
    const int64_t *xd = c->in[X]->dim, *wd = c->in[W]->dim;
    int64_t h = xd[1], w = xd[2], ch = xd[3], o = wd[0], kh = wd[1], kw = wd[2];
    int64_t oh = (h + a->pad_top + a->pad_bottom - kh) / a->stride + 1;
    int64_t ow = (w + a->pad_left + a->pad_right - kw) / a->stride + 1;
    for (int64_t r = 0; r < xd[0] * oh * ow * o; r++) {
        int64_t q = r % o, j = r / o % ow, i = r / o / ow % oh, n = r / o / ow / oh;
        double sum = (x[B] != NULL ? x[B][q] : 0) + (x[RESIDUAL] != NULL ? x[RESIDUAL][r] : 0);
        for (int64_t p = 0; p < kh; p++)
            for (int64_t s = 0; s < kw; s++) {
                int64_t row = i * a->stride + p - a->pad_top, column = j * a->stride + s - a->pad_left;
                if (row < 0 || row >= h || column < 0 || column >= w)
                    continue;
                for (int64_t k = 0; k < ch; k++)
                    sum += x[X][((n * h + row) * w + column) * ch + k] * x[W][((q * kh + p) * kw + s) * ch + k];
            }
        y[r] = sum;
    }
}

static const struct draft_conv2d_args same = {1, 1, 1, 1, 1};

static void test_conv2d__equals_its_double_twin_on_odd_sizes(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 2, 5, 7, 3), GIVEN(t, 5, 3, 3, 3), GIVEN(t, 5)},
                                  .run = run,
                                  .weights = WEIGHTS,
                                  .twin = twin,
                                  .context = &same});
}

/* 4 x 4 tiles: where a fast 3 x 3 algorithm takes over. Its transforms cost some digits. */
static void test_conv2d__equals_its_double_twin_where_tiles_fit(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 1, 8, 4, 17), GIVEN(t, 16, 3, 3, 17), GIVEN(t, 16)},
                                  .run = run,
                                  .weights = WEIGHTS,
                                  .twin = twin,
                                  .context = &same,
                                  .forward = 5e-6,
                                  .gradient = 2e-5});
}

static void test_conv2d__halves_with_the_padding_of_the_vae_encoder(void **state)
{
    struct op_test *t = *state;
    static const struct draft_conv2d_args down = {2, 0, 0, 1, 1};
    check_op(t, &(struct op_case){.in = {GIVEN(t, 1, 6, 8, 4), GIVEN(t, 3, 3, 3, 4), NULL},
                                  .run = run,
                                  .weights = WEIGHTS,
                                  .twin = twin,
                                  .context = &down});
}

static void test_conv2d__halves_with_the_padding_of_the_unet(void **state)
{
    struct op_test *t = *state;
    static const struct draft_conv2d_args down = {2, 1, 1, 1, 1};
    check_op(t, &(struct op_case){.in = {GIVEN(t, 2, 7, 5, 4), GIVEN(t, 6, 3, 3, 4), GIVEN(t, 6)},
                                  .run = run,
                                  .weights = WEIGHTS,
                                  .twin = twin,
                                  .context = &down});
}

static void test_conv2d__cuts_patches_without_overlap(void **state)
{
    struct op_test *t = *state;
    static const struct draft_conv2d_args patches = {.stride = 4};
    check_op(t, &(struct op_case){.in = {GIVEN(t, 1, 8, 12, 3), GIVEN(t, 7, 4, 4, 3), NULL},
                                  .run = run,
                                  .weights = WEIGHTS,
                                  .twin = twin,
                                  .context = &patches});
}

static void test_conv2d__does_a_large_kernel_with_uneven_padding(void **state)
{
    struct op_test *t = *state;
    static const struct draft_conv2d_args args = {3, 2, 1, 0, 4};
    check_op(t, &(struct op_case){.in = {GIVEN(t, 1, 9, 6, 2), GIVEN(t, 3, 5, 4, 2), GIVEN(t, 3)},
                                  .run = run,
                                  .weights = WEIGHTS,
                                  .twin = twin,
                                  .context = &args});
}

static void test_conv2d__takes_an_activation_for_a_bias(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 2, 4, 5, 8), GIVEN(t, 8, 3, 3, 8), GIVEN(t, 8)},
                                  .run = run,
                                  .weights = WEIGHTS & ~(1u << B),
                                  .twin = twin,
                                  .context = &same});
}

static void test_conv2d__adds_a_residual(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 2, 4, 5, 8), GIVEN(t, 8, 3, 3, 8), GIVEN(t, 8), GIVEN(t, 2, 4, 5, 8)},
                                  .run = run,
                                  .weights = WEIGHTS,
                                  .twin = twin,
                                  .context = &same});
}

static void test_conv2d__adds_its_own_input(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 1, 3, 3, 2), *w = GIVEN(t, 2, 3, 3, 2);
    float seed[18];
    for (int i = 0; i < 18; i++)
        seed[i] = op_random(t);
    struct draft_mark mark = draft_graph_mark(&t->g);
    struct draft_tensor *y = draft_add(&t->g, x, draft_conv2d(&t->g, x, w, NULL, &same));
    assert_true(draft_graph_backward(&t->g, y, seed));
    float values[18], dx[18];
    memcpy(values, y->data, sizeof values);
    memcpy(dx, x->grad, sizeof dx);
    draft_graph_reset(&t->g, &mark);
    y = draft_conv2d_onto(&t->g, x, x, w, NULL, &same);
    assert_true(draft_graph_backward(&t->g, y, seed));
    assert_memory_equal(y->data, values, sizeof values);
    for (int i = 0; i < 18; i++)
        assert_float_equal(((const float *)x->grad)[i], dx[i], 1e-6);
}

static void test_conv2d__refuses_shapes_that_do_not_fit(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = GIVEN(t, 1, 4, 4, 3), *w = GIVEN(t, 2, 3, 3, 4);
    w->name = "conv_in.weight";
    assert_refused(t, draft_conv2d(g, x, w, NULL, &same), "conv2d", "[1, 4, 4, 3], [2, 3, 3, 4] (conv_in.weight)");
    assert_refused(t, draft_conv2d(g, x, GIVEN(t, 2, 3, 3, 3), GIVEN(t, 3), &same), "conv2d", "and [3]");
    assert_refused(t, draft_conv2d(g, x, GIVEN(t, 2, 3), NULL, &same), "conv2d", "[2, 3]");
    assert_refused(t, draft_conv2d(g, x, GIVEN(t, 2, 7, 7, 3), NULL, &same), "conv2d", "[2, 7, 7, 3]");
    assert_refused(t, draft_conv2d_onto(g, x, x, GIVEN(t, 2, 3, 3, 3), NULL, &same), "conv2d", "[1, 4, 4, 3]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_conv2d__equals_its_double_twin_on_odd_sizes),
        op_test_case(test_conv2d__equals_its_double_twin_where_tiles_fit),
        op_test_case(test_conv2d__halves_with_the_padding_of_the_vae_encoder),
        op_test_case(test_conv2d__halves_with_the_padding_of_the_unet),
        op_test_case(test_conv2d__cuts_patches_without_overlap),
        op_test_case(test_conv2d__does_a_large_kernel_with_uneven_padding),
        op_test_case(test_conv2d__takes_an_activation_for_a_bias),
        op_test_case(test_conv2d__adds_a_residual),
        op_test_case(test_conv2d__adds_its_own_input),
        op_test_case(test_conv2d__refuses_shapes_that_do_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
