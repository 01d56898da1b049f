#include "op_case.h"

static const float mean[] = {0.48f, 0.46f, 0.41f, 0.1f}, deviation[] = {0.27f, 0.26f, 0.28f, 2};

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    (void)context;
    return draft_normalize_channels(g, in[0], mean, deviation);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    int64_t n = draft_last(c->in[0]);
    for (int64_t i = 0; i < draft_tensor_count(c->in[0]); i++)
        y[i] = (x[0][i] - (double)mean[i % n]) / (double)deviation[i % n];
}

static void test_normalize_channels__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 2, 5, 7, 3)}, .run = run, .twin = twin});
    check_op(t, &(struct op_case){.in = {GIVEN(t, 1, 3, 2, 4)}, .run = run, .twin = twin});
    check_op(t, &(struct op_case){.in = {GIVEN(t, 1, 3, 2, 1)}, .run = run, .twin = twin});
}

static void test_normalize_channels__refuses_more_than_four_channels(void **state)
{
    struct op_test *t = *state;
    assert_refused(t, draft_normalize_channels(&t->g, GIVEN(t, 1, 2, 2, 5), mean, deviation), "normalize_channels",
                   "[1, 2, 2, 5]");
    assert_refused(t, draft_normalize_channels(&t->g, GIVEN(t, 4, 3), mean, deviation), "normalize_channels", "[4, 3]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_normalize_channels__equals_its_double_twin),
        op_test_case(test_normalize_channels__refuses_more_than_four_channels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
