#include "op_case.h"

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    const int64_t *size = context;
    return draft_upsample_nearest(g, in[0], size[0], size[1]);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    const int64_t *size = c->context, *d = c->in[0]->dim;
    for (int64_t i = 0; i < d[0] * size[0] * size[1] * d[3]; i++) {
        int64_t k = i % d[3], column = i / d[3] % size[1], row = i / d[3] / size[1] % size[0];
        int64_t n = i / d[3] / size[1] / size[0];
        y[i] = x[0][((n * d[1] + row * d[1] / size[0]) * d[2] + column * d[2] / size[1]) * d[3] + k];
    }
}

static void test_upsample_nearest__doubles(void **state)
{
    struct op_test *t = *state;
    check_op(t,
             &(struct op_case){.in = {GIVEN(t, 2, 3, 5, 4)}, .run = run, .twin = twin, .context = (int64_t[]){6, 10}});
}

static void test_upsample_nearest__goes_to_any_size(void **state)
{
    struct op_test *t = *state;
    check_op(t,
             &(struct op_case){.in = {GIVEN(t, 1, 3, 4, 2)}, .run = run, .twin = twin, .context = (int64_t[]){7, 9}});
    check_op(t,
             &(struct op_case){.in = {GIVEN(t, 1, 5, 6, 1)}, .run = run, .twin = twin, .context = (int64_t[]){3, 4}});
}

static void test_upsample_nearest__refuses_an_empty_size(void **state)
{
    struct op_test *t = *state;
    assert_refused(t, draft_upsample_nearest(&t->g, GIVEN(t, 1, 2, 2, 3), 0, 4), "upsample_nearest", "[1, 2, 2, 3]");
    assert_refused(t, draft_upsample_nearest(&t->g, GIVEN(t, 4, 3), 4, 4), "upsample_nearest", "[4, 3]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_upsample_nearest__doubles),
        op_test_case(test_upsample_nearest__goes_to_any_size),
        op_test_case(test_upsample_nearest__refuses_an_empty_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
