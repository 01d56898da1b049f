#include "op_case.h"

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    (void)context;
    return draft_concat_batch(g, in[0], in[1] != NULL ? in[1] : in[0]);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    int second = x[1] != NULL;
    int64_t a = draft_tensor_count(c->in[0]), b = draft_tensor_count(c->in[second]);
    for (int64_t i = 0; i < a + b; i++)
        y[i] = i < a ? x[0][i] : x[second][i - a];
}

static void test_concat_batch__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 2, 3, 5), GIVEN(t, 4, 3, 5)}, .run = run, .twin = twin});
}

static void test_concat_batch__adds_both_gradients_of_a_tensor_given_twice(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 2, 3)}, .run = run, .twin = twin});
}

static void test_concat_batch__refuses_rows_of_two_shapes(void **state)
{
    struct op_test *t = *state;
    assert_refused(t, draft_concat_batch(&t->g, GIVEN(t, 2, 4), GIVEN(t, 2, 5)), "concat_batch", "[2, 4] and [2, 5]");
    assert_refused(t, draft_concat_batch(&t->g, GIVEN(t, 2, 4), GIVEN(t, 8)), "concat_batch", "and [8]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_concat_batch__equals_its_double_twin),
        op_test_case(test_concat_batch__adds_both_gradients_of_a_tensor_given_twice),
        op_test_case(test_concat_batch__refuses_rows_of_two_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
