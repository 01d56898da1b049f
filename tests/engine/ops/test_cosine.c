#include "op_case.h"

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    (void)context;
    return draft_cosine(g, in[0], in[1]);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    int64_t n = c->in[0]->dim[1];
    for (int64_t i = 0; i < c->in[0]->dim[0]; i++) {
        double aa = 0, bb = 0, ab = 0;
        for (int64_t j = i * n; j < (i + 1) * n; j++) {
            aa += x[0][j] * x[0][j];
            bb += x[1][j] * x[1][j];
            ab += x[0][j] * x[1][j];
        }
        y[i] = ab / sqrt(aa * bb);
    }
}

static void test_cosine__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 3, 17), GIVEN(t, 3, 17)}, .run = run, .twin = twin, .forward = 2e-7});
}

/* nearly parallel rows, where the gradient is a small difference of large terms */
static void test_cosine__keeps_its_gradient_where_rows_nearly_agree(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *a = GIVEN(t, 2, 9), *b = GIVEN(t, 2, 9);
    for (int64_t i = 0; i < 18; i++)
        draft_f32(b)[i] = 3 * draft_f32(a)[i] + 1e-3f * draft_f32(b)[i];
    check_op(t, &(struct op_case){.in = {a, b}, .run = run, .twin = twin});
}

static void test_cosine__gives_nan_for_a_row_of_zeros(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *a = GIVEN(t, 1, 3), *b = GIVEN(t, 1, 3);
    memset(a->data, 0, 3 * sizeof(float));
    assert_true(isnan(draft_f32(draft_cosine(&t->g, a, b))[0]));
}

static void test_cosine__refuses_two_shapes(void **state)
{
    struct op_test *t = *state;
    assert_refused(t, draft_cosine(&t->g, GIVEN(t, 2, 3), GIVEN(t, 2, 4)), "cosine", "[2, 3] and [2, 4]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_cosine__equals_its_double_twin),
        op_test_case(test_cosine__keeps_its_gradient_where_rows_nearly_agree),
        op_test_case(test_cosine__gives_nan_for_a_row_of_zeros),
        op_test_case(test_cosine__refuses_two_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
