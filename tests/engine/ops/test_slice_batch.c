#include "op_case.h"

struct range {
    int64_t first, count;
};

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    const struct range *r = context;
    return draft_slice_batch(g, in[0], r->first, r->count);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    const struct range *r = c->context;
    int64_t row = draft_tensor_count(c->in[0]) / c->in[0]->dim[0];
    for (int64_t i = 0; i < r->count * row; i++)
        y[i] = x[0][r->first * row + i];
}

static void test_slice_batch__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 5, 3, 4);
    check_op(t, &(struct op_case){.in = {x}, .run = run, .twin = twin, .context = &(struct range){1, 3}});
    check_op(t, &(struct op_case){.in = {x}, .run = run, .twin = twin, .context = &(struct range){0, 5}});
    check_op(t, &(struct op_case){.in = {x}, .run = run, .twin = twin, .context = &(struct range){4, 1}});
}

static void test_slice_batch__is_a_view(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 4, 3);
    assert_ptr_equal(draft_slice_batch(&t->g, x, 2, 1)->data, draft_f32(x) + 6);
}

/* guidance: u + s (c - u) of the two halves of one batch */
static struct draft_tensor *guided(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    (void)context;
    int64_t n = in[0]->dim[0] / 2;
    return draft_axpby(g, -2, draft_slice_batch(g, in[0], 0, n), 3, draft_slice_batch(g, in[0], n, n));
}

static void guided_twin(const struct op_case *c, const double *const *x, double *y)
{
    int64_t half = draft_tensor_count(c->in[0]) / 2;
    for (int64_t i = 0; i < half; i++)
        y[i] = -2 * x[0][i] + 3 * x[0][half + i];
}

static void test_slice_batch__puts_the_gradients_of_two_halves_together(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 6, 5)}, .run = guided, .twin = guided_twin});
}

/* overlapping slices: the shared rows get both */
static struct draft_tensor *overlapping(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    (void)context;
    return draft_add(g, draft_slice_batch(g, in[0], 0, 3), draft_slice_batch(g, in[0], 1, 3));
}

static void overlapping_twin(const struct op_case *c, const double *const *x, double *y)
{
    int64_t row = c->in[0]->dim[1];
    for (int64_t i = 0; i < 3 * row; i++)
        y[i] = x[0][i] + x[0][row + i];
}

static void test_slice_batch__adds_where_slices_overlap(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 4, 3)}, .run = overlapping, .twin = overlapping_twin});
}

static void test_slice_batch__refuses_rows_that_are_not_there(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 4, 3);
    assert_refused(t, draft_slice_batch(&t->g, x, 3, 2), "slice_batch", "[4, 3]");
    assert_refused(t, draft_slice_batch(&t->g, x, -1, 2), "slice_batch", "[4, 3]");
    assert_refused(t, draft_slice_batch(&t->g, x, 1, INT64_MAX), "slice_batch", "[4, 3]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_slice_batch__equals_its_double_twin),
        op_test_case(test_slice_batch__is_a_view),
        op_test_case(test_slice_batch__puts_the_gradients_of_two_halves_together),
        op_test_case(test_slice_batch__adds_where_slices_overlap),
        op_test_case(test_slice_batch__refuses_rows_that_are_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
