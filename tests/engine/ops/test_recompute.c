/* Scopes and recompute: the same numbers, bit for bit, from less memory. */
#include "op_case.h"

struct block {
    struct draft_tensor *w, *gamma, *beta;
    struct draft_lora lora;
    int runs;
    struct block *inner; /* recomputed inside */
};

static const float scale = 0.5f;
static const bool on = true;

static struct block given_block(struct op_test *t, int64_t c)
{
    struct block b = {.w = GIVEN(t, c, c), .gamma = GIVEN(t, c), .beta = GIVEN(t, c)};
    b.lora = (struct draft_lora){GIVEN(t, 2, c), GIVEN(t, c, 2), &scale, &on};
    b.w->needs_grad = b.gamma->needs_grad = b.beta->needs_grad = false;
    return b;
}

/* x [n, s, c], context [n, s, c] -> x + linear(silu(norm(x))) + context; every input is read more than once */
static struct draft_tensor *run_block(struct draft_graph *g, void *context, struct draft_tensor *const *in)
{
    struct block *b = context;
    b->runs++;
    struct draft_mark mark = draft_scope_begin(g);
    struct draft_tensor *x = in[0], *h = draft_layer_norm(g, x, b->gamma, b->beta, 1e-5f);
    h = draft_activate(g, draft_linear(g, h, b->w, NULL, &b->lora), DRAFT_SILU);
    if (b->inner != NULL)
        h = draft_recompute(g, run_block, b->inner, (struct draft_tensor *[]){h, in[1]}, 2);
    h = draft_attention(g, h, in[1], in[1], 2, false);
    return draft_scope_end(g, mark, draft_add(g, x, draft_add(g, h, in[1])));
}

struct result {
    float y[64], dx[64], dcontext[64], ddown[5][16], dup[5][16], y_again;
    size_t forward_bytes, high;
};

enum { BLOCKS = 4 };

/* The chain of blocks, each in a recompute or plainly, and its gradients. */
static struct result chain(struct op_test *t, struct block *blocks, struct draft_tensor *x,
                           struct draft_tensor *context, bool recompute)
{
    struct result r;
    memset(&r, 0, sizeof r);
    struct draft_graph *g = &t->g;
    struct draft_mark mark = draft_graph_mark(&t->g);
    struct draft_tensor *a = draft_axpby(g, 1, x, 0, NULL), *c = draft_axpby(g, 1, context, 0, NULL), *y = a;
    for (int i = 0; i < BLOCKS; i++) {
        struct draft_tensor *in[] = {y, c};
        y = recompute ? draft_recompute(g, run_block, &blocks[i], in, 2) : run_block(g, &blocks[i], in);
    }
    y = draft_add(g, y, a); /* the blocks' first input has an outside consumer too */
    assert_ok(t);
    r.forward_bytes = draft_arena_live(t->arena) - mark.step;
    memcpy(r.y, y->data, sizeof r.y);
    struct draft_tensor *loss = draft_mean_square_difference(g, y, draft_detach(g, c));
    if (!draft_graph_backward(g, loss, NULL))
        fail_msg("%s", g->error.message);
    memcpy(r.dx, x->grad, sizeof r.dx);
    memcpy(r.dcontext, context->grad, sizeof r.dcontext);
    for (int i = 0; i < BLOCKS; i++) {
        memcpy(r.ddown[i], blocks[i].lora.down->grad, sizeof r.ddown[i]);
        memcpy(r.dup[i], blocks[i].lora.up->grad, sizeof r.dup[i]);
        if (blocks[i].inner != NULL)
            memcpy(r.ddown[BLOCKS], blocks[i].inner->lora.down->grad, sizeof r.ddown[BLOCKS]);
    }
    r.high = draft_arena_high_water(t->arena);
    draft_graph_reset(g, &mark);
    return r;
}

static void assert_same(const struct result *a, const struct result *b)
{
    assert_memory_equal(a->y, b->y, sizeof a->y);
    assert_memory_equal(a->dx, b->dx, sizeof a->dx);
    assert_memory_equal(a->dcontext, b->dcontext, sizeof a->dcontext);
    assert_memory_equal(a->ddown, b->ddown, sizeof a->ddown);
    assert_memory_equal(a->dup, b->dup, sizeof a->dup);
}

static void test_recompute__equals_the_plain_run_bit_for_bit(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 2, 4, 8), *context = GIVEN(t, 2, 4, 8);
    struct block blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = given_block(t, 8);
    struct result recomputed = chain(t, blocks, x, context, true), plain = chain(t, blocks, x, context, false);
    assert_same(&recomputed, &plain);
    assert_int_equal(blocks[0].runs, 3); /* twice recomputed, once plain */
    double size = 0;
    for (int i = 0; i < 16; i++)
        size += fabs((double)plain.ddown[0][i]);
    assert_true(size > 1e-4);
}

static void test_recompute__keeps_the_outputs_only(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 2, 4, 8), *context = GIVEN(t, 2, 4, 8);
    struct block blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = given_block(t, 8);
    struct result recomputed = chain(t, blocks, x, context, true), plain = chain(t, blocks, x, context, false);
    assert_true(recomputed.forward_bytes * 3 < plain.forward_bytes);
    assert_true(recomputed.high < plain.high);
}

static void test_recompute__nests(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 2, 4, 8), *context = GIVEN(t, 2, 4, 8);
    struct block blocks[BLOCKS], inner = given_block(t, 8);
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = given_block(t, 8);
    blocks[1].inner = &inner;
    struct result nested = chain(t, blocks, x, context, true), half = chain(t, blocks, x, context, false);
    assert_same(&nested, &half);
    for (int i = 0; i < 16; i++)
        assert_true(nested.ddown[BLOCKS][i] != 0);
}

/* The first block of a UNet: nothing it is given needs a gradient, its adapter does. */
static void test_recompute__trains_parameters_under_inputs_that_need_no_gradient(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct block b = given_block(t, 8);
    struct draft_tensor *in[] = {GIVEN(t, 2, 4, 8), GIVEN(t, 2, 4, 8)};
    in[0]->needs_grad = in[1]->needs_grad = false;
    struct draft_mark mark = draft_graph_mark(&t->g);
    float plain[16];
    assert_true(draft_graph_backward(g, draft_mean(g, run_block(g, &b, in)), NULL));
    memcpy(plain, b.lora.up->grad, sizeof plain);
    draft_graph_reset(g, &mark);
    struct draft_tensor *y = draft_recompute(g, run_block, &b, in, 2);
    assert_true(y->needs_grad);
    assert_true(draft_graph_backward(g, draft_mean(g, y), NULL));
    assert_memory_equal(b.lora.up->grad, plain, sizeof plain);
}

static void test_recompute__records_its_second_run_also_from_no_gradient_mode(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct block b = given_block(t, 8);
    struct draft_tensor *in[] = {GIVEN(t, 2, 4, 8), GIVEN(t, 2, 4, 8)};
    struct draft_tensor *loss = draft_mean(g, draft_recompute(g, run_block, &b, in, 2));
    draft_no_grad(g);
    assert_true(draft_graph_backward(g, loss, NULL));
    assert_false(g->recording);
    assert_non_null(b.lora.up->grad);
}

static void test_recompute__records_nothing_when_nothing_is_trained(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct block b = given_block(t, 8);
    struct draft_tensor *in[] = {GIVEN(t, 1, 4, 8), GIVEN(t, 1, 4, 8)};
    in[0]->needs_grad = in[1]->needs_grad = b.lora.down->needs_grad = b.lora.up->needs_grad = false;
    assert_false(draft_recompute(g, run_block, &b, in, 2)->needs_grad);
    assert_null(g->tape->last);
}

static struct draft_tensor *give_back(struct draft_graph *g, void *context, struct draft_tensor *const *in)
{
    (void)g, (void)context;
    return in[0];
}

static void test_recompute__of_a_block_that_returns_its_input_passes_the_gradient(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = GIVEN(t, 3), *a = draft_axpby(g, 1, x, 0, NULL);
    struct draft_tensor *y = draft_add(g, a, draft_recompute(g, give_back, NULL, &a, 1));
    assert_true(draft_graph_backward(g, y, (float[]){1, 2, 3}));
    for (int i = 0; i < 3; i++)
        assert_true(draft_grad_f32(x)[i] == (float)(2 * (i + 1)));
}

static struct draft_tensor *smuggle(struct draft_graph *g, void *context, struct draft_tensor *const *in)
{
    return draft_add(g, in[0], context);
}

static void test_recompute__refuses_an_activation_that_is_not_among_its_inputs(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *a = draft_axpby(g, 1, GIVEN(t, 3), 0, NULL), *b = draft_axpby(g, 1, GIVEN(t, 3), 0, NULL);
    struct draft_tensor *y = draft_recompute(g, smuggle, b, &a, 1);
    assert_false(draft_graph_backward(g, draft_mean(g, y), NULL));
    assert_int_equal(g->error.code, DRAFT_INTERNAL);
    assert_non_null(strstr(g->error.message, "not among its inputs"));
}

static void test_recompute__has_flat_memory_over_fifty_steps(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 2, 4, 8), *context = GIVEN(t, 2, 4, 8);
    struct block blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++)
        blocks[i] = given_block(t, 8);
    size_t live = draft_arena_live(t->arena);
    struct result first = chain(t, blocks, x, context, true);
    for (int step = 1; step < 50; step++) {
        struct result again = chain(t, blocks, x, context, true);
        assert_same(&again, &first);
        assert_int_equal(again.high, first.high);
        assert_int_equal(draft_arena_live(t->arena), live);
    }
}

static bool no(void *context)
{
    (void)context;
    return false;
}

static void test_recompute__asks_before_it_runs_a_block_again(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct block b = given_block(t, 8);
    struct draft_tensor *in[] = {GIVEN(t, 1, 4, 8), GIVEN(t, 1, 4, 8)};
    struct draft_mark mark = draft_graph_mark(&t->g);
    struct draft_tensor *loss = draft_mean(g, draft_recompute(g, run_block, &b, in, 2));
    g->keep_going = no;
    assert_false(draft_graph_backward(g, loss, NULL));
    assert_int_equal(g->error.code, DRAFT_CANCELLED);
    assert_int_equal(b.runs, 1);
    g->keep_going = NULL;
    draft_graph_reset(g, &mark); /* and the next step is fine */
    assert_true(draft_graph_backward(g, draft_mean(g, draft_recompute(g, run_block, &b, in, 2)), NULL));
}

/* The second run fails where the first did not: the graph fails, nothing is left behind. */
static struct draft_tensor *fail_again(struct draft_graph *g, void *context, struct draft_tensor *const *in)
{
    struct draft_tensor *wrong = context;
    return ++wrong->dim[0] > 3 ? draft_add(g, in[0], wrong) : draft_axpby(g, 2, in[0], 0, NULL);
}

static void test_recompute__passes_on_the_error_of_a_second_run(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = GIVEN(t, 3), *wrong = GIVEN(t, 2);
    struct draft_tensor *y = draft_recompute(g, fail_again, wrong, &x, 1);
    assert_false(draft_graph_backward(g, draft_mean(g, y), NULL));
    assert_string_equal(g->error.message,
                        "recompute backward: add: expected two tensors of one shape, got [3] and [4]");
    draft_graph_reset(g, NULL);
    assert_true(g->recording && g->tape->level == 0 && g->tape->last == NULL);
}

static void test_scope__moves_the_kept_tensor_down_and_forgets_the_rest(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = GIVEN(t, 300, 7);
    g->recording = false;
    struct draft_mark mark = draft_scope_begin(g);
    struct draft_tensor *y = draft_axpby(g, 2, draft_activate(g, x, DRAFT_RELU), 0, NULL);
    y = draft_scope_end(g, mark, draft_reshape(g, y, 2, (int64_t[]){100, 21}));
    assert_true(y->rank == 2 && y->dim[0] == 100 && y->dim[1] == 21);
    assert_true(draft_arena_live(t->arena) < mark.step + 2100 * sizeof(float) + 256);
    for (int i = 0; i < 2100; i++)
        assert_true(draft_f32(y)[i] == 2 * fmaxf(draft_f32(x)[i], 0));
}

static void test_scope__nests_and_keeps_what_is_older_than_itself(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = GIVEN(t, 64);
    g->recording = false;
    struct draft_mark outer = draft_scope_begin(g);
    struct draft_tensor *a = draft_axpby(g, 2, x, 0, NULL);
    struct draft_mark inner = draft_scope_begin(g);
    draft_axpby(g, 5, a, 0, NULL);
    struct draft_tensor *b = draft_scope_end(g, inner, draft_detach(g, a));
    b = draft_scope_end(g, outer, draft_axpby(g, 3, b, 0, NULL));
    for (int i = 0; i < 64; i++)
        assert_true(draft_f32(b)[i] == 3 * (2 * draft_f32(x)[i]));
    struct draft_mark mark = draft_scope_begin(g);
    draft_axpby(g, 1, b, 0, NULL);
    assert_null(draft_scope_end(g, mark, NULL));
    assert_int_equal(draft_arena_live(t->arena), mark.step);
}

static void test_scope__does_nothing_while_recording(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *x = GIVEN(t, 64);
    struct draft_mark mark = draft_scope_begin(g);
    struct draft_tensor *y = draft_activate(g, draft_activate(g, x, DRAFT_SILU), DRAFT_SILU);
    size_t live = draft_arena_live(t->arena);
    assert_ptr_equal(draft_scope_end(g, mark, y), y);
    assert_int_equal(draft_arena_live(t->arena), live);
    assert_true(draft_graph_backward(g, draft_mean(g, y), NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_recompute__equals_the_plain_run_bit_for_bit),
        op_test_case(test_recompute__keeps_the_outputs_only),
        op_test_case(test_recompute__nests),
        op_test_case(test_recompute__trains_parameters_under_inputs_that_need_no_gradient),
        op_test_case(test_recompute__records_its_second_run_also_from_no_gradient_mode),
        op_test_case(test_recompute__records_nothing_when_nothing_is_trained),
        op_test_case(test_recompute__of_a_block_that_returns_its_input_passes_the_gradient),
        op_test_case(test_recompute__refuses_an_activation_that_is_not_among_its_inputs),
        op_test_case(test_recompute__has_flat_memory_over_fifty_steps),
        op_test_case(test_recompute__asks_before_it_runs_a_block_again),
        op_test_case(test_recompute__passes_on_the_error_of_a_second_run),
        op_test_case(test_scope__moves_the_kept_tensor_down_and_forgets_the_rest),
        op_test_case(test_scope__nests_and_keeps_what_is_older_than_itself),
        op_test_case(test_scope__does_nothing_while_recording),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
