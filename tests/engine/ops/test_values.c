/* How long values of recorded activations are kept (autograd/values.c). */
#include "op_case.h"

enum { ROWS = 8, WIDTH = 32, BYTES = ROWS * WIDTH * (int)sizeof(float) };

struct layer {
    struct draft_tensor *gamma, *beta, *w;
};

static struct layer frozen_layer(struct op_test *t)
{
    struct layer l = {GIVEN(t, WIDTH), GIVEN(t, WIDTH), GIVEN(t, WIDTH, WIDTH)};
    l.gamma->needs_grad = l.beta->needs_grad = l.w->needs_grad = false;
    return l;
}

/* x + linear(silu(linear(norm(x)))): the norm's result and the activation's are read by no backward. */
static struct draft_tensor *run_layer(struct draft_graph *g, const struct layer *l, struct draft_tensor *x, bool scoped)
{
    struct draft_mark mark = draft_scope_begin(g);
    struct draft_tensor *h = draft_layer_norm(g, x, l->gamma, l->beta, 1e-5f);
    h = draft_activate(g, draft_linear(g, h, l->w, NULL, NULL), DRAFT_SILU);
    h = draft_linear_onto(g, x, h, l->w, NULL, NULL);
    return scoped ? draft_scope_end(g, mark, h) : h;
}

static void test_values__what_no_backward_reads_makes_room(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    enum { LAYERS = 10 };
    struct layer l = frozen_layer(t);
    struct draft_tensor *x = GIVEN(t, ROWS, WIDTH);
    float gradient[2][ROWS * WIDTH];
    struct draft_mark mark = draft_graph_mark(g);
    size_t live[2];
    for (int scoped = 0; scoped < 2; scoped++) {
        struct draft_tensor *y = x;
        for (int i = 0; i < LAYERS; i++)
            y = run_layer(g, &l, y, scoped);
        live[scoped] = draft_arena_live(t->arena) - mark.step;
        assert_true(draft_graph_backward(g, draft_mean(g, y), NULL));
        memcpy(gradient[scoped], x->grad, sizeof gradient[scoped]);
        draft_graph_reset(g, &mark);
    }
    assert_memory_equal(gradient[0], gradient[1], sizeof gradient[0]);
    /* Four values a layer; of two of them two for all layers are left, and what norms keep may split a hole. */
    assert_true(live[0] - live[1] > (2 * LAYERS - 3) * BYTES);
}

static void test_values__addresses_repeat_from_step_to_step(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct layer l = frozen_layer(t);
    struct draft_tensor *x = GIVEN(t, ROWS, WIDTH);
    struct draft_mark mark = draft_graph_mark(g);
    const void *address[4] = {0};
    size_t high = 0;
    for (int step = 0; step < 20; step++) {
        struct draft_tensor *y = x;
        for (int i = 0; i < 4; i++) {
            y = run_layer(g, &l, y, true);
            assert_true(step == 0 || y->data == address[i]);
            address[i] = y->data;
        }
        assert_true(draft_graph_backward(g, draft_mean(g, y), NULL));
        draft_graph_reset(g, &mark);
        high = step == 0 ? draft_arena_high_water(t->arena) : high;
        assert_int_equal(draft_arena_high_water(t->arena), high);
        assert_int_equal(draft_arena_live(t->arena), mark.step);
    }
}

/* --- An op whose backward reads what it says it does not ---------------------------------------------------------- */

static bool lie_forward(struct draft_graph *g, struct draft_call *call)
{
    return draft_backend_axpby(g->backend, DRAFT_F32, draft_tensor_count(call->out), 1, call->in[0]->data,
                               call->out->data, false, &g->error);
}

static bool found_nothing;

static bool lie_backward(struct draft_graph *g, struct draft_call *call)
{
    found_nothing = call->in[0]->data == NULL;
    return draft_grad_pass(g, call->out, call->in[0]);
}

static void test_values__a_backward_that_reads_undeclared_values_finds_null(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = GIVEN(t, 4);
    for (int honest = 0; honest < 2; honest++) {
        const struct draft_op op = {.name = "lie",
                                    .anywhere = true,
                                    .forward = lie_forward,
                                    .backward = lie_backward,
                                    .reads = honest ? draft_reads_inputs : draft_reads_nothing};
        struct draft_mark mark = draft_scope_begin(g);
        struct draft_tensor *a = draft_axpby(g, 1, x, 0, NULL);
        struct draft_call call = {.op = &op, .in = {a}, .out = draft_new(g, DRAFT_F32, 1, a->dim)};
        struct draft_tensor *y = draft_scope_end(g, mark, draft_graph_run(g, &call));
        found_nothing = !honest;
        assert_non_null(y->data);
        assert_true(draft_graph_backward(g, draft_mean(g, y), NULL));
        assert_int_equal(found_nothing, !honest);
        draft_graph_reset(g, NULL);
        x = GIVEN(t, 4);
    }
}

static void test_values__what_is_kept_stays_and_so_does_what_it_is_a_view_of(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = GIVEN(t, 2, 64);
    struct draft_mark outer = draft_scope_begin(g), inner = draft_scope_begin(g);
    struct draft_tensor *y = draft_axpby(g, 2, x, 0, NULL);
    y = draft_scope_end(g, inner, draft_reshape(g, y, 1, (int64_t[]){128}));
    struct draft_tensor *z = draft_axpby(g, 3, y, 0, NULL); /* would lie where y is */
    for (int i = 0; i < 128; i++)
        assert_true(draft_f32(y)[i] == 2 * draft_f32(x)[i] && draft_f32(z)[i] == 6 * draft_f32(x)[i]);
    z = draft_scope_end(g, outer, z); /* now y is done with */
    assert_null(y->data);
    assert_ptr_equal(draft_axpby(g, 1, z, 0, NULL)->data, draft_f32(z) - 128);
}

/* --- Around recomputed blocks ------------------------------------------------------------------------------------- */

struct shift {
    struct draft_tensor *by; /* needs no gradient, so it is not among the inputs */
};

static struct draft_tensor *shift(struct draft_graph *g, void *context, struct draft_tensor *const *in)
{
    const struct shift *s = context;
    struct draft_tensor *square = draft_mean_square_difference(g, in[0], s->by);
    return draft_axpby(g, 1, square, 0, NULL);
}

static void test_values__what_a_recomputed_block_may_read_stays(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = GIVEN(t, 64), *constant = GIVEN(t, 64);
    constant->needs_grad = false;
    struct draft_mark mark = draft_scope_begin(g);
    struct shift s = {draft_axpby(g, 5, constant, 0, NULL)};
    struct draft_tensor *y = draft_scope_end(g, mark, draft_recompute(g, shift, &s, &x, 1));
    struct draft_tensor *other = draft_axpby(g, 7, constant, 0, NULL);
    assert_true(other->data != s.by->data);
    assert_true(draft_graph_backward(g, y, NULL));
    for (int i = 0; i < 64; i++)
        assert_true(fabsf(draft_grad_f32(x)[i] - 2 * (draft_f32(x)[i] - 5 * draft_f32(constant)[i]) / 64) < 1e-6f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_values__what_no_backward_reads_makes_room),
        op_test_case(test_values__addresses_repeat_from_step_to_step),
        op_test_case(test_values__a_backward_that_reads_undeclared_values_finds_null),
        op_test_case(test_values__what_is_kept_stays_and_so_does_what_it_is_a_view_of),
        op_test_case(test_values__what_a_recomputed_block_may_read_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
