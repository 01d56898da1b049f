#include "engine/backend/every_backend.h"

static const double BOUND = 2e-6;
static const double BF16_BOUND = 2e-2; /* scores and probabilities with 8 bits */

struct attention_case {
    struct draft_attention_shape shape;
    bool accumulate;
    float *q, *k, *v, *dout;
};

static void run_attention(struct draft_backend *backend, void *context, struct output *out)
{
    struct attention_case *c = context;
    const struct draft_attention_shape *s = &c->shape;
    struct draft_error err = {0};
    float *lse = malloc((size_t)(s->n * s->heads * s->s) * sizeof(float));
    assert_non_null(lse);
    assert_true(draft_cpu_attention(backend, s, c->q, c->k, c->v, out[0].got, lse, &err));
    struct draft_attention_gradients g = {out[1].got,    out[2].got,    out[3].got,
                                          c->accumulate, c->accumulate, c->accumulate};
    assert_true(draft_cpu_attention_backward(backend, s, c->q, c->k, c->v, out[0].got, lse, c->dout, &g, &err));
    /* A gradient that is not wanted must not change the others. */
    int64_t nk = s->n * s->t * s->heads * s->d;
    float *dv = malloc((size_t)nk * sizeof(float));
    assert_non_null(dv);
    struct draft_attention_gradients only = {NULL, NULL, dv, false, false, false};
    assert_true(draft_cpu_attention_backward(backend, s, c->q, c->k, c->v, out[0].got, lse, c->dout, &only, &err));
    if (!c->accumulate)
        assert_memory_equal(dv, out[3].got, (size_t)nk * sizeof(float));
    free(dv);
    free(lse);
}

static void twin(const struct attention_case *c, double *out, double *dq, double *dk, double *dv)
{
    const struct draft_attention_shape *s = &c->shape;
    int64_t step = s->heads * s->d;
    double *p = zeros(s->t), *dp = zeros(s->t);
    for (int64_t b = 0; b < s->n * s->heads; b++)
        for (int64_t i = 0; i < s->s; i++) {
            int64_t column = b % s->heads * s->d, row = (b / s->heads * s->s + i) * step + column;
            int64_t keys = b / s->heads * s->t * step + column, valid = s->causal ? i + 1 : s->t;
            double top = -INFINITY, sum = 0, delta = 0;
            for (int64_t j = 0; j < valid; j++) {
                p[j] = 0;
                for (int64_t x = 0; x < s->d; x++)
                    p[j] += (double)c->q[row + x] * (double)c->k[keys + j * step + x];
                p[j] *= (double)s->scale;
                top = p[j] > top ? p[j] : top;
            }
            for (int64_t j = 0; j < valid; j++)
                sum += p[j] = exp(p[j] - top);
            for (int64_t j = 0; j < valid; j++) {
                p[j] /= sum;
                dp[j] = 0;
                for (int64_t x = 0; x < s->d; x++) {
                    double g = (double)c->dout[row + x], v = (double)c->v[keys + j * step + x];
                    out[row + x] += p[j] * v;
                    dp[j] += g * v;
                    dv[keys + j * step + x] += p[j] * g;
                }
                delta += p[j] * dp[j];
            }
            for (int64_t j = 0; j < valid; j++)
                for (int64_t x = 0; x < s->d; x++) {
                    double ds = p[j] * (dp[j] - delta) * (double)s->scale;
                    dq[row + x] += ds * (double)c->k[keys + j * step + x];
                    dk[keys + j * step + x] += ds * (double)c->q[row + x];
                }
        }
    free(p), free(dp);
}

static void check_attention(struct draft_attention_shape s, double spread, bool accumulate)
{
    struct attention_case c = {.shape = s, .accumulate = accumulate};
    c.shape.scale = (float)(1 / sqrt((double)s.d));
    int64_t nq = s.n * s.s * s.heads * s.d, nk = s.n * s.t * s.heads * s.d;
    c.q = numbers(nq, spread);
    c.k = numbers(nk, 1);
    c.v = numbers(nk, 1);
    c.dout = numbers(nq, 1);
    float *dq0 = numbers(nq, 1), *dk0 = numbers(nk, 1), *dv0 = numbers(nk, 1);
    double *out = zeros(nq), *dq = zeros(nq), *dk = zeros(nk), *dv = zeros(nk);
    twin(&c, out, dq, dk, dv);
    for (int64_t i = 0; i < nq && accumulate; i++)
        dq[i] += (double)dq0[i];
    for (int64_t i = 0; i < nk && accumulate; i++) {
        dk[i] += (double)dk0[i];
        dv[i] += (double)dv0[i];
    }
    struct output outputs[4] = {{"out", nq, out, NULL, NULL},
                                {"dq", nq, dq, accumulate ? dq0 : NULL, NULL},
                                {"dk", nk, dk, accumulate ? dk0 : NULL, NULL},
                                {"dv", nk, dv, accumulate ? dv0 : NULL, NULL}};
    char what[128];
    snprintf(what, sizeof(what), "attention n %ld s %ld t %ld heads %ld d %ld causal %d spread %g", (long)s.n,
             (long)s.s, (long)s.t, (long)s.heads, (long)s.d, s.causal, spread);
    bf16_bound = spread > 1 ? 0.5 : BF16_BOUND; /* a score of 40 is off by 0.1 */
    check_everywhere(what, BOUND, outputs, 4, run_attention, &c);
    free(c.q), free(c.k), free(c.v), free(c.dout), free(dq0), free(dk0), free(dv0), free(out), free(dq), free(dk),
        free(dv);
}

static void test_kernels_attention__all_shapes_match_double(void **state)
{
    (void)state;
    static const struct draft_attention_shape shapes[] = {
        {1, 16, 16, 8, 16, false, 0, 0},   {2, 64, 64, 4, 32, false, 0, 0},   {1, 64, 77, 8, 16, false, 0, 0},
        {1, 257, 257, 2, 64, false, 0, 0}, {3, 1, 1, 1, 1, false, 0, 0},      {1, 5, 300, 3, 7, false, 0, 0},
        {1, 70, 9, 1, 160, false, 0, 0},   {1, 200, 200, 1, 96, false, 0, 0}, {2, 33, 17, 5, 40, false, 0, 0},
        {1, 130, 600, 1, 80, false, 0, 0},
    };
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        check_attention(shapes[i], 1, false);
        check_attention(shapes[i], 1, true);
    }
}

static void test_kernels_attention__a_causal_mask_hides_later_keys(void **state)
{
    (void)state;
    static const struct draft_attention_shape shapes[] = {{2, 77, 77, 4, 32, true, 0, 0},
                                                          {1, 300, 300, 2, 24, true, 0, 0},
                                                          {1, 530, 530, 1, 16, true, 0, 0},
                                                          {1, 1, 1, 2, 8, true, 0, 0},
                                                          {1, 65, 65, 1, 20, true, 0, 0}};
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        check_attention(shapes[i], 1, false);
}

static void test_kernels_attention__peaked_scores_stay_exact(void **state)
{
    (void)state;
    /* Scores of +-40: nearly one-hot rows, the running maximum moves from block to block. float's rounding of such
     * scores alone is 1e-6. */
    check_attention((struct draft_attention_shape){1, 40, 700, 2, 16, false, 0, 0}, 10, false);
}

static void test_kernels_attention__a_nan_reaches_the_output(void **state)
{
    (void)state;
    for (int i = 0; i < ISAS; i++) {
        if (!backends[i][0])
            continue;
        struct draft_attention_shape s = {1, 4, 20, 1, 8, false, 1, 0};
        float q[32], k[160], v[160], out[32];
        for (int j = 0; j < 160; j++)
            k[j] = v[j] = 0.5f;
        for (int j = 0; j < 32; j++)
            q[j] = 0.25f;
        q[9] = NAN;
        struct draft_error err = {0};
        assert_true(draft_cpu_attention(backends[i][0], &s, q, k, v, out, NULL, &err));
        assert_true(isnan(out[8]) && isfinite(out[0]) && isfinite(out[16]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels_attention__all_shapes_match_double),
        cmocka_unit_test(test_kernels_attention__a_causal_mask_hides_later_keys),
        cmocka_unit_test(test_kernels_attention__peaked_scores_stay_exact),
        cmocka_unit_test(test_kernels_attention__a_nan_reaches_the_output),
    };
    return cmocka_run_group_tests(tests, create_backends, destroy_backends);
}
