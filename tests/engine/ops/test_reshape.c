#include "op_case.h"

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    (void)context;
    return draft_reshape(g, in[0], 2, (int64_t[]){6, 10});
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    for (int64_t i = 0; i < draft_tensor_count(c->in[0]); i++)
        y[i] = x[0][i];
}

static void test_reshape__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 2, 3, 5, 2)}, .run = run, .twin = twin});
}

static void test_reshape__is_a_view(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 4, 3);
    assert_ptr_equal(draft_reshape(&t->g, x, 1, (int64_t[]){12})->data, x->data);
}

static struct draft_tensor *run_twice(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    (void)context;
    return draft_add(g, draft_reshape(g, in[0], 1, (int64_t[]){12}), draft_reshape(g, in[0], 1, (int64_t[]){12}));
}

static void twin_twice(const struct op_case *c, const double *const *x, double *y)
{
    for (int64_t i = 0; i < draft_tensor_count(c->in[0]); i++)
        y[i] = 2 * x[0][i];
}

static void test_reshape__adds_the_gradients_of_two_views(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 4, 3)}, .run = run_twice, .twin = twin_twice});
}

static void test_reshape__refuses_another_count(void **state)
{
    struct op_test *t = *state;
    assert_refused(t, draft_reshape(&t->g, GIVEN(t, 4, 3), 2, (int64_t[]){5, 2}), "reshape", "[5, 2], got [4, 3]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_reshape__equals_its_double_twin),
        op_test_case(test_reshape__is_a_view),
        op_test_case(test_reshape__adds_the_gradients_of_two_views),
        op_test_case(test_reshape__refuses_another_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
