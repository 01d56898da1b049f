#include "op_case.h"

enum { WEIGHTS = 1 << 1 }; /* bits of inputs that are F32 always */

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    (void)context;
    return draft_add_positions(g, in[0], in[1]);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    int64_t size = c->in[0]->dim[1] * c->in[0]->dim[2];
    for (int64_t i = 0; i < draft_tensor_count(c->in[0]); i++)
        y[i] = x[0][i] + x[1][i % size];
}

static void test_add_positions__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    check_op(
        t, &(struct op_case){.in = {GIVEN(t, 3, 5, 7), GIVEN(t, 5, 7)}, .run = run, .weights = WEIGHTS, .twin = twin});
}

static void test_add_positions__leaves_the_unread_rows_without_gradient(void **state)
{
    struct op_test *t = *state;
    check_op(
        t, &(struct op_case){.in = {GIVEN(t, 2, 3, 5), GIVEN(t, 8, 5)}, .run = run, .weights = WEIGHTS, .twin = twin});
}

static void test_add_positions__refuses_a_table_that_is_too_short(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 2, 6, 5);
    assert_refused(t, draft_add_positions(&t->g, x, GIVEN(t, 5, 5)), "add_positions", "[2, 6, 5] and [5, 5]");
    assert_refused(t, draft_add_positions(&t->g, x, GIVEN(t, 6, 4)), "add_positions", "and [6, 4]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_add_positions__equals_its_double_twin),
        op_test_case(test_add_positions__leaves_the_unread_rows_without_gradient),
        op_test_case(test_add_positions__refuses_a_table_that_is_too_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
