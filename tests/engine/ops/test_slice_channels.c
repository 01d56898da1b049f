#include "op_case.h"

struct range {
    int64_t first, count;
};

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    const struct range *r = context;
    return draft_slice_channels(g, in[0], r->first, r->count);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    const struct range *r = c->context;
    int64_t n = draft_last(c->in[0]);
    for (int64_t i = 0; i < draft_rows(c->in[0]) * r->count; i++)
        y[i] = x[0][i / r->count * n + r->first + i % r->count];
}

static void test_slice_channels__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 2, 3, 5, 8);
    check_op(t, &(struct op_case){.in = {x}, .run = run, .twin = twin, .context = &(struct range){0, 4}});
    check_op(t, &(struct op_case){.in = {x}, .run = run, .twin = twin, .context = &(struct range){3, 5}});
    check_op(t, &(struct op_case){.in = {x}, .run = run, .twin = twin, .context = &(struct range){7, 1}});
}

static void test_slice_channels__refuses_channels_that_are_not_there(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 4, 3);
    assert_refused(t, draft_slice_channels(&t->g, x, 2, 2), "slice_channels", "[4, 3]");
    assert_refused(t, draft_slice_channels(&t->g, x, -1, 1), "slice_channels", "[4, 3]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_slice_channels__equals_its_double_twin),
        op_test_case(test_slice_channels__refuses_channels_that_are_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
