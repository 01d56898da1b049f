/* Softmax and its gradient with the products around them done here, against the CPU engine's attention. */
#include "engine/backend/cuda/cpu_reference.h"

struct attention {
    const char *name;
    int64_t n, s, t, heads, d;
    bool causal;
    double scale; /* of q and k: large ones make a row of scores large */
    float length; /* keys that take part; 0: all */
};

static struct draft_tensor *attention(struct draft_graph *g, struct draft_tensor **in, const void *context)
{
    const struct attention *a = context;
    struct draft_tensor *lengths = a->length > 0 ? draft_new(g, DRAFT_F32, 1, &a->n) : NULL;
    for (int64_t i = 0; lengths && i < a->n; i++)
        draft_f32(lengths)[i] = a->length;
    return lengths ? draft_attention_padded(g, in[0], in[1], in[2], lengths, (int)a->heads)
                   : draft_attention(g, in[0], in[1], in[2], (int)a->heads, a->causal);
}

/* Element of head h in [n, length, heads * d]. */
static int64_t place(const struct attention *a, int64_t length, int64_t n, int64_t i, int64_t h, int64_t k)
{
    return ((n * length + i) * a->heads + h) * a->d + k;
}

/* out[matrix, i, j] = sum over k of x's row i and y's row j */
static float *products(const struct attention *a, const float *x, const float *y)
{
    float *out = memory((size_t)(a->n * a->heads * a->s * a->t) * sizeof *out);
    for (int64_t m = 0; m < a->n * a->heads; m++)
        for (int64_t i = 0; i < a->s; i++)
            for (int64_t j = 0; j < a->t; j++) {
                double sum = 0;
                for (int64_t k = 0; k < a->d; k++)
                    sum += (double)x[place(a, a->s, m / a->heads, i, m % a->heads, k)] *
                           (double)y[place(a, a->t, m / a->heads, j, m % a->heads, k)];
                out[(m * a->s + i) * a->t + j] = (float)sum;
            }
    return out;
}

/* out's row i = sum over j of p[matrix, i, j] v's row j; transposed: out's row j = sum over i of p x's row i. */
static float *applied(const struct attention *a, enum draft_dtype type, const void *p, const float *v, bool transposed)
{
    int64_t to = transposed ? a->t : a->s, from = transposed ? a->s : a->t;
    float *out = memory((size_t)(a->n * to * a->heads * a->d) * sizeof *out);
    for (int64_t m = 0; m < a->n * a->heads; m++)
        for (int64_t i = 0; i < to; i++)
            for (int64_t k = 0; k < a->d; k++) {
                double sum = 0;
                for (int64_t j = 0; j < from; j++)
                    sum += (double)at(type, p, (m * a->s + (transposed ? j : i)) * a->t + (transposed ? i : j)) *
                           (double)v[place(a, from, m / a->heads, j, m % a->heads, k)];
                out[place(a, to, m / a->heads, i, m % a->heads, k)] = (float)sum;
            }
    return out;
}

static void run_attention(enum draft_dtype type, const void *context)
{
    const struct attention *a = context;
    const int64_t c = a->heads * a->d, queries = a->n * a->s * c, keys = a->n * a->t * c;
    const int64_t matrices = a->n * a->heads, scores = matrices * a->s * a->t;
    const float scale = (float)(1 / sqrt((double)a->d));
    float *q = numbers(type, queries, a->scale, 0), *k = numbers(type, keys, a->scale, 0),
          *v = numbers(type, keys, 1, 0);
    float *dy = numbers(type, queries, 1, 0);
    struct draft_tensor in[] = {input(DRAFT_F32, 3, (int64_t[]){a->n, a->s, c}, q),
                                input(DRAFT_F32, 3, (int64_t[]){a->n, a->t, c}, k),
                                input(DRAFT_F32, 3, (int64_t[]){a->n, a->t, c}, v)};
    struct cpu_result want = on_cpu(attention, a, in, 3, dy);

    float *length = a->length > 0 ? memory(sizeof *length) : NULL;
    if (length)
        *length = a->length;
    float *qk = products(a, q, k), *dp = products(a, dy, v);
    void *p = device(type, scores, NULL), *ds = device(type, scores, dp), *same = device(type, scores, qk);
    draft_cuda_softmax(NULL, DRAFT_F32, type, matrices, a->s, a->t, a->causal, length, scale, qk, p);
    check("y", DRAFT_F32, queries, applied(a, type, p, v, false), want.y, BOUND[type]);
    check("dv", DRAFT_F32, keys, applied(a, type, p, dy, true), want.gradient[2], BOUND[type]);
    draft_cuda_softmax_backward(NULL, type, type, matrices * a->s, a->t, scale, p, ds, ds); /* in place */
    check("dq", DRAFT_F32, queries, applied(a, type, ds, k, false), want.gradient[0], BOUND[type]);
    check("dk", DRAFT_F32, keys, applied(a, type, ds, q, true), want.gradient[1], BOUND[type]);
    draft_cuda_softmax(NULL, type, type, matrices, a->s, a->t, a->causal, length, scale, same, same); /* in place */
    check("in place", DRAFT_F32, queries, applied(a, type, same, v, false), want.y, BOUND[type]);
}

static void test_cuda_attention__softmax_and_its_gradient(void **state)
{
    (void)state;
    static const struct attention cases[] = {
        {"self", 2, 16, 16, 2, 8, .causal = false, .scale = 1},
        {"cross, odd", 1, 9, 77, 3, 5, .causal = false, .scale = 1},
        {"causal", 1, 13, 13, 2, 4, .causal = true, .scale = 1},
        {"causal, whole vectors", 2, 8, 8, 1, 4, .causal = true, .scale = 1},
        {"padding", 2, 5, 12, 2, 4, .scale = 1, .length = 7},
        {"padding, odd", 1, 4, 9, 1, 4, .scale = 1, .length = 1},
        {"long rows", 1, 2, 2100, 1, 4, .causal = false, .scale = 1},
        {"one key", 1, 3, 1, 1, 4, .causal = false, .scale = 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        in_every_way(cases[i].name, run_attention, &cases[i]);
}

/* Scores in the hundreds: exp would overflow without the row's maximum. Not in bf16: dp - sum p dp is then a difference
 * of numbers that are nearly equal. */
static void test_cuda_attention__large_scores(void **state)
{
    (void)state;
    static const struct attention large = {"large scores", 1, 4, 12, 1, 4, .causal = false, .scale = 15};
    in_every_order(large.name, DRAFT_F32, run_attention, &large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cuda_attention__softmax_and_its_gradient),
                                       cmocka_unit_test(test_cuda_attention__large_scores)};
    return cmocka_run_group_tests(tests, open_cpu, close_cpu);
}
