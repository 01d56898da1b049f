#include "op_case.h"

enum { K = 21, COUNT = 3 };
static const int64_t O[COUNT] = {5, 16, 9};

static void given_layers(struct op_test *t, struct draft_row_layer *layer)
{
    for (int i = 0; i < COUNT; i++)
        layer[i] = (struct draft_row_layer){GIVEN(t, O[i], K), GIVEN(t, O[i]), GIVEN(t, O[i])};
}

static void check(struct op_test *t, const float *x, const struct draft_row_layer *layer, struct draft_tensor **y)
{
    const double bound = t->g.activations == DRAFT_BF16 ? OP_BF16 : 1e-6;
    for (int i = 0; i < COUNT; i++) {
        const float *got = draft_read(&t->g, y[i]);
        assert_true(got != NULL && y[i]->rank == 1 && y[i]->dim[0] == O[i]);
        for (int64_t j = 0; j < O[i]; j++) {
            double sum = (double)draft_f32(layer[i].bias)[j] + (double)draft_f32(layer[i].more)[j];
            for (int64_t k = 0; k < K; k++)
                sum += (double)draft_f32(layer[i].weight)[j * K + k] * (double)x[k];
            if (!(fabs(sum - (double)got[j]) <= 5 * bound)) /* some five is the largest */
                fail_msg("layer %d, number %d: %g, expected %g", i, (int)j, (double)got[j], sum);
        }
    }
}

static void test_row_linears__are_products_with_one_row_and_two_biases(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_row_layer layer[COUNT];
    struct draft_tensor *y[COUNT];
    given_layers(t, layer);
    struct draft_tensor *x = draft_convert(g, GIVEN(t, 1, K), g->activations);
    draft_row_linears(g, x, layer, COUNT, y); /* one by one */
    assert_ok(t);
    check(t, draft_read(g, x), layer, y);
    bool was = draft_no_grad(g);
    draft_row_linears(g, x, layer, COUNT, y);
    g->recording = was;
    assert_ok(t);
    check(t, draft_read(g, x), layer, y);
}

static void test_row_linears__pass_gradients(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_row_layer layer[COUNT];
    struct draft_tensor *y[COUNT];
    given_layers(t, layer);
    draft_row_linears(g, draft_convert(g, GIVEN(t, 1, K), g->activations), layer, COUNT, y);
    assert_true(draft_graph_backward(g, draft_mean(g, y[1]), NULL));
    for (int64_t j = 0; j < O[1]; j++)
        assert_true(fabs((double)draft_grad_f32(layer[1].more)[j] - 1.0 / (double)O[1]) < 1e-3);
    assert_non_null(layer[1].weight->grad);
    assert_null(layer[0].weight->grad);
}

static void test_row_linears__refuse_what_a_linear_refuses(void **state)
{
    struct op_test *t = *state;
    struct draft_row_layer layer[COUNT];
    struct draft_tensor *y[COUNT];
    given_layers(t, layer);
    bool was = draft_no_grad(&t->g);
    draft_row_linears(&t->g, GIVEN(t, 1, K + 1), layer, COUNT, y);
    t->g.recording = was;
    assert_refused(t, y[0], "linear", "[1, 22]");
    assert_null(y[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_row_linears__are_products_with_one_row_and_two_biases),
        op_test_case(test_row_linears__pass_gradients),
        op_test_case(test_row_linears__refuse_what_a_linear_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
