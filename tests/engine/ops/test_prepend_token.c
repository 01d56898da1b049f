#include "op_case.h"

enum { WEIGHTS = 1 << 0 }; /* bits of inputs that are F32 always */

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    (void)context;
    return draft_prepend_token(g, in[0], in[1]);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    int64_t s = c->in[1]->dim[1], n = c->in[1]->dim[2];
    for (int64_t i = 0; i < c->in[1]->dim[0] * (s + 1) * n; i++) {
        int64_t row = i / n % (s + 1), b = i / n / (s + 1);
        y[i] = row == 0 ? x[0][i % n] : x[1][(b * s + row - 1) * n + i % n];
    }
}

static void test_prepend_token__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    check_op(t,
             &(struct op_case){.in = {GIVEN(t, 5), GIVEN(t, 3, 4, 5)}, .run = run, .weights = WEIGHTS, .twin = twin});
    check_op(t,
             &(struct op_case){.in = {GIVEN(t, 1), GIVEN(t, 1, 1, 1)}, .run = run, .weights = WEIGHTS, .twin = twin});
}

static void test_prepend_token__refuses_another_width(void **state)
{
    struct op_test *t = *state;
    assert_refused(t, draft_prepend_token(&t->g, GIVEN(t, 4), GIVEN(t, 2, 3, 5)), "prepend_token", "[4] and [2, 3, 5]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_prepend_token__equals_its_double_twin),
        op_test_case(test_prepend_token__refuses_another_width),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
