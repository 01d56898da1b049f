#include "op_case.h"

enum { X, W, B, DOWN, UP, RESIDUAL };
enum { WEIGHTS = 1 << W | 1 << B | 1 << DOWN | 1 << UP }; /* bits of inputs that are F32 always */

static const bool on = true, off = false;
static const float scale = 0.75f;

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    const bool *switched = context;
    struct draft_lora lora = {in[DOWN], in[UP], &scale, switched};
    return draft_linear_onto(g, in[RESIDUAL], in[X], in[W], in[B], in[DOWN] != NULL ? &lora : NULL);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    int64_t m = draft_rows(c->in[X]), k = draft_last(c->in[X]), o = c->in[W]->dim[0];
    int64_t r = x[DOWN] != NULL ? c->in[DOWN]->dim[0] : 0;
    const bool *switched = c->context;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < o; j++) {
            double sum = (x[B] != NULL ? x[B][j] : 0) + (x[RESIDUAL] != NULL ? x[RESIDUAL][i * o + j] : 0);
            for (int64_t l = 0; l < k; l++)
                sum += x[X][i * k + l] * x[W][j * k + l];
            for (int64_t q = 0; q < r && *switched; q++)
                for (int64_t l = 0; l < k; l++)
                    sum += (double)scale * x[X][i * k + l] * x[DOWN][q * k + l] * x[UP][j * r + q];
            y[i * o + j] = sum;
        }
}

static void test_linear__equals_its_double_twin_without_bias_and_adapter(void **state)
{
    struct op_test *t = *state;
    check_op(
        t, &(struct op_case){
               .in = {GIVEN(t, 5, 7), GIVEN(t, 3, 7)}, .run = run, .weights = WEIGHTS, .twin = twin, .context = &off});
    check_op(
        t, &(struct op_case){
               .in = {GIVEN(t, 1, 1), GIVEN(t, 1, 1)}, .run = run, .weights = WEIGHTS, .twin = twin, .context = &off});
}

static void test_linear__adds_the_bias_to_every_row_of_a_sequence(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 2, 3, 13), GIVEN(t, 17, 13), GIVEN(t, 17)},
                                  .run = run,
                                  .weights = WEIGHTS,
                                  .twin = twin,
                                  .context = &off});
}

static void test_linear__takes_a_one_by_one_convolution_weight_on_an_image(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 1, 3, 2, 5), GIVEN(t, 9, 1, 1, 5), GIVEN(t, 9)},
                                  .run = run,
                                  .weights = WEIGHTS,
                                  .twin = twin,
                                  .context = &off});
}

static void test_linear__adds_the_scaled_adapter_and_differentiates_both_matrices(void **state)
{
    struct op_test *t = *state;
    check_op(t,
             &(struct op_case){.in = {GIVEN(t, 6, 11), GIVEN(t, 5, 11), GIVEN(t, 5), GIVEN(t, 3, 11), GIVEN(t, 5, 3)},
                               .run = run,
                               .weights = WEIGHTS,
                               .twin = twin,
                               .context = &on});
}

static void test_linear__adds_a_residual(void **state)
{
    struct op_test *t = *state;
    struct op_case c = {.in = {GIVEN(t, 2, 3, 6), GIVEN(t, 5, 6), GIVEN(t, 5), [RESIDUAL] = GIVEN(t, 2, 3, 5)},
                        .run = run,
                        .weights = WEIGHTS,
                        .twin = twin,
                        .context = &on};
    check_op(t, &c);
    c.in[DOWN] = GIVEN(t, 2, 6);
    c.in[UP] = GIVEN(t, 5, 2);
    check_op(t, &c);
    c.in[B] = NULL;
    check_op(t, &c);
    assert_refused(t, draft_linear_onto(&t->g, c.in[X], c.in[X], c.in[W], NULL, NULL), "linear", "[2, 3, 6], [5, 6]");
}

/* What it adds to a row may be a second bias. */
static void test_linear__one_row(void **state)
{
    struct op_test *t = *state;
    struct op_case c = {.in = {GIVEN(t, 1, 24), GIVEN(t, 19, 24), GIVEN(t, 19), [RESIDUAL] = GIVEN(t, 19)},
                        .run = run,
                        .weights = WEIGHTS | 1 << RESIDUAL,
                        .twin = twin,
                        .context = &on};
    check_op(t, &c);
    c.in[DOWN] = GIVEN(t, 2, 24);
    c.in[UP] = GIVEN(t, 19, 2);
    check_op(t, &c);
    assert_refused(t, draft_linear_onto(&t->g, c.in[B], GIVEN(t, 2, 24), c.in[W], NULL, NULL), "linear", "and [19]");
}

/* |y - (x W^T + scale x A^T B^T)| relative to the largest, in double. */
static double error_of(struct draft_graph *g, const struct draft_tensor *y, const struct draft_tensor *x,
                       const struct draft_tensor *w, const struct draft_lora *lora)
{
    const float *got = draft_read(g, y), *values = draft_read(g, x);
    int64_t k = draft_last(x), o = w->dim[0], r = lora->down->dim[0];
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < draft_tensor_count(y); i++) {
        const float *row = values + i / o * k;
        double sum = 0;
        for (int64_t l = 0; l < k; l++) {
            double weight = (double)draft_f32(w)[i % o * k + l];
            for (int64_t q = 0; q < r; q++)
                weight += (double)*lora->scale * (double)draft_f32(lora->up)[i % o * r + q] *
                          (double)draft_f32(lora->down)[q * k + l];
            sum += (double)row[l] * weight;
        }
        worst = fmax(worst, fabs(sum - (double)got[i]));
        largest = fmax(largest, fabs(sum));
    }
    return worst / largest;
}

/* Without gradient a backend may take the adapter along in the weight's own product; its matrices may change. Its up
 * matrix is where the backend computes, as a job's is, or the host's. */
static void take_along(struct op_test *t, bool of_host)
{
    enum { N = 5, K = 24, O = 17, R = 8 };
    static float weight[O * K], numbers[O * R];
    struct draft_graph *g = &t->g;
    struct draft_tensor *gamma = GIVEN(t, K), *beta = GIVEN(t, K), *down = GIVEN(t, R, K), *up = GIVEN(t, O, R);
    up->name = "up";
    if (of_host)
        up->data = memcpy(numbers, up->data, sizeof numbers);
    struct draft_tensor w = {.dtype = DRAFT_F32, .rank = 2, .dim = {O, K}, .data = weight, .name = "w", .up = up};
    struct draft_lora lora = {down, up, &scale, &on};
    const double bound = g->activations == DRAFT_BF16 ? OP_BF16 : 1e-6;
    for (int i = 0; i < O * K; i++)
        weight[i] = op_random(t);
    struct draft_tensor *in = draft_convert(g, GIVEN(t, N, K), g->activations);
    bool was = draft_no_grad(g);
    for (int change = 0; change < 2; change++) {
        struct draft_tensor *touching = draft_layer_norm(g, in, gamma, beta, 1e-5f);
        g->room = R;
        struct draft_tensor *x = draft_layer_norm(g, in, gamma, beta, 1e-5f);
        assert_int_equal(x->row, draft_backend_folds(t->backend, x->dtype, K, R) ? K + R : 0);
        struct draft_tensor *y = draft_linear_onto(g, NULL, x, &w, NULL, &lora);
        g->room = 0;
        struct draft_tensor *same = draft_linear(g, touching, &w, NULL, &lora);
        assert_ok(t);
        assert_true(error_of(g, y, touching, &w, &lora) <= bound);
        assert_true(error_of(g, same, touching, &w, &lora) <= bound);
        for (int i = 0; i < O * R; i++)
            draft_f32(up)[i] = op_random(t);
        draft_backend_forget(t->backend, up);
    }
    g->recording = was;
    draft_backend_forget(t->backend, &w);
}

static void test_linear__takes_an_adapter_along(void **state)
{
    take_along(*state, false);
    take_along(*state, true);
}

static void test_linear__trains_an_adapter_on_a_frozen_weight(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = GIVEN(t, 4, 6), *w = GIVEN(t, 5, 6), *down = GIVEN(t, 2, 6), *up = GIVEN(t, 5, 2);
    x->needs_grad = w->needs_grad = false;
    struct draft_lora lora = {down, up, &scale, &on};
    struct draft_tensor *y = draft_linear(g, x, w, NULL, &lora);
    assert_true(y->needs_grad);
    assert_true(draft_graph_backward(g, draft_mean(g, y), NULL));
    assert_null(x->grad);
    assert_null(w->grad);
    assert_non_null(down->grad);
    assert_non_null(up->grad);
}

static void test_linear__gives_down_an_exact_zero_while_up_is_zero(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = GIVEN(t, 33, 40), *w = GIVEN(t, 24, 40), *down = GIVEN(t, 8, 40), *up = GIVEN(t, 24, 8);
    memset(up->data, 0, (size_t)draft_tensor_count(up) * sizeof(float));
    struct draft_lora lora = {down, up, &scale, &on};
    struct draft_tensor *y = draft_linear(g, x, w, NULL, &lora);
    struct draft_tensor *base = draft_linear(g, x, w, NULL, NULL);
    assert_memory_equal(y->data, base->data, (size_t)draft_tensor_count(y) * sizeof(float));
    assert_true(draft_graph_backward(g, draft_mean(g, y), NULL));
    double up_size = 0;
    for (int64_t i = 0; i < draft_tensor_count(down); i++)
        assert_true(draft_grad_f32(down)[i] == 0);
    for (int64_t i = 0; i < draft_tensor_count(up); i++)
        up_size += fabs((double)draft_grad_f32(up)[i]);
    assert_true(up_size > 1e-3);
}

static void test_linear__ignores_an_adapter_that_is_off(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = GIVEN(t, 4, 6), *w = GIVEN(t, 5, 6), *down = GIVEN(t, 2, 6), *up = GIVEN(t, 5, 2);
    x->needs_grad = w->needs_grad = false;
    struct draft_lora lora = {down, up, &scale, &off};
    struct draft_tensor *y = draft_linear(g, x, w, NULL, &lora);
    assert_false(y->needs_grad);
    struct draft_tensor *base = draft_linear(g, x, w, NULL, NULL);
    assert_memory_equal(y->data, base->data, (size_t)draft_tensor_count(y) * sizeof(float));
}

static void test_linear__keeps_its_adapter_when_it_is_switched_off_before_the_backward_pass(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    bool switched = true;
    struct draft_tensor *x = GIVEN(t, 4, 6), *w = GIVEN(t, 5, 6), *down = GIVEN(t, 2, 6), *up = GIVEN(t, 5, 2);
    struct draft_lora lora = {down, up, &scale, &switched};
    struct draft_tensor *loss = draft_mean(g, draft_linear(g, x, w, NULL, &lora));
    switched = false;
    assert_true(draft_graph_backward(g, loss, NULL));
    assert_non_null(up->grad);
}

static void test_linear__refuses_shapes_that_do_not_fit(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = GIVEN(t, 4, 6), *w = GIVEN(t, 5, 7), *bias = GIVEN(t, 4);
    w->name = "mid_block.proj.weight";
    assert_refused(t, draft_linear(g, x, w, NULL, NULL), "linear", "[4, 6], [5, 7] (mid_block.proj.weight)");
    assert_refused(t, draft_linear(g, x, GIVEN(t, 5, 6), bias, NULL), "linear", "and [4]");
    assert_refused(t, draft_linear(g, x, GIVEN(t, 5, 3, 3, 6), NULL, NULL), "linear", "[5, 3, 3, 6]");
    struct draft_lora lora = {GIVEN(t, 2, 6), GIVEN(t, 5, 3), &scale, &on};
    assert_refused(t, draft_linear(g, x, GIVEN(t, 5, 6), NULL, &lora), "linear", "[2, 6] and [5, 3]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_linear__equals_its_double_twin_without_bias_and_adapter),
        op_test_case(test_linear__adds_the_bias_to_every_row_of_a_sequence),
        op_test_case(test_linear__takes_a_one_by_one_convolution_weight_on_an_image),
        op_test_case(test_linear__adds_the_scaled_adapter_and_differentiates_both_matrices),
        op_test_case(test_linear__adds_a_residual),
        op_test_case(test_linear__one_row),
        op_test_case(test_linear__takes_an_adapter_along),
        op_test_case(test_linear__trains_an_adapter_on_a_frozen_weight),
        op_test_case(test_linear__gives_down_an_exact_zero_while_up_is_zero),
        op_test_case(test_linear__ignores_an_adapter_that_is_off),
        op_test_case(test_linear__keeps_its_adapter_when_it_is_switched_off_before_the_backward_pass),
        op_test_case(test_linear__refuses_shapes_that_do_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
