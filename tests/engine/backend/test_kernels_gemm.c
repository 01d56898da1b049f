#include "engine/backend/every_backend.h"

static const double BF16_BOUND = 2e-2; /* 2^-9 a factor, more where few terms cancel */
static const double BOUND = 2e-6;

struct linear_case {
    int64_t m, n, k;
    bool bias, accumulate, trained;
    float *x, *dy, *b;
    struct draft_tensor w;
    const struct draft_low_rank *y_term, *dx_term;
};

static void run_linear(struct draft_backend *backend, void *context, struct output *out)
{
    struct linear_case *c = context;
    struct draft_error err = {0};
    assert_true(draft_cpu_linear(backend, c->m, c->x, &c->w, c->bias ? c->b : NULL, c->y_term, out[0].got,
                                 c->accumulate, &err));
    assert_true(draft_cpu_linear_dx(backend, c->m, c->dy, &c->w, c->dx_term, out[1].got, c->accumulate, &err));
    assert_true(draft_cpu_linear_dw(backend, c->m, c->n, c->k, c->x, c->dy, out[2].got, c->accumulate, &err));
    assert_true(draft_cpu_sum_rows(backend, 1, c->m, c->n, c->dy, out[3].got, c->accumulate, &err));
}

/* want[m, n] += scale left right */
static void add_term(int64_t m, int64_t n, const struct draft_low_rank *term, double *want)
{
    for (int64_t i = 0; i < m * n; i++)
        for (int64_t p = 0; p < term->r; p++)
            want[i] += (double)term->scale * (double)term->left[i / n * term->r + p] *
                       (double)term->right[term->trans_right ? i % n * term->r + p : p * n + i % n];
}

/* The bits of `variant`: a bias, accumulating, a trained weight, terms of low rank. */
static void check_linear(int64_t m, int64_t n, int64_t k, int variant)
{
    struct linear_case c = {m, n, k, .bias = variant & 1, .accumulate = variant & 2, .trained = variant & 4};
    c.x = numbers(m * k, 1);
    c.dy = numbers(m * n, 1);
    c.b = numbers(n, 1);
    float *w = numbers(n * k, 1), *y0 = numbers(m * n, 1), *dx0 = numbers(m * k, 1), *dw0 = numbers(n * k, 1),
          *db0 = numbers(n, 1);
    c.w = weight_of(w, 2, (int64_t[]){n, k}, c.trained);
    double *y = zeros(m * n), *dx = zeros(m * k), *dw = zeros(n * k), *db = zeros(n);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double g = (double)c.dy[i * n + j], sum = c.bias ? (double)c.b[j] : 0;
            for (int64_t p = 0; p < k; p++) {
                sum += (double)c.x[i * k + p] * (double)w[j * k + p];
                dx[i * k + p] += g * (double)w[j * k + p];
                dw[j * k + p] += g * (double)c.x[i * k + p];
            }
            y[i * n + j] = sum;
            db[j] += g;
        }
    struct draft_low_rank y_term = {5, 0.5f, numbers(5 * m, 1), numbers(5 * n, 1), true};
    struct draft_low_rank dx_term = {5, 2.0f, numbers(5 * m, 1), numbers(5 * k, 1), false};
    if (variant & 8) {
        c.y_term = &y_term;
        c.dx_term = &dx_term;
        add_term(m, n, &y_term, y);
        add_term(m, k, &dx_term, dx);
    }
    struct output out[4] = {{"y", m * n, y, c.accumulate ? y0 : NULL, NULL},
                            {"dx", m * k, dx, c.accumulate ? dx0 : NULL, NULL},
                            {"dw", n * k, dw, c.accumulate ? dw0 : NULL, NULL},
                            {"db", n, db, c.accumulate ? db0 : NULL, NULL}};
    double *const want[4] = {y, dx, dw, db};
    for (int o = 0; o < 4 && c.accumulate; o++)
        for (int64_t i = 0; i < out[o].n; i++)
            want[o][i] += (double)out[o].before[i];
    char what[96];
    snprintf(what, sizeof(what), "linear m %ld n %ld k %ld variant %d", (long)m, (long)n, (long)k, variant);
    bf16_bound = bf16_numbers ? 0 : BF16_BOUND;
    check_everywhere(what, BOUND, out, 4, run_linear, &c);
    bf16_bound = 0;
    for (int o = 0; o < 4; o++)
        free(want[o]);
    free((void *)y_term.left), free((void *)y_term.right), free((void *)dx_term.left), free((void *)dx_term.right);
    free(c.x), free(c.dy), free(c.b), free(w), free(y0), free(dx0), free(dw0), free(db0);
}

static void test_kernels_gemm__linear_layers_match_double(void **state)
{
    (void)state;
    static const int64_t shapes[][3] = {{5, 1, 4},     {1, 3, 5},      {2, 17, 31},  {7, 33, 64},  {13, 64, 1},
                                        {64, 128, 96}, {100, 4, 128},  {97, 8, 320}, {61, 129, 8}, {77, 48, 770},
                                        {256, 3, 432}, {300, 36, 400}, {5, 1000, 20}};
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
        for (int variant = 0; variant < 16; variant++)
            check_linear(shapes[s][0], shapes[s][1], shapes[s][2], variant);
}

static void test_kernels_gemm__bf16_numbers_are_multiplied_exactly(void **state)
{
    (void)state;
    static const int64_t shapes[][3] = {{5, 31, 4}, {97, 40, 321}, {61, 129, 9}, {130, 33, 770}};
    bf16_numbers = true;
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
        for (int variant = 0; variant < 16; variant++)
            check_linear(shapes[s][0], shapes[s][1], shapes[s][2], variant);
    bf16_numbers = false;
}

static void test_kernels_gemm__large_layers_match_double(void **state)
{
    (void)state;
    check_linear(129, 257, 513, 0);
    check_linear(129, 257, 513, 7);
    check_linear(520, 200, 900, 3);
}

static void run_gemm(struct draft_backend *backend, void *context, struct output *out)
{
    struct draft_gemm gemm = *(const struct draft_gemm *)context;
    struct draft_error err = {0};
    gemm.c = out[0].got;
    assert_true(draft_cpu_gemm(backend, &gemm, &err));
}

static void check_gemm(struct draft_gemm g)
{
    /* Strides a little wider than needed; what lies between must not change. */
    g.lda = (g.trans_a ? g.m : g.k) + 3;
    g.ldb = (g.trans_b ? g.k : g.n) + (g.n % 2);
    g.ldc = g.n + 5;
    g.stride_a = g.lda * (g.trans_a ? g.k : g.m) + 1;
    g.stride_b = g.ldb * (g.trans_b ? g.n : g.k) + 2;
    g.stride_c = g.ldc * g.m + 7;
    float *a = numbers(g.batch * g.stride_a, 1), *b = numbers(g.batch * g.stride_b, 1);
    float *c0 = numbers(g.batch * g.stride_c, 1);
    double *c = zeros(g.batch * g.stride_c);
    for (int64_t i = 0; i < g.batch * g.stride_c; i++)
        c[i] = (double)c0[i];
    for (int64_t t = 0; t < g.batch; t++)
        for (int64_t i = 0; i < g.m; i++)
            for (int64_t j = 0; j < g.n; j++) {
                double sum = 0, *out = &c[t * g.stride_c + i * g.ldc + j];
                for (int64_t p = 0; p < g.k; p++)
                    sum += (double)a[t * g.stride_a + (g.trans_a ? p * g.lda + i : i * g.lda + p)] *
                           (double)b[t * g.stride_b + (g.trans_b ? j * g.ldb + p : p * g.ldb + j)];
                *out = (double)g.alpha * sum + (g.beta != 0 ? (double)g.beta * *out : 0);
            }
    g.a = a;
    g.b = b;
    char what[128];
    snprintf(what, sizeof(what), "gemm batch %ld m %ld n %ld k %ld trans %d%d alpha %g beta %g", (long)g.batch,
             (long)g.m, (long)g.n, (long)g.k, g.trans_a, g.trans_b, (double)g.alpha, (double)g.beta);
    struct output out = {"c", g.batch * g.stride_c, c, c0, NULL};
    check_everywhere(what, BOUND, &out, 1, run_gemm, &g);
    free(a), free(b), free(c0), free(c);
}

static void test_kernels_gemm__general_products_match_double(void **state)
{
    (void)state;
    static const int64_t shapes[][4] = {{1, 1, 1, 1},   {3, 5, 7, 9},      {2, 64, 64, 64},  {1, 4, 128, 300},
                                        {4, 16, 32, 8}, {1, 256, 4, 128},  {1, 128, 8, 640}, {7, 33, 31, 17},
                                        {1, 8, 64, 12}, {2, 130, 96, 400}, {1, 200, 64, 4}};
    static const float betas[3] = {0.0f, 1.0f, -0.5f};
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
        for (int variant = 0; variant < 12; variant++)
            check_gemm((struct draft_gemm){.batch = shapes[s][0],
                                           .m = shapes[s][1],
                                           .n = shapes[s][2],
                                           .k = shapes[s][3],
                                           .trans_a = variant & 1,
                                           .trans_b = variant & 2,
                                           .alpha = variant & 1 ? 1.0f : 0.37f,
                                           .beta = betas[variant / 4]});
}

/* A LoRA made part of its weight for a run of calls; the weight alone before and after, to the bit. */
static void test_kernels_gemm__a_merged_weight_lasts_for_its_run(void **state)
{
    (void)state;
    enum { M = 30, N = 70, K = 45, R = 67 };
    float *x = numbers(M * K, 1), *w = numbers(N * K, 1), *up = numbers(N * R, 0.1), *down = numbers(R * K, 0.1);
    float *b = numbers(N, 1), *left = numbers(M * R, 1), *before = numbers(M * N, 1), *got = numbers(M * N, 1);
    struct draft_low_rank term = {R, 0.5f, left, up, true};
    for (int i = 0; i < ISAS; i++)
        for (int t = 0; t < THREADS; t++) {
            struct draft_backend *backend = backends[i][t];
            struct draft_tensor weight = weight_of(w, 2, (int64_t[]){N, K}, false);
            weight.every_step = true;
            if (!backend || !draft_cpu_merges(backend, &weight)) {
                assert_true(!backend || strstr(isa_names[i], "bf16"));
                continue;
            }
            struct draft_error err = {0};
            assert_true(draft_cpu_linear(backend, M, x, &weight, b, NULL, before, false, &err));
            for (int run = 1; run <= 2; run++) {
                double *want = zeros(M * N);
                for (int r = 0; r < R; r++)
                    for (int row = 0; row < M; row++) {
                        double sum = 0;
                        for (int k = 0; k < K; k++)
                            sum += (double)x[row * K + k] * (double)down[r * K + k];
                        left[row * R + r] = (float)sum;
                    }
                for (int j = 0; j < M * N; j++)
                    want[j] = (double)before[j];
                add_term(M, N, &term, want);
                struct draft_merge merge = {(uint64_t)run, R, 0.5f, up, down};
                for (int again = 0; again < 2; again++) {
                    assert_true(draft_cpu_linear_merged(backend, M, x, &weight, b, &merge, got, &err));
                    assert_true(relative_error(M * N, got, want) < BOUND);
                }
                free(want);
                for (int j = 0; j < N * R; j++)
                    up[j] += 0.01f; /* an update: the next run's */
            }
            assert_true(draft_cpu_linear(backend, M, x, &weight, b, NULL, got, false, &err));
            assert_memory_equal(got, before, M * N * sizeof *got);
            draft_backend_forget(backend, &weight);
        }
    free(x), free(w), free(up), free(down), free(b), free(left), free(before), free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels_gemm__linear_layers_match_double),
        cmocka_unit_test(test_kernels_gemm__bf16_numbers_are_multiplied_exactly),
        cmocka_unit_test(test_kernels_gemm__large_layers_match_double),
        cmocka_unit_test(test_kernels_gemm__general_products_match_double),
        cmocka_unit_test(test_kernels_gemm__a_merged_weight_lasts_for_its_run),
    };
    return cmocka_run_group_tests(tests, create_backends, destroy_backends);
}
