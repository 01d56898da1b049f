#include "op_case.h"

struct window {
    int64_t top, left, height, width; /* the place of x in the whole, and the whole */
};

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    const struct window *w = context;
    return draft_pad(g, in[0], w->top, w->left, w->height, w->width);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    const struct window *w = c->context;
    const int64_t *d = c->in[0]->dim;
    for (int64_t i = 0; i < d[0] * w->height * w->width * d[3]; i++) {
        int64_t k = i % d[3], column = i / d[3] % w->width - w->left, row = i / d[3] / w->width % w->height - w->top;
        int64_t n = i / d[3] / w->width / w->height;
        bool inside = row >= 0 && row < d[1] && column >= 0 && column < d[2];
        y[i] = inside ? x[0][((n * d[1] + row) * d[2] + column) * d[3] + k] : 0;
    }
}

static void test_pad__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 2, 3, 4, 3);
    check_op(t, &(struct op_case){.in = {x}, .run = run, .twin = twin, .context = &(struct window){1, 2, 5, 7}});
    check_op(t, &(struct op_case){.in = {x}, .run = run, .twin = twin, .context = &(struct window){0, 0, 3, 4}});
    check_op(t, &(struct op_case){.in = {x}, .run = run, .twin = twin, .context = &(struct window){4, 0, 7, 4}});
}

static void test_pad__refuses_what_does_not_fit(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 1, 4, 6, 3);
    assert_refused(t, draft_pad(&t->g, x, 1, 0, 4, 6), "pad", "4 x 6 at (1, 0), got [1, 4, 6, 3]");
    assert_refused(t, draft_pad(&t->g, x, 0, 3, 4, 8), "pad", "[1, 4, 6, 3]");
    assert_refused(t, draft_pad(&t->g, x, -1, 0, 5, 6), "pad", "[1, 4, 6, 3]");
    assert_refused(t, draft_pad(&t->g, x, 0, 0, 3, 6), "pad", "[1, 4, 6, 3]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_pad__equals_its_double_twin),
        op_test_case(test_pad__refuses_what_does_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
