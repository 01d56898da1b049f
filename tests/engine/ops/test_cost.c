/*
 * What a profile says of an op (ops/cost.h) against what one counts by hand from its shapes; and, over the CUDA fakes,
 * its launches against what the runtime below saw.
 */
#include "op_case.h"

#include "autograd/profile.h"
#include "engine/backend/cuda/fake_counts.h"
#include "ops/ops.h"

struct counted {
    double flops, numbers; /* numbers of four bytes that are read or written */
};

struct cost_case {
    const char *op;
    struct draft_tensor *(*run)(struct draft_graph *g, struct draft_tensor *const *in);
    int inputs;
    int64_t dim[3][DRAFT_MAX_RANK + 1]; /* ended by 0 */
    unsigned trained;                   /* bit i: in[i] wants a gradient */
    struct counted forward, backward;
};

static struct draft_tensor *linear(struct draft_graph *g, struct draft_tensor *const *in)
{
    return draft_linear(g, in[0], in[1], in[2], NULL);
}

static struct draft_tensor *conv2d(struct draft_graph *g, struct draft_tensor *const *in)
{
    return draft_conv2d(g, in[0], in[1], in[2], &(struct draft_conv2d_args){1, 1, 1, 1, 1});
}

static struct draft_tensor *strided(struct draft_graph *g, struct draft_tensor *const *in)
{
    return draft_conv2d(g, in[0], in[1], in[2], &(struct draft_conv2d_args){2, 1, 1, 1, 1});
}

static struct draft_tensor *attention(struct draft_graph *g, struct draft_tensor *const *in)
{
    return draft_attention(g, in[0], in[1], in[2], 3, false);
}

static struct draft_tensor *group_norm(struct draft_graph *g, struct draft_tensor *const *in)
{
    return draft_group_norm(g, in[0], in[1], in[2], 4, 1e-5f, false);
}

static struct draft_tensor *add(struct draft_graph *g, struct draft_tensor *const *in)
{
    return draft_add(g, in[0], in[1]);
}

static const struct cost_case CASES[] = {
    /* y [3, 7] = x [3, 5] W^T [5, 7] + b; dx = dy W */
    {"linear", linear, 3, {{3, 5}, {7, 5}, {7}}, 1, {2 * 3 * 5 * 7, 15 + 35 + 7 + 21}, {2 * 3 * 5 * 7, 21 + 35 + 15}},
    /* and dW = dy^T x */
    {"linear",
     linear,
     3,
     {{3, 5}, {7, 5}, {7}},
     3,
     {2 * 3 * 5 * 7, 15 + 35 + 7 + 21},
     {2 * 2 * 3 * 5 * 7, 21 + 35 + 15 + 15 + 35}},
    /* each of the 6 x 5 x 4 outputs sums 3 x 3 x 2 products */
    {"conv2d",
     conv2d,
     3,
     {{1, 6, 5, 2}, {4, 3, 3, 2}, {4}},
     1,
     {2 * 120 * 18, 60 + 72 + 4 + 120},
     {2 * 120 * 18, 120 + 72 + 60}},
    {"conv2d",
     strided,
     3,
     {{1, 6, 5, 2}, {4, 3, 3, 2}, {4}},
     3,
     {2 * 36 * 18, 60 + 72 + 4 + 36},
     {2 * 2 * 36 * 18, 36 + 72 + 60 + 60 + 72}},
    /* 2 pictures, 3 heads of 8: q k^T and P v; backward q k^T once more, dP, dv, dq and dk */
    {"attention",
     attention,
     3,
     {{2, 4, 24}, {2, 6, 24}, {2, 6, 24}},
     7,
     {2 * (2.0 * 2 * 3 * 4 * 6 * 8), 192 + 288 + 288 + 192},
     {5 * (2.0 * 2 * 3 * 4 * 6 * 8), 192 + 192 + 192 + 288 + 288 + 192 + 288 + 288}},
    {"group_norm",
     group_norm,
     3,
     {{2, 6, 5, 8}, {8}, {8}},
     1,
     {8 * 480, 480 + 8 + 8 + 480},
     {16 * 480, 480 + 480 + 8 + 8 + 480}},
    /* what is added needs not be known for the gradient */
    {"add", add, 2, {{4, 4}, {4, 4}}, 3, {2 * 16, 3 * 16}, {2 * 16, 3 * 16}},
};

static int64_t launched(struct op_test *t)
{
    return draft_backend_on_host(t->backend) ? 0 : fake_counts()->launches;
}

static struct draft_profile_row row_of(struct op_test *t, const char *op, bool backward)
{
    const struct draft_profile_row *rows;
    struct draft_error err = {0};
    int count;
    assert_true(draft_profile_rows(t->g.profile, &rows, &count, &err));
    for (int i = 0; i < count; i++)
        if (strncmp(rows[i].what, op, strlen(op)) == 0 && rows[i].backward == backward)
            return rows[i];
    fail_msg("no row of %s", op);
    return rows[0];
}

static void assert_counted(const char *op, const struct draft_profile_row *row, struct counted expected)
{
    if (row->calls != 1 || row->flops != expected.flops || row->bytes != 4 * expected.numbers)
        fail_msg("%s %s: %.17g FLOPs and %.17g bytes in %d calls, by hand %.17g and %.17g", op,
                 row->backward ? "backward" : "forward", row->flops, row->bytes, (int)row->calls, expected.flops,
                 4 * expected.numbers);
}

static void check_case(struct op_test *t, const struct cost_case *c)
{
    struct draft_tensor *in[3] = {NULL};
    draft_graph_reset(&t->g, NULL);
    for (int i = 0; i < c->inputs; i++) {
        int rank = 0;
        while (c->dim[i][rank] != 0)
            rank++;
        in[i] = given(t, rank, c->dim[i]);
        in[i]->needs_grad = c->trained >> i & 1;
    }
    for (int warm = 1; warm >= 0; warm--) { /* what a first use sends to a device is not the op's */
        draft_profile_clear(t->g.profile);
        uint64_t all = draft_backend_launches(t->backend);
        int64_t before = launched(t), start = before;
        struct draft_tensor *y = c->run(&t->g, in);
        assert_ok(t);
        int64_t forward = launched(t) - before;
        struct draft_tensor *mean = draft_mean(&t->g, y);
        assert_true(draft_graph_backward(&t->g, mean, NULL));
        if (warm)
            continue;
        struct draft_profile_row there = row_of(t, c->op, false), back = row_of(t, c->op, true);
        assert_counted(c->op, &there, c->forward);
        assert_counted(c->op, &back, c->backward);
        assert_int_equal(there.launches, forward);
        assert_int_equal(draft_backend_launches(t->backend) - all, launched(t) - start);
        assert_true((back.launches > 0) == !draft_backend_on_host(t->backend));
    }
}

/* Layers that are one op without gradient: q, k and v of x [3, 5], each [7, 5] with an adapter of rank 2; and what a
 * row [1, 5] gives to layers of 7 and 3. */
static void check_groups(struct op_test *t)
{
    static const float scale = 1;
    static const bool on = true;
    struct draft_tensor *y[3], *x = GIVEN(t, 3, 5), *row = GIVEN(t, 1, 5);
    struct draft_lora lora[3];
    struct draft_projection same[3];
    for (int i = 0; i < 3; i++) {
        lora[i] = (struct draft_lora){GIVEN(t, 2, 5), GIVEN(t, 7, 2), &scale, &on};
        same[i] = (struct draft_projection){GIVEN(t, 7, 5), &lora[i]};
    }
    const struct draft_row_layer any[] = {{GIVEN(t, 7, 5), GIVEN(t, 7), GIVEN(t, 7)},
                                          {GIVEN(t, 3, 5), GIVEN(t, 3), GIVEN(t, 3)}};
    draft_no_grad(&t->g);
    for (int warm = 1; warm >= 0; warm--) {
        draft_profile_clear(t->g.profile);
        int64_t before = launched(t);
        draft_linears(&t->g, x, same, 3, y);
        draft_row_linears(&t->g, row, any, 2, y);
        assert_ok(t);
        if (warm)
            continue;
        struct draft_profile_row of_three = row_of(t, "linears", false), of_two = row_of(t, "row_linears", false);
        assert_counted("linears", &of_three,
                       (struct counted){3 * 2 * (3 * 5 * 7 + 3 * 5 * 2 + 3 * 2 * 7), 15 + 3 * (35 + 10 + 14 + 21)});
        /* results begin at multiples of eight numbers */
        assert_counted("row_linears", &of_two,
                       (struct counted){2 * 5 * (7 + 3), 5 + 5 * (7 + 3) + 2 * (7 + 3) + 8 + 8});
        assert_int_equal(of_three.launches + of_two.launches, launched(t) - before);
    }
    t->g.recording = true;
}

static void test_cost__is_what_one_counts_by_hand(void **state)
{
    struct op_test *t = *state;
    struct draft_error err = {0};
    struct draft_profile *profile = draft_profile_create(t->backend, &err);
    assert_non_null(profile);
    t->g.profile = profile;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        check_case(t, &CASES[i]);
    draft_graph_reset(&t->g, NULL);
    check_groups(t);
    t->g.profile = NULL;
    draft_profile_destroy(profile);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cost__is_what_one_counts_by_hand)};
    return cmocka_run_group_tests(tests, op_setup, op_teardown);
}
