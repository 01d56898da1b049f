#include "op_case.h"

#include "tensor/safetensors.h"

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    const int64_t *size = context;
    return draft_resize_bicubic(g, in[0], size[0], size[1]);
}

static double cubic(double x)
{
    x = fabs(x);
    return x < 1 ? 1.5 * x * x * x - 2.5 * x * x + 1 : x < 2 ? -0.5 * x * x * x + 2.5 * x * x - 4 * x + 2 : 0;
}

/* Every source pixel's weight, zero or not, in both directions at once. */
static double weight(int64_t i, int64_t j, int64_t in, int64_t out)
{
    double scale = (double)in / (double)out, stretch = fmax(scale, 1), sum = 0, center = scale * ((double)i + 0.5);
    for (int64_t k = 0; k < in; k++)
        sum += cubic(((double)k + 0.5 - center) / stretch);
    return cubic(((double)j + 0.5 - center) / stretch) / sum;
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    const int64_t *size = c->context, *d = c->in[0]->dim;
    for (int64_t i = 0; i < d[0] * size[0] * size[1] * d[3]; i++) {
        int64_t k = i % d[3], column = i / d[3] % size[1], row = i / d[3] / size[1] % size[0];
        int64_t n = i / d[3] / size[1] / size[0];
        y[i] = 0;
        for (int64_t p = 0; p < d[1]; p++)
            for (int64_t q = 0; q < d[2]; q++)
                y[i] += weight(row, p, d[1], size[0]) * weight(column, q, d[2], size[1]) *
                        x[0][((n * d[1] + p) * d[2] + q) * d[3] + k];
    }
}

static void test_resize_bicubic__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    check_op(t,
             &(struct op_case){.in = {GIVEN(t, 2, 5, 7, 3)}, .run = run, .twin = twin, .context = (int64_t[]){3, 4}});
    check_op(t,
             &(struct op_case){.in = {GIVEN(t, 1, 4, 3, 1)}, .run = run, .twin = twin, .context = (int64_t[]){7, 9}});
    check_op(t,
             &(struct op_case){.in = {GIVEN(t, 1, 9, 4, 2)}, .run = run, .twin = twin, .context = (int64_t[]){2, 6}});
    check_op(t,
             &(struct op_case){.in = {GIVEN(t, 1, 1, 1, 1)}, .run = run, .twin = twin, .context = (int64_t[]){2, 1}});
}

static void test_resize_bicubic__of_equal_size_changes_nothing(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *x = GIVEN(t, 1, 6, 5, 3), *y = draft_resize_bicubic(&t->g, x, 6, 5);
    assert_memory_equal(x->data, y->data, (size_t)draft_tensor_count(x) * sizeof(float));
}

/* A tensor [1, c, h, w] of the fixture as [1, h, w, c]. */
static struct draft_tensor *from_fixture(struct op_test *t, const struct draft_safetensors *file, const char *which,
                                         int number)
{
    char name[32];
    struct draft_error err = {0};
    snprintf(name, sizeof name, "%d/%s", number, which);
    const struct draft_safetensors_entry *entry = draft_safetensors_find(file, name);
    if (entry == NULL)
        return NULL;
    int64_t c = entry->dim[1], pixels = entry->dim[2] * entry->dim[3];
    struct draft_tensor *planes = draft_new(&t->g, DRAFT_F32, 4, entry->dim);
    struct draft_tensor *x =
        draft_new(&t->g, DRAFT_F32, 4, (int64_t[]){entry->dim[0], entry->dim[2], entry->dim[3], c});
    assert_int_equal(entry->dim[0], 1);
    assert_true(draft_safetensors_to_f32(entry, draft_f32(planes), &err));
    for (int64_t i = 0; i < pixels * c; i++)
        draft_f32(x)[i] = draft_f32(planes)[i % c * pixels + i / c];
    return x;
}

static double relative_error(const float *got, const float *expected, int64_t n)
{
    double difference = 0, reference = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += pow((double)got[i] - (double)expected[i], 2);
        reference += pow((double)expected[i], 2);
    }
    return sqrt(difference / reference);
}

static void test_resize_bicubic__equals_pytorch_forward_and_backward(void **state)
{
    struct op_test *t = *state;
    struct draft_error err = {0};
    struct draft_safetensors *file =
        draft_safetensors_open(FIXTURES "/golden/resize_bicubic_antialias.safetensors", &err);
    assert_non_null(file);
    int cases = 0;
    for (struct draft_tensor *x; (x = from_fixture(t, file, "input", cases)) != NULL; cases++) {
        struct draft_tensor *y = from_fixture(t, file, "output", cases), *dy = from_fixture(t, file, "d_output", cases);
        struct draft_tensor *dx = from_fixture(t, file, "d_input", cases);
        x->needs_grad = true;
        struct draft_tensor *got = draft_resize_bicubic(&t->g, x, y->dim[1], y->dim[2]);
        assert_true(draft_graph_backward(&t->g, got, draft_f32(dy)));
        double forward = relative_error(draft_f32(got), draft_f32(y), draft_tensor_count(y));
        double backward = relative_error(x->grad, draft_f32(dx), draft_tensor_count(dx));
        print_message("case %d: forward %.2g, gradient %.2g\n", cases, forward, backward);
        assert_true(forward <= 1e-6);
        assert_true(backward <= 1e-6);
    }
    assert_int_equal(cases, 5);
    draft_safetensors_close(file);
}

static void test_resize_bicubic__refuses_an_empty_size(void **state)
{
    struct op_test *t = *state;
    assert_refused(t, draft_resize_bicubic(&t->g, GIVEN(t, 1, 4, 4, 3), 0, 4), "resize_bicubic", "[1, 4, 4, 3]");
    assert_refused(t, draft_resize_bicubic(&t->g, GIVEN(t, 4, 4), 2, 2), "resize_bicubic", "[4, 4]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_resize_bicubic__equals_its_double_twin),
        op_test_case(test_resize_bicubic__of_equal_size_changes_nothing),
        op_test_case(test_resize_bicubic__equals_pytorch_forward_and_backward),
        op_test_case(test_resize_bicubic__refuses_an_empty_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
