#include "op_case.h"

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    return draft_select_token(g, in[0], context);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    const int32_t *index = c->context;
    int64_t s = c->in[0]->dim[1], n = c->in[0]->dim[2];
    for (int64_t i = 0; i < c->in[0]->dim[0] * n; i++)
        y[i] = x[0][(i / n * s + (index ? index[i / n] : 0)) * n + i % n];
}

static void test_select_token__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    static const int32_t index[] = {2, 0, 3};
    check_op(t, &(struct op_case){.in = {GIVEN(t, 3, 4, 5)}, .run = run, .twin = twin, .context = index});
    check_op(t, &(struct op_case){.in = {GIVEN(t, 3, 4, 5)}, .run = run, .twin = twin}); /* the first of each */
}

static void test_select_token__keeps_its_own_copy_of_the_index(void **state)
{
    struct op_test *t = *state;
    int32_t index[] = {1, 1};
    struct draft_tensor *x = GIVEN(t, 2, 3, 1), *y = draft_select_token(&t->g, x, index);
    index[0] = index[1] = 1000000;
    assert_true(draft_graph_backward(&t->g, y, (float[]){1, 2}));
    const float expected[] = {0, 1, 0, 0, 2, 0};
    assert_memory_equal(x->grad, expected, sizeof expected);
}

static void test_select_token__refuses_a_position_that_is_not_there(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 2, 3, 4);
    assert_refused(t, draft_select_token(&t->g, x, (int32_t[]){0, 3}), "select_token", "position 3, got [2, 3, 4]");
    assert_refused(t, draft_select_token(&t->g, x, (int32_t[]){-1, 0}), "select_token", "position -1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_select_token__equals_its_double_twin),
        op_test_case(test_select_token__keeps_its_own_copy_of_the_index),
        op_test_case(test_select_token__refuses_a_position_that_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
