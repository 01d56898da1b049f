#include "op_case.h"

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    (void)context;
    return draft_add(g, in[0], in[1] != NULL ? in[1] : in[0]);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    for (int64_t i = 0; i < draft_tensor_count(c->in[0]); i++)
        y[i] = x[0][i] + x[x[1] != NULL][i];
}

static void test_add__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 3, 5, 7), GIVEN(t, 3, 5, 7)}, .run = run, .twin = twin});
}

static void test_add__doubles_a_tensor_added_to_itself(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 11)}, .run = run, .twin = twin});
}

static void test_add__refuses_two_shapes(void **state)
{
    struct op_test *t = *state;
    assert_refused(t, draft_add(&t->g, GIVEN(t, 2, 3), GIVEN(t, 3, 2)), "add", "[2, 3] and [3, 2]");
    assert_refused(t, draft_add(&t->g, GIVEN(t, 6), GIVEN(t, 3, 2)), "add", "[6] and [3, 2]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_add__equals_its_double_twin),
        op_test_case(test_add__doubles_a_tensor_added_to_itself),
        op_test_case(test_add__refuses_two_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
