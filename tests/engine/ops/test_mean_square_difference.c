#include "op_case.h"

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    (void)context;
    return draft_mean_square_difference(g, in[0], in[1]);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    y[0] = 0;
    for (int64_t i = 0; i < draft_tensor_count(c->in[0]); i++)
        y[0] += pow(x[0][i] - x[1][i], 2) / (double)draft_tensor_count(c->in[0]);
}

static void test_mean_square_difference__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 3, 5, 7), GIVEN(t, 3, 5, 7)}, .run = run, .twin = twin});
}

static void test_mean_square_difference__of_a_tensor_with_itself_is_exactly_zero(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 33), *y = draft_mean_square_difference(&t->g, x, x);
    assert_true(draft_f32(y)[0] == 0);
    assert_true(draft_graph_backward(&t->g, y, NULL));
    for (int i = 0; i < 33; i++)
        assert_true(draft_grad_f32(x)[i] == 0);
}

static void test_mean_square_difference__refuses_two_shapes(void **state)
{
    struct op_test *t = *state;
    assert_refused(t, draft_mean_square_difference(&t->g, GIVEN(t, 2, 3), GIVEN(t, 6)), "mean_square_difference",
                   "[2, 3] and [6]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_mean_square_difference__equals_its_double_twin),
        op_test_case(test_mean_square_difference__of_a_tensor_with_itself_is_exactly_zero),
        op_test_case(test_mean_square_difference__refuses_two_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
