#include "op_case.h"

static const float alpha = -1.25f, beta = 0.5f;

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    const bool *twice = context;
    return draft_axpby(g, alpha, in[0], beta, twice != NULL ? in[0] : in[1]);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    const double *b = c->context != NULL ? x[0] : x[1];
    for (int64_t i = 0; i < draft_tensor_count(c->in[0]); i++)
        y[i] = (double)alpha * x[0][i] + (b != NULL ? (double)beta * b[i] : 0);
}

static void test_axpby__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 3, 5, 7), GIVEN(t, 3, 5, 7)}, .run = run, .twin = twin});
}

static void test_axpby__scales_without_a_second_tensor(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 2, 9)}, .run = run, .twin = twin});
}

static void test_axpby__adds_both_gradients_of_a_tensor_given_twice(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 17)}, .run = run, .twin = twin, .context = &(bool){true}});
}

static void test_axpby__refuses_two_shapes(void **state)
{
    struct op_test *t = *state;
    assert_refused(t, draft_axpby(&t->g, 1, GIVEN(t, 2, 3), 1, GIVEN(t, 3)), "axpby", "[2, 3] and [3]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_axpby__equals_its_double_twin),
        op_test_case(test_axpby__scales_without_a_second_tensor),
        op_test_case(test_axpby__adds_both_gradients_of_a_tensor_given_twice),
        op_test_case(test_axpby__refuses_two_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
