#include "op_case.h"

enum { X, GAMMA, BETA };
enum { WEIGHTS = 1 << GAMMA | 1 << BETA }; /* bits of inputs that are F32 always */

static const float eps = 1e-5f;

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    (void)context;
    return draft_layer_norm(g, in[X], in[GAMMA], in[BETA], eps);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    int64_t rows = draft_rows(c->in[X]), n = draft_last(c->in[X]);
    for (int64_t r = 0; r < rows; r++) {
        double mean = 0, square = 0;
        for (int64_t i = 0; i < n; i++)
            mean += x[X][r * n + i] / (double)n;
        for (int64_t i = 0; i < n; i++)
            square += pow(x[X][r * n + i] - mean, 2) / (double)n;
        for (int64_t i = 0; i < n; i++)
            y[r * n + i] = x[GAMMA][i] * (x[X][r * n + i] - mean) / sqrt(square + (double)eps) + x[BETA][i];
    }
}

static void test_layer_norm__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    check_op(t,
             &(struct op_case){
                 .in = {GIVEN(t, 2, 5, 13), GIVEN(t, 13), GIVEN(t, 13)}, .run = run, .weights = WEIGHTS, .twin = twin});
    check_op(t,
             &(struct op_case){
                 .in = {GIVEN(t, 67, 32), GIVEN(t, 32), GIVEN(t, 32)}, .run = run, .weights = WEIGHTS, .twin = twin});
}

static void test_layer_norm__gives_x_its_gradient_under_frozen_weights(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 3, 7), *gamma = GIVEN(t, 7), *beta = GIVEN(t, 7);
    float *seed = draft_f32(GIVEN(t, 3, 7)), all[21];
    struct draft_mark mark = draft_graph_mark(&t->g);
    /* behind an activation, so that the output's own buffer is used for dx */
    for (int frozen = 0; frozen < 2; frozen++) {
        gamma->needs_grad = beta->needs_grad = !frozen;
        struct draft_tensor *a = draft_axpby(&t->g, 1, x, 0, NULL);
        assert_true(draft_graph_backward(&t->g, draft_layer_norm(&t->g, a, gamma, beta, eps), seed));
        if (frozen)
            assert_memory_equal(x->grad, all, sizeof all);
        memcpy(all, x->grad, sizeof all);
        draft_graph_reset(&t->g, &mark);
    }
}

static void test_layer_norm__refuses_weights_of_another_width(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = GIVEN(t, 4, 6), *six = GIVEN(t, 6), *five = GIVEN(t, 5);
    assert_refused(t, draft_layer_norm(g, x, five, six, eps), "layer_norm", "[4, 6], [5] and [6]");
    assert_refused(t, draft_layer_norm(g, x, six, five, eps), "layer_norm", "and [5]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_layer_norm__equals_its_double_twin),
        op_test_case(test_layer_norm__gives_x_its_gradient_under_frozen_weights),
        op_test_case(test_layer_norm__refuses_weights_of_another_width),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
