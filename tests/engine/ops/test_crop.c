#include "op_case.h"

struct window {
    int64_t top, left, height, width;
};

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    const struct window *w = context;
    return draft_crop(g, in[0], w->top, w->left, w->height, w->width);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    const struct window *w = c->context;
    const int64_t *d = c->in[0]->dim;
    for (int64_t i = 0; i < d[0] * w->height * w->width * d[3]; i++) {
        int64_t k = i % d[3], column = i / d[3] % w->width, row = i / d[3] / w->width % w->height;
        int64_t n = i / d[3] / w->width / w->height;
        y[i] = x[0][((n * d[1] + w->top + row) * d[2] + w->left + column) * d[3] + k];
    }
}

static void test_crop__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 2, 5, 7, 3);
    check_op(t, &(struct op_case){.in = {x}, .run = run, .twin = twin, .context = &(struct window){1, 2, 3, 4}});
    check_op(t, &(struct op_case){.in = {x}, .run = run, .twin = twin, .context = &(struct window){0, 0, 5, 7}});
    check_op(t, &(struct op_case){.in = {x}, .run = run, .twin = twin, .context = &(struct window){4, 6, 1, 1}});
}

static void test_crop__refuses_a_window_that_sticks_out(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 1, 4, 6, 3);
    assert_refused(t, draft_crop(&t->g, x, 1, 0, 4, 4), "crop", "4 x 4 at (1, 0), got [1, 4, 6, 3]");
    assert_refused(t, draft_crop(&t->g, x, 0, 3, 4, 4), "crop", "[1, 4, 6, 3]");
    assert_refused(t, draft_crop(&t->g, x, -1, 0, 2, 2), "crop", "[1, 4, 6, 3]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_crop__equals_its_double_twin),
        op_test_case(test_crop__refuses_a_window_that_sticks_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
