#include "op_case.h"

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    (void)context;
    return draft_geglu(g, in[0]);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    int64_t rows = draft_rows(c->in[0]), n = draft_last(c->in[0]) / 2;
    for (int64_t i = 0; i < rows * n; i++) {
        double a = x[0][i / n * 2 * n + i % n], b = x[0][i / n * 2 * n + n + i % n];
        y[i] = a * b * 0.5 * (1 + erf(b / sqrt(2)));
    }
}

static void test_geglu__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 2, 3, 22);
    for (int64_t i = 0; i < draft_tensor_count(x); i++)
        draft_f32(x)[i] *= 4;
    check_op(t, &(struct op_case){.in = {x}, .run = run, .twin = twin});
    check_op(t, &(struct op_case){.in = {GIVEN(t, 2)}, .run = run, .twin = twin});
}

static void test_geglu__refuses_an_odd_width(void **state)
{
    struct op_test *t = *state;
    assert_refused(t, draft_geglu(&t->g, GIVEN(t, 4, 5)), "geglu", "[4, 5]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_geglu__equals_its_double_twin),
        op_test_case(test_geglu__refuses_an_odd_width),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
