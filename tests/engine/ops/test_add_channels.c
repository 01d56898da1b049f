#include "op_case.h"

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    (void)context;
    return draft_add_channels(g, in[0], in[1]);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    int64_t p = draft_positions(c->in[0]), n = draft_last(c->in[0]);
    for (int64_t i = 0; i < draft_tensor_count(c->in[0]); i++)
        y[i] = x[0][i] + x[1][i / n / p * n + i % n];
}

static void test_add_channels__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 2, 3, 5, 7), GIVEN(t, 2, 7)}, .run = run, .twin = twin});
    check_op(t, &(struct op_case){.in = {GIVEN(t, 3, 9, 4), GIVEN(t, 3, 4)}, .run = run, .twin = twin});
}

static void test_add_channels__refuses_another_batch_or_width(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 2, 3, 5, 7);
    assert_refused(t, draft_add_channels(&t->g, x, GIVEN(t, 1, 7)), "add_channels", "[2, 3, 5, 7] and [1, 7]");
    assert_refused(t, draft_add_channels(&t->g, x, GIVEN(t, 2, 5)), "add_channels", "and [2, 5]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_add_channels__equals_its_double_twin),
        op_test_case(test_add_channels__refuses_another_batch_or_width),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
