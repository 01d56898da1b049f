#include "op_case.h"

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    (void)context;
    return draft_concat_channels(g, in[0], in[1] != NULL ? in[1] : in[0]);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    int second = x[1] != NULL;
    int64_t a = draft_last(c->in[0]), b = draft_last(c->in[second]);
    for (int64_t i = 0; i < draft_rows(c->in[0]) * (a + b); i++) {
        int64_t row = i / (a + b), k = i % (a + b);
        y[i] = k < a ? x[0][row * a + k] : x[second][row * b + k - a];
    }
}

static void test_concat_channels__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 2, 3, 5, 7), GIVEN(t, 2, 3, 5, 4)}, .run = run, .twin = twin});
    check_op(t, &(struct op_case){.in = {GIVEN(t, 3), GIVEN(t, 1)}, .run = run, .twin = twin});
}

static void test_concat_channels__adds_both_gradients_of_a_tensor_given_twice(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 4, 3)}, .run = run, .twin = twin});
}

static void test_concat_channels__refuses_pictures_of_two_sizes(void **state)
{
    struct op_test *t = *state;
    assert_refused(t, draft_concat_channels(&t->g, GIVEN(t, 1, 4, 4, 3), GIVEN(t, 1, 4, 5, 3)), "concat_channels",
                   "[1, 4, 4, 3] and [1, 4, 5, 3]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_concat_channels__equals_its_double_twin),
        op_test_case(test_concat_channels__adds_both_gradients_of_a_tensor_given_twice),
        op_test_case(test_concat_channels__refuses_pictures_of_two_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
