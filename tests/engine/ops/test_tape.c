#include "op_case.h"

/* y = gelu(x w1^T) w2^T + x: something with a residual, so that x has two consumers */
static struct draft_tensor *residual(struct draft_graph *g, struct draft_tensor *x, struct draft_tensor *w1,
                                     struct draft_tensor *w2)
{
    struct draft_tensor *h = draft_activate(g, draft_linear(g, x, w1, NULL, NULL), DRAFT_GELU);
    return draft_add(g, x, draft_linear(g, h, w2, NULL, NULL));
}

static struct draft_tensor *run_residual(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    (void)context;
    return residual(g, residual(g, in[0], in[1], in[2]), in[1], in[2]);
}

static void twin_residual(const struct op_case *c, const double *const *x, double *y)
{
    int64_t m = c->in[0]->dim[0], k = c->in[0]->dim[1], o = c->in[1]->dim[0];
    memcpy(y, x[0], (size_t)(m * k) * sizeof *y);
    for (int64_t i = 0; i < 2 * m; i++) {
        double *row = y + i % m * k, h[16], sum[16];
        for (int64_t j = 0; j < o; j++) {
            double v = 0;
            for (int64_t l = 0; l < k; l++)
                v += row[l] * x[1][j * k + l];
            h[j] = v * 0.5 * (1 + erf(v / sqrt(2)));
        }
        for (int64_t j = 0; j < k; j++) {
            sum[j] = row[j];
            for (int64_t l = 0; l < o; l++)
                sum[j] += h[l] * x[2][j * o + l];
        }
        memcpy(row, sum, (size_t)k * sizeof *row);
    }
}

static void test_tape__adds_the_gradients_of_two_consumers_and_of_a_weight_used_twice(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 3, 5), GIVEN(t, 7, 5), GIVEN(t, 5, 7)},
                                  .run = run_residual,
                                  .weights = 1 << 1 | 1 << 2,
                                  .twin = twin_residual});
}

/* DRaFT-LV, micro-batches: several losses, one after the other, into the same parameters */
static void test_tape__accumulates_several_backward_passes_into_parameters(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *w = GIVEN(t, 4, 6), *x[3] = {GIVEN(t, 2, 6), GIVEN(t, 5, 6), GIVEN(t, 3, 6)};
    float one_by_one[24] = {0}, together[24];
    for (int i = 0; i < 3; i++)
        x[i]->needs_grad = false;
    struct draft_mark mark = draft_graph_mark(&t->g);
    for (int i = 0; i < 3; i++) {
        assert_true(draft_graph_backward(g, draft_mean(g, draft_linear(g, x[i], w, NULL, NULL)), NULL));
        for (int j = 0; j < 24; j++)
            one_by_one[j] += draft_grad_f32(w)[j];
        draft_graph_reset(g, &mark);
        assert_null(w->grad); /* the graph's own buffer has been taken back */
    }
    w->grad = together; /* as the trainer does; contents undefined */
    for (int i = 0; i < 3; i++) {
        assert_true(draft_graph_backward(g, draft_mean(g, draft_linear(g, x[i], w, NULL, NULL)), NULL));
        draft_graph_reset(g, &mark);
        assert_ptr_equal(w->grad, together);
        assert_true(w->grad_written);
    }
    assert_memory_equal(together, one_by_one, sizeof together);
}

static void test_tape__gives_frozen_tensors_nothing(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = GIVEN(t, 3, 5), *w1 = GIVEN(t, 7, 5), *w2 = GIVEN(t, 5, 7);
    x->needs_grad = w1->needs_grad = false;
    assert_true(draft_graph_backward(g, draft_mean(g, residual(g, x, w1, w2)), NULL));
    assert_null(x->grad);
    assert_null(w1->grad);
    assert_non_null(w2->grad);
}

static void test_tape__records_nothing_in_no_gradient_mode(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = GIVEN(t, 3, 5);
    bool was = draft_no_grad(g);
    struct draft_tensor *y = draft_mean(g, draft_activate(g, x, DRAFT_SILU));
    g->recording = was;
    assert_false(y->needs_grad);
    assert_false(draft_graph_backward(g, y, NULL));
    assert_int_equal(g->error.code, DRAFT_FAILED_PRECONDITION);
}

static void test_tape__passes_nothing_through_a_detached_tensor(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = GIVEN(t, 4), *y = draft_axpby(g, 2, x, 0, NULL);
    struct draft_tensor *stopped = draft_detach(g, y);
    assert_ptr_equal(stopped->data, y->data);
    assert_true(draft_graph_backward(g, draft_add(g, y, stopped), (float[]){1, 1, 1, 1}));
    for (int i = 0; i < 4; i++)
        assert_true(draft_grad_f32(x)[i] == 2);
}

/* what was computed but does not lead to the loss: its backward must not run on an unwritten gradient */
static void test_tape__leaves_out_what_the_root_does_not_depend_on(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = GIVEN(t, 2, 3), *unused = GIVEN(t, 2, 3);
    struct draft_tensor *y = draft_mean(g, x);
    draft_mean(g, draft_mean_square_difference(g, x, unused));
    assert_true(draft_graph_backward(g, y, NULL));
    assert_null(unused->grad);
    for (int i = 0; i < 6; i++)
        assert_true(draft_grad_f32(x)[i] == (float)(1 / 6.0));
}

static void test_tape__has_flat_memory_and_repeats_its_addresses(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = GIVEN(t, 8, 16), *w1 = GIVEN(t, 32, 16), *w2 = GIVEN(t, 16, 32);
    float d1[512], d2[512];
    w1->grad = d1;
    w2->grad = d2;
    struct draft_mark mark = draft_graph_mark(&t->g);
    size_t high = 0;
    void *address = NULL;
    for (int step = 0; step < 50; step++) {
        w1->grad_written = w2->grad_written = false;
        struct draft_tensor *h = x;
        for (int i = 0; i < 12; i++)
            h = residual(g, h, w1, w2);
        struct draft_tensor *loss = draft_mean(g, h);
        size_t forward = draft_arena_live(t->arena);
        assert_true(draft_graph_backward(g, loss, NULL));
        assert_int_equal(draft_arena_live(t->arena), forward); /* only the activations are left */
        if (step == 0) {
            high = draft_arena_high_water(t->arena);
            address = loss;
            /* gradients: two or three at a time of the larger size, not one for each of the 60 activations */
            assert_true(high - forward < 8 * (8 * 32 * sizeof(float) + 64));
        }
        assert_int_equal(draft_arena_high_water(t->arena), high);
        assert_ptr_equal(loss, address);
        draft_graph_reset(g, &mark);
        assert_int_equal(draft_arena_live(t->arena), mark.step);
    }
}

static void test_tape__gives_activations_back_where_they_may_go(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = GIVEN(t, 8, 16), *w1 = GIVEN(t, 32, 16), *w2 = GIVEN(t, 16, 32);
    float gradient[2][2][512];
    struct draft_mark mark = draft_graph_mark(g);
    for (int freed = 0; freed < 2; freed++) {
        g->frees_activations = freed;
        w1->grad = gradient[freed][0];
        w2->grad = gradient[freed][1];
        w1->grad_written = w2->grad_written = false;
        struct draft_tensor *h = x;
        for (int i = 0; i < 12; i++)
            h = residual(g, h, w1, w2);
        struct draft_tensor *loss = draft_mean(g, h);
        size_t forward = draft_arena_live(t->arena) - mark.step;
        assert_true(draft_graph_backward(g, loss, NULL));
        size_t left = draft_arena_live(t->arena) - mark.step;
        assert_true(freed ? left < forward / 12 : left == forward);
        draft_graph_reset(g, &mark);
    }
    assert_memory_equal(gradient[0], gradient[1], sizeof gradient[0]);
}

enum { ROWS = 16, ROOT = 64 /* bytes of the first gradient, which then is a hole, and too small for all others */ };

/* What the gradients of activations of these widths take beside them, one linear after the other; backward begins at
 * the last. `freed`: the activations are given back meanwhile. In lines of the host's; a device's are longer. */
static size_t high_water(struct op_test *t, const int64_t *width, int count, bool freed)
{
    struct draft_graph *g = &t->g;
    if (!draft_backend_on_host(g->backend))
        skip();
    g->frees_activations = freed;
    struct draft_tensor *h = GIVEN(t, ROWS, width[0]);
    for (int j = 1; j < count; j++)
        h = draft_linear(g, h, GIVEN(t, width[j], width[j - 1]), NULL, NULL);
    struct draft_tensor *loss = draft_mean(g, h);
    size_t forward = draft_arena_live(t->arena);
    assert_int_equal(draft_arena_high_water(t->arena), forward);
    assert_true(draft_graph_backward(g, loss, NULL));
    return draft_arena_high_water(t->arena) - forward;
}

static void test_tape__a_gradient_takes_the_place_of_a_larger_one(void **state)
{
    static const int64_t width[] = {8, 32, 64, 512};
    assert_int_equal(high_water(*state, width, 4, false), ROOT + ROWS * (512 + 64) * sizeof(float));
}

/* The third of 16 takes the first one's place; when the second is gone the 512 begins where that was. */
static void test_tape__gradients_at_the_end_make_room_for_a_larger_one(void **state)
{
    static const int64_t width[] = {8, 512, 16, 16, 16};
    assert_int_equal(high_water(*state, width, 5, false), ROWS * (16 + 512) * sizeof(float));
}

/* The first two find no activation gone that is large enough; all others do. */
static void test_tape__gradients_take_the_place_of_activations(void **state)
{
    static const int64_t width[] = {8, 64, 64, 64, 64, 64, 64, 64, 64};
    assert_int_equal(high_water(*state, width, 9, true), ROOT + 2 * ROWS * 64 * sizeof(float));
}

static void test_tape__keeps_the_first_error_and_takes_null_after_it(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *bad = draft_add(g, GIVEN(t, 2, 3), GIVEN(t, 3, 2));
    char first[1024];
    assert_null(bad);
    memcpy(first, g->error.message, sizeof first);
    struct draft_tensor *y = draft_linear(g, bad, bad, NULL, NULL);
    y = draft_conv2d(g, y, y, y, &(struct draft_conv2d_args){.stride = 1});
    y = draft_group_norm(g, y, y, y, 2, 1e-5f, true);
    y = draft_layer_norm(g, y, y, y, 1e-5f);
    y = draft_attention(g, y, y, y, 2, false);
    y = draft_geglu(g, draft_activate(g, y, DRAFT_SILU));
    y = draft_add(g, draft_add_positions(g, y, y), y);
    y = draft_axpby(g, 1, draft_scale_clamp(g, y, 1, 0, 0, 1), 1, y);
    y = draft_normalize_channels(g, draft_concat_channels(g, y, y), NULL, NULL);
    y = draft_slice_batch(g, draft_slice_channels(g, draft_concat_batch(g, y, y), 0, 1), 0, 1);
    y = draft_prepend_token(g, draft_reshape(g, y, 1, (int64_t[]){1}), y);
    y = draft_embedding(g, draft_select_token(g, y, NULL), y);
    y = draft_resize_bicubic(g, draft_upsample_nearest(g, y, 1, 1), 1, 1);
    y = draft_max_pool(g, draft_crop(g, y, 0, 0, 1, 1), 2, 2);
    y = draft_cosine(g, draft_mean(g, y), draft_mean_square_difference(g, y, y));
    assert_null(draft_timestep_embedding(g, NULL, 1, 8, true, 0));
    assert_null(draft_scope_end(g, draft_scope_begin(g), draft_detach(g, y)));
    assert_false(draft_graph_backward(g, y, NULL));
    assert_string_equal(g->error.message, first);
    draft_graph_reset(g, NULL);
    assert_true(draft_graph_ok(g));
}

static void test_tape__refuses_to_record_an_op_without_gradient_before_it_runs(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = draft_axpby(g, 1, GIVEN(t, 1, 4, 4, 1), 0, NULL);
    assert_null(draft_max_pool(g, x, 2, 2));
    assert_int_equal(g->error.code, DRAFT_FAILED_PRECONDITION);
    g->error = (struct draft_error){0};
    assert_non_null(draft_max_pool(g, draft_detach(g, x), 2, 2));
}

static void test_tape__says_which_op_ran_out_of_memory(void **state)
{
    struct op_test *t = *state;
    struct draft_error err = {0};
    struct draft_arena *small = draft_arena_create("step", 1 << 16, &err);
    struct draft_graph g;
    assert_true(draft_graph_init(&g, t->backend, small, &err));
    struct draft_tensor *x = draft_new(&g, DRAFT_F32, 2, (int64_t[]){64, 64});
    memset(x->data, 0, 64 * 64 * sizeof(float));
    for (int i = 0; i < 8; i++)
        x = draft_activate(&g, x, DRAFT_RELU);
    assert_null(x);
    assert_int_equal(g.error.code, DRAFT_OUT_OF_MEMORY);
    draft_graph_finish(&g);
    draft_arena_destroy(small);
}

static void test_tape__survives_running_out_of_memory_in_the_backward_pass(void **state)
{
    struct op_test *t = *state;
    struct draft_error err = {0};
    int failed = 0, done = 0;
    for (size_t limit = 9000; limit < 16000; limit += 64) {
        struct draft_arena *small = draft_arena_create("step", limit, &err);
        struct draft_graph g;
        assert_true(draft_graph_init(&g, t->backend, small, &err));
        struct draft_tensor *x = draft_new(&g, DRAFT_F32, 2, (int64_t[]){16, 16}), *w = GIVEN(t, 16, 16);
        memset(x->data, 0, 16 * 16 * sizeof(float));
        struct draft_tensor *y = x;
        for (int i = 0; i < 3; i++)
            y = draft_activate(&g, draft_linear(&g, y, w, NULL, NULL), DRAFT_SILU);
        struct draft_tensor *loss = draft_mean(&g, y);
        if (draft_graph_ok(&g) && draft_graph_backward(&g, loss, NULL))
            done++;
        else if (loss != NULL)
            failed++;
        assert_true(draft_graph_ok(&g) || g.error.code == DRAFT_OUT_OF_MEMORY);
        draft_graph_reset(&g, NULL);
        assert_null(w->grad);
        draft_graph_finish(&g);
        draft_arena_destroy(small);
    }
    assert_true(failed > 5 && done > 5); /* both happened */
}

static bool never(void *context)
{
    ++*(int *)context;
    return false;
}

static void test_tape__stops_a_long_backward_pass_on_request(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    int asked = 0;
    struct draft_tensor *x = GIVEN(t, 4), *y = x;
    for (int i = 0; i < 100; i++)
        y = draft_activate(g, y, DRAFT_SILU);
    g->keep_going = never;
    g->context = &asked;
    assert_false(draft_graph_backward(g, draft_mean(g, y), NULL));
    assert_int_equal(g->error.code, DRAFT_CANCELLED);
    assert_int_equal(asked, 1);
    assert_null(x->grad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_tape__adds_the_gradients_of_two_consumers_and_of_a_weight_used_twice),
        op_test_case(test_tape__accumulates_several_backward_passes_into_parameters),
        op_test_case(test_tape__gives_frozen_tensors_nothing),
        op_test_case(test_tape__records_nothing_in_no_gradient_mode),
        op_test_case(test_tape__passes_nothing_through_a_detached_tensor),
        op_test_case(test_tape__leaves_out_what_the_root_does_not_depend_on),
        op_test_case(test_tape__has_flat_memory_and_repeats_its_addresses),
        op_test_case(test_tape__gives_activations_back_where_they_may_go),
        op_test_case(test_tape__a_gradient_takes_the_place_of_a_larger_one),
        op_test_case(test_tape__gradients_at_the_end_make_room_for_a_larger_one),
        op_test_case(test_tape__gradients_take_the_place_of_activations),
        op_test_case(test_tape__keeps_the_first_error_and_takes_null_after_it),
        op_test_case(test_tape__refuses_to_record_an_op_without_gradient_before_it_runs),
        op_test_case(test_tape__says_which_op_ran_out_of_memory),
        op_test_case(test_tape__survives_running_out_of_memory_in_the_backward_pass),
        op_test_case(test_tape__stops_a_long_backward_pass_on_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
