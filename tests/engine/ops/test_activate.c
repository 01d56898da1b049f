#include "op_case.h"

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    const enum draft_activation *kind = context;
    return draft_activate(g, in[0], *kind);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    const enum draft_activation *kind = c->context;
    for (int64_t i = 0; i < draft_tensor_count(c->in[0]); i++) {
        double v = x[0][i];
        switch (*kind) {
        case DRAFT_SILU:
            y[i] = v / (1 + exp(-v));
            break;
        case DRAFT_GELU:
            y[i] = v * 0.5 * (1 + erf(v / sqrt(2)));
            break;
        case DRAFT_QUICK_GELU:
            y[i] = v / (1 + exp(-1.702 * v));
            break;
        case DRAFT_RELU:
            y[i] = v > 0 ? v : 0;
            break;
        }
    }
}

static void check(struct op_test *t, enum draft_activation kind)
{
    struct draft_tensor *x = GIVEN(t, 3, 5, 7);
    for (int64_t i = 0; i < draft_tensor_count(x); i++)
        draft_f32(x)[i] *= 6; /* into both tails */
    check_op(t, &(struct op_case){.in = {x}, .run = run, .twin = twin, .context = &kind, .forward = 1e-6});
    check_op(t, &(struct op_case){.in = {GIVEN(t, 1)}, .run = run, .twin = twin, .context = &kind});
}

static void test_activate__silu_equals_its_double_twin(void **state)
{
    check(*state, DRAFT_SILU);
}

static void test_activate__gelu_equals_its_double_twin(void **state)
{
    check(*state, DRAFT_GELU);
}

static void test_activate__quick_gelu_equals_its_double_twin(void **state)
{
    check(*state, DRAFT_QUICK_GELU);
}

static void test_activate__relu_equals_its_double_twin(void **state)
{
    check(*state, DRAFT_RELU);
}

static void test_activate__stays_finite_far_out(void **state)
{
    struct op_test *t = *state;
    for (enum draft_activation kind = DRAFT_SILU; kind <= DRAFT_RELU; kind++) {
        struct draft_tensor *x = GIVEN(t, 4);
        memcpy(x->data, (float[]){-1e4f, -90, 90, 1e4f}, 4 * sizeof(float));
        struct draft_tensor *y = draft_activate(&t->g, x, kind);
        assert_true(draft_graph_backward(&t->g, y, (float[]){1, 1, 1, 1}));
        for (int i = 0; i < 4; i++) {
            assert_true(fabs(draft_f32(y)[i] - (i < 2 ? 0 : draft_f32(x)[i])) < 1e-3);
            assert_true(fabs(draft_grad_f32(x)[i] - (i < 2 ? 0.0f : 1.0f)) < 1e-3);
        }
    }
}

static void test_activate__refuses_integers(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *ids = draft_new(&t->g, DRAFT_I32, 1, (int64_t[]){3});
    assert_refused(t, draft_activate(&t->g, ids, DRAFT_RELU), "activate", "I32 [3]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_activate__silu_equals_its_double_twin),
        op_test_case(test_activate__gelu_equals_its_double_twin),
        op_test_case(test_activate__quick_gelu_equals_its_double_twin),
        op_test_case(test_activate__relu_equals_its_double_twin),
        op_test_case(test_activate__stays_finite_far_out),
        op_test_case(test_activate__refuses_integers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
