#include "op_case.h"

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    (void)context;
    return draft_mean(g, in[0]);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    y[0] = 0;
    for (int64_t i = 0; i < draft_tensor_count(c->in[0]); i++)
        y[0] += x[0][i] / (double)draft_tensor_count(c->in[0]);
}

static void test_mean__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 3, 5, 7)}, .run = run, .twin = twin});
    check_op(t, &(struct op_case){.in = {GIVEN(t, 1)}, .run = run, .twin = twin});
}

/* in float the sum would stop growing at 2^24 */
static void test_mean__adds_up_in_double(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = draft_new(&t->g, DRAFT_F32, 1, (int64_t[]){20000000});
    for (int64_t i = 0; i < 20000000; i++)
        draft_f32(x)[i] = 1;
    assert_true(draft_f32(draft_mean(&t->g, x))[0] == 1);
}

static void test_mean__refuses_nothing(void **state)
{
    struct op_test *t = *state;
    assert_refused(t, draft_mean(&t->g, GIVEN(t, 0, 4)), "mean", "[0, 4]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_mean__equals_its_double_twin),
        op_test_case(test_mean__adds_up_in_double),
        op_test_case(test_mean__refuses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
