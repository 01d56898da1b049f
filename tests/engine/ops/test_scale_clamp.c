#include "op_case.h"

static const float scale = 0.5f, shift = 0.25f, lo = 0, hi = 0.5f;

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    (void)context;
    return draft_scale_clamp(g, in[0], scale, shift, lo, hi);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    for (int64_t i = 0; i < draft_tensor_count(c->in[0]); i++)
        y[i] = fmin(fmax((double)scale * x[0][i] + (double)shift, (double)lo), (double)hi);
}

static void test_scale_clamp__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 2, 5, 7, 3);
    for (int64_t i = 0; i < draft_tensor_count(x); i++)
        if (fabsf(fabsf(draft_f32(x)[i]) - 0.5f) < 0.01f) /* no differences across a corner */
            draft_f32(x)[i] = 0.25f;
    check_op(t, &(struct op_case){.in = {x}, .run = run, .twin = twin});
}

static void test_scale_clamp__passes_the_gradient_at_the_bounds_and_not_outside(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 5);
    memcpy(x->data, (float[]){-0.5f, 0.5f, -0.500001f, 0.500001f, 0},
           5 * sizeof(float)); /* 0, 0.5, below, above, inside */
    struct draft_tensor *y = draft_scale_clamp(&t->g, x, scale, shift, lo, hi);
    assert_true(draft_graph_backward(&t->g, y, (float[]){1, 1, 1, 1, 1}));
    const float expected[] = {scale, scale, 0, 0, scale};
    assert_memory_equal(x->grad, expected, sizeof expected);
}

static void test_scale_clamp__shows_a_nan_instead_of_hiding_it(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 1);
    draft_f32(x)[0] = NAN;
    assert_true(isnan(draft_f32(draft_scale_clamp(&t->g, x, scale, shift, lo, hi))[0]));
}

static void test_scale_clamp__refuses_integers(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *ids = draft_new(&t->g, DRAFT_I32, 1, (int64_t[]){3});
    assert_refused(t, draft_scale_clamp(&t->g, ids, 1, 0, 0, 1), "scale_clamp", "I32 [3]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_scale_clamp__equals_its_double_twin),
        op_test_case(test_scale_clamp__passes_the_gradient_at_the_bounds_and_not_outside),
        op_test_case(test_scale_clamp__shows_a_nan_instead_of_hiding_it),
        op_test_case(test_scale_clamp__refuses_integers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
