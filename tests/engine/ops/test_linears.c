#include "op_case.h"

enum { N = 2, S = 3, K = 24, O = 16, R = 8, COUNT = 3 };

static const bool on = true, off = false;
static const float scale = 0.75f;

/* Three layers whose weights are the host's, as a model's are. */
struct layers {
    float values[COUNT][O * K];
    struct draft_tensor weight[COUNT];
    struct draft_siblings weights, downs;
    struct draft_lora lora[COUNT];
    struct draft_projection layer[COUNT];
};

static void make_layers(struct op_test *t, struct layers *l, const bool *switched)
{
    static const char *const NAMES[] = {"q", "k", "v"};
    *l = (struct layers){.weights.count = COUNT, .downs.count = COUNT};
    for (int i = 0; i < COUNT; i++) {
        for (int j = 0; j < O * K; j++)
            l->values[i][j] = op_random(t);
        struct draft_tensor *down = GIVEN(t, R, K), *up = GIVEN(t, O, R);
        down->name = NAMES[i];
        down->siblings = &l->downs;
        l->weight[i] = (struct draft_tensor){.dtype = DRAFT_F32,
                                             .rank = 2,
                                             .dim = {O, K},
                                             .data = l->values[i],
                                             .name = NAMES[i],
                                             .up = up,
                                             .siblings = &l->weights};
        l->weights.tensor[i] = &l->weight[i];
        l->downs.tensor[i] = down;
        l->lora[i] = (struct draft_lora){down, up, &scale, switched};
        l->layer[i] = (struct draft_projection){&l->weight[i], &l->lora[i]};
    }
}

static void forget_layers(struct op_test *t, struct layers *l)
{
    for (int i = 0; i < COUNT; i++) {
        draft_backend_forget(t->backend, &l->weight[i]);
        draft_backend_forget(t->backend, l->lora[i].down);
        draft_backend_forget(t->backend, l->lora[i].up);
    }
}

/* The largest |y - (x W^T + scale x A^T B^T)| relative to the largest y, in double. */
static double error_of(const struct layers *l, int i, const float *x, const float *y, bool adapted)
{
    const float *down = draft_f32(l->lora[i].down), *up = draft_f32(l->lora[i].up);
    double worst = 0, largest = 0;
    for (int j = 0; j < N * S * O; j++) {
        double sum = 0;
        for (int k = 0; k < K; k++) {
            double weight = (double)l->values[i][j % O * K + k];
            for (int r = 0; r < R && adapted; r++)
                weight += (double)scale * (double)up[j % O * R + r] * (double)down[r * K + k];
            sum += (double)x[j / O * K + k] * weight;
        }
        worst = fmax(worst, fabs(sum - (double)y[j]));
        largest = fmax(largest, fabs(sum));
    }
    return worst / largest;
}

static void check_layers(struct op_test *t, const bool *switched, int64_t room)
{
    static struct layers l;
    struct draft_graph *g = &t->g;
    const double bound = g->activations == DRAFT_BF16 ? OP_BF16 : 1e-6;
    struct draft_tensor *y[COUNT];
    make_layers(t, &l, switched);
    struct draft_tensor *in = draft_convert(g, GIVEN(t, N, S, K), g->activations);
    bool was = draft_no_grad(g);
    struct draft_tensor *gain = GIVEN(t, K), *shift = GIVEN(t, K);
    const float *values = draft_read(g, draft_layer_norm(g, in, gain, shift, 1e-5f));
    for (int change = 0; change < 2; change++) { /* an update of the adapters */
        g->room = room;
        struct draft_tensor *x = draft_layer_norm(g, in, gain, shift, 1e-5f);
        draft_linears(g, x, l.layer, COUNT, y);
        g->room = 0;
        assert_ok(t);
        for (int i = 0; i < COUNT; i++) {
            assert_int_equal(draft_tensor_count(y[i]), N * S * O);
            double error = error_of(&l, i, values, draft_read(g, y[i]), *switched);
            if (error > bound)
                fail_msg("layer %d is %g off", i, error);
            for (int j = 0; j < O * R; j++)
                draft_f32(l.lora[i].up)[j] = op_random(t);
            for (int j = 0; j < R * K; j++)
                draft_f32(l.lora[i].down)[j] = op_random(t);
            draft_backend_forget(t->backend, l.lora[i].down);
            draft_backend_forget(t->backend, l.lora[i].up);
        }
    }
    g->recording = was;
    forget_layers(t, &l);
}

static void test_linears__are_three_linears_with_and_without_room_for_their_adapters(void **state)
{
    check_layers(*state, &on, COUNT * R);
    check_layers(*state, &on, R);
    check_layers(*state, &on, 0);
}

static void test_linears__ignore_adapters_that_are_off(void **state)
{
    check_layers(*state, &off, 0);
}

static void test_linears__are_the_same_where_no_batch_reads_one_x_for_all(void **state)
{
    setenv("FAKE_CUDA", "no-broadcast", 1);
    check_layers(*state, &on, COUNT * R);
    unsetenv("FAKE_CUDA");
}

/* While recording they are linears on the tape. */
static void test_linears__pass_gradients_to_every_adapter(void **state)
{
    static struct layers l;
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *y[COUNT], *sum = NULL;
    make_layers(t, &l, &on);
    draft_linears(g, draft_convert(g, GIVEN(t, N, S, K), g->activations), l.layer, COUNT, y);
    for (int i = 0; i < COUNT; i++)
        sum = sum != NULL ? draft_add(g, sum, y[i]) : y[i];
    assert_true(draft_graph_backward(g, draft_mean(g, sum), NULL));
    for (int i = 0; i < COUNT; i++)
        assert_true(l.lora[i].down->grad != NULL && l.lora[i].up->grad != NULL);
    forget_layers(t, &l);
}

static void test_linears__refuse_what_a_linear_refuses(void **state)
{
    static struct layers l;
    struct op_test *t = *state;
    struct draft_tensor *y[COUNT];
    make_layers(t, &l, &on);
    bool was = draft_no_grad(&t->g);
    draft_linears(&t->g, GIVEN(t, 2, K + 1), l.layer, COUNT, y);
    t->g.recording = was;
    assert_refused(t, y[0], "linear", "[2, 25]");
    assert_null(y[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_linears__are_three_linears_with_and_without_room_for_their_adapters),
        op_test_case(test_linears__ignore_adapters_that_are_off),
        op_test_case(test_linears__are_the_same_where_no_batch_reads_one_x_for_all),
        op_test_case(test_linears__pass_gradients_to_every_adapter),
        op_test_case(test_linears__refuse_what_a_linear_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
