#include "op_case.h"

enum { Q, K, V };

struct settings {
    int heads;
    bool causal;
    const float *lengths; /* of the keys that take part, NULL: all */
};

static struct draft_tensor *run(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    const struct settings *s = context;
    if (!s->lengths)
        return draft_attention(g, in[Q], in[K], in[V], s->heads, s->causal);
    struct draft_tensor *lengths = draft_new(g, DRAFT_F32, 1, in[Q]->dim);
    float *values = draft_write(g, lengths);
    memcpy(values, s->lengths, (size_t)in[Q]->dim[0] * sizeof *values);
    assert_true(draft_written(g, lengths, values));
    return draft_attention_padded(g, in[Q], in[K], in[V], lengths, s->heads);
}

static void twin(const struct op_case *c, const double *const *x, double *y)
{
    const struct settings *a = c->context;
    int64_t n = c->in[Q]->dim[0], s = c->in[Q]->dim[1], t = c->in[K]->dim[1], width = c->in[Q]->dim[2];
    int64_t d = width / a->heads;
    double p[128];
    for (int64_t r = 0; r < n * a->heads * s; r++) {
        int64_t i = r % s, head = r / s % a->heads, b = r / s / a->heads,
                end = a->causal    ? i + 1
                      : a->lengths ? (int64_t)a->lengths[b]
                                   : t;
        const double *q = x[Q] + (b * s + i) * width + head * d;
        double sum = 0, *out = y + (b * s + i) * width + head * d;
        for (int64_t j = 0; j < end; j++) {
            double dot = 0;
            for (int64_t k = 0; k < d; k++)
                dot += q[k] * x[K][(b * t + j) * width + head * d + k];
            sum += p[j] = exp(dot / sqrt((double)d));
        }
        for (int64_t k = 0; k < d; k++) {
            out[k] = 0;
            for (int64_t j = 0; j < end; j++)
                out[k] += p[j] / sum * x[V][(b * t + j) * width + head * d + k];
        }
    }
}

static void test_attention__equals_its_double_twin(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 2, 9, 10), GIVEN(t, 2, 9, 10), GIVEN(t, 2, 9, 10)},
                                  .run = run,
                                  .twin = twin,
                                  .context = &(struct settings){.heads = 2}});
}

static void test_attention__reads_a_context_of_another_length(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 1, 6, 24), GIVEN(t, 1, 11, 24), GIVEN(t, 1, 11, 24)},
                                  .run = run,
                                  .twin = twin,
                                  .context = &(struct settings){.heads = 3}});
    check_op(t, &(struct op_case){.in = {GIVEN(t, 1, 1, 5), GIVEN(t, 1, 1, 5), GIVEN(t, 1, 1, 5)},
                                  .run = run,
                                  .twin = twin,
                                  .context = &(struct settings){.heads = 1}});
}

static void test_attention__causal_sees_no_later_position(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 2, 13, 8), GIVEN(t, 2, 13, 8), GIVEN(t, 2, 13, 8)},
                                  .run = run,
                                  .twin = twin,
                                  .context = &(struct settings){.heads = 2, .causal = true}});
}

static void test_attention__sees_no_padding_and_gives_it_a_gradient_of_zero(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 3, 4, 8), GIVEN(t, 3, 7, 8), GIVEN(t, 3, 7, 8)},
                                  .run = run,
                                  .twin = twin,
                                  .context = &(struct settings){.heads = 2, .lengths = (const float[]){7, 1, 5}}});
    check_op(t, &(struct op_case){.in = {GIVEN(t, 2, 8, 8), GIVEN(t, 2, 8, 8), GIVEN(t, 2, 8, 8)},
                                  .run = run,
                                  .twin = twin,
                                  .context = &(struct settings){.heads = 1, .lengths = (const float[]){3, 8}}});
}

static void test_attention__crosses_the_borders_of_its_tiles(void **state)
{
    struct op_test *t = *state;
    struct draft_tensor *q = GIVEN(t, 1, 69, 4), *k = GIVEN(t, 1, 69, 4), *v = GIVEN(t, 1, 69, 4);
    for (int causal = 0; causal < 2; causal++)
        check_op(t, &(struct op_case){.in = {q, k, v},
                                      .run = run,
                                      .twin = twin,
                                      .context = &(struct settings){.heads = 1, .causal = causal}});
}

/* one tensor in all three places: its three gradients must add up */
static struct draft_tensor *run_self(struct draft_graph *g, struct draft_tensor *const *in, const void *context)
{
    const struct settings *s = context;
    return draft_attention(g, in[0], in[0], in[0], s->heads, s->causal);
}

static void twin_self(const struct op_case *c, const double *const *x, double *y)
{
    struct op_case three = *c;
    three.in[K] = three.in[V] = c->in[0];
    twin(&three, (const double *const[]){x[0], x[0], x[0]}, y);
}

static void test_attention__adds_the_gradients_of_a_tensor_given_three_times(void **state)
{
    struct op_test *t = *state;
    check_op(t, &(struct op_case){.in = {GIVEN(t, 1, 7, 6)},
                                  .run = run_self,
                                  .twin = twin_self,
                                  .context = &(struct settings){.heads = 2}});
}

static void test_attention__refuses_shapes_that_do_not_fit(void **state)
{
    struct op_test *t = *state;
    struct draft_graph *g = &t->g;
    struct draft_tensor *q = GIVEN(t, 1, 4, 6), *k = GIVEN(t, 1, 5, 6), *v = GIVEN(t, 1, 5, 6);
    assert_refused(t, draft_attention(g, q, k, v, 4, false), "attention", "4 heads");
    assert_refused(t, draft_attention(g, q, k, v, 2, true), "attention", "[1, 4, 6], [1, 5, 6]");
    assert_refused(t, draft_attention(g, q, k, GIVEN(t, 1, 5, 8), 2, false), "attention", "and [1, 5, 8]");
    struct draft_tensor *lengths = GIVEN(t, 2);
    assert_refused(t, draft_attention_padded(g, q, k, v, lengths, 2), "attention", "lengths [n]");
    assert_refused(t, draft_attention(g, q, GIVEN(t, 2, 5, 6), GIVEN(t, 2, 5, 6), 2, false), "attention", "[2, 5, 6]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        op_test_case(test_attention__equals_its_double_twin),
        op_test_case(test_attention__reads_a_context_of_another_length),
        op_test_case(test_attention__causal_sees_no_later_position),
        op_test_case(test_attention__sees_no_padding_and_gives_it_a_gradient_of_zero),
        op_test_case(test_attention__crosses_the_borders_of_its_tiles),
        op_test_case(test_attention__adds_the_gradients_of_a_tensor_given_three_times),
        op_test_case(test_attention__refuses_shapes_that_do_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
