/*
 * The CPU kernels on the demo model's shapes and some of Stable Diffusion 1.5's: median milliseconds and GF/s (GB/s for
 * norms and elementwise work: what is read and written once). Convolutions count the direct method's operations.
 *
 *   build/tests/bench_kernels [--isa NAME] [--threads N] [--seconds S] [--large] [FILTER]
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/cpu/cpu.h"

static struct draft_backend *backend;
static double seconds = 0.1;
static const char *filter = "";

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static float *numbers(int64_t n)
{
    float *x = aligned_alloc(64, ((size_t)n * sizeof(float) + 127) / 64 * 64);
    if (!x)
        abort();
    uint32_t s = 12345;
    for (int64_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        x[i] = (float)(s >> 8) / 16777216.0f - 0.5f;
    }
    return x;
}

static struct draft_tensor weight(int64_t o, int64_t kh, int64_t kw, int64_t c)
{
    return (struct draft_tensor){
        .dtype = DRAFT_F32, .rank = 4, .dim = {o, kh, kw, c}, .data = numbers(o * kh * kw * c), .name = "weight"};
}

/* `work`: operations, or bytes. */
static void report(const char *name, double work, const char *unit, void (*run)(void *context), void *context)
{
    enum { MOST = 2000 };
    static double took[MOST];
    if (!strstr(name, filter))
        return;
    run(context);
    int count = 0;
    for (double start = now(); count < 5 || (count < MOST && now() - start < seconds); count++) {
        double t = now();
        run(context);
        took[count] = now() - t;
    }
    qsort(took, (size_t)count, sizeof(took[0]), by_value);
    double median = took[count / 2];
    printf("%-44s %9.3f ms %8.1f %s   (best %.1f)\n", name, 1e3 * median, work / median * 1e-9, unit,
           work / took[0] * 1e-9);
    fflush(stdout);
}

static void must(bool done)
{
    if (!done)
        abort();
}

/* --- Linear and general products -----------------------------------------------------------------------------------
 */

struct linear {
    int64_t m, n, k;
    float *x, *y, *dw;
    struct draft_tensor w;
};

static void linear_forward(void *context)
{
    struct linear *l = context;
    must(draft_cpu_linear(backend, l->m, l->x, &l->w, NULL, NULL, l->y, false, NULL));
}

static void linear_dx(void *context)
{
    struct linear *l = context;
    must(draft_cpu_linear_dx(backend, l->m, l->y, &l->w, NULL, l->x, false, NULL));
}

static void linear_dw(void *context)
{
    struct linear *l = context;
    must(draft_cpu_linear_dw(backend, l->m, l->n, l->k, l->x, l->y, l->dw, false, NULL));
}

static void bench_linear(int64_t m, int64_t n, int64_t k)
{
    struct linear l = {m, n, k, numbers(m * k), numbers(m * n), numbers(n * k), weight(n, 1, 1, k)};
    double flops = 2.0 * (double)m * (double)n * (double)k;
    char name[96];
    snprintf(name, sizeof(name), "linear %ldx%ldx%ld", (long)m, (long)n, (long)k);
    report(name, flops, "GF/s", linear_forward, &l);
    snprintf(name, sizeof(name), "linear_dx %ldx%ldx%ld", (long)m, (long)n, (long)k);
    report(name, flops, "GF/s", linear_dx, &l);
    snprintf(name, sizeof(name), "linear_dw %ldx%ldx%ld", (long)m, (long)n, (long)k);
    report(name, flops, "GF/s", linear_dw, &l);
    free(l.x), free(l.y), free(l.dw), free(l.w.data);
}

static void run_gemm(void *context)
{
    must(draft_cpu_gemm(backend, context, NULL));
}

/* The five thin products of a LoRA layer of rank r on k -> n. */
static void bench_lora(int64_t m, int64_t n, int64_t k, int64_t r)
{
    float *x = numbers(m * k), *y = numbers(m * n), *down = numbers(r * k), *up = numbers(n * r), *t = numbers(m * r);
    struct draft_gemm gemms[5] = {
        {1, m, r, k, false, true, 1, 0, x, down, t, k, k, r, 0, 0, 0}, /* t = x down^T */
        {1, m, n, r, false, true, 1, 1, t, up, y, r, r, n, 0, 0, 0},   /* y += t up^T */
        {1, m, r, n, false, false, 1, 0, y, up, t, n, r, r, 0, 0, 0},  /* dt = dy up */
        {1, n, r, m, true, false, 1, 0, y, t, up, n, r, r, 0, 0, 0},   /* dup = dy^T t */
        {1, r, k, m, true, false, 1, 0, t, x, down, r, k, k, 0, 0, 0}, /* ddown = dt^T x */
    };
    static const char *const parts[5] = {"x down^T", "t up^T", "dy up", "dy^T t", "dt^T x"};
    for (int i = 0; i < 5; i++) {
        char name[96];
        snprintf(name, sizeof(name), "lora %ld: %ld->%ld r %ld %s", (long)m, (long)k, (long)n, (long)r, parts[i]);
        report(name, 2.0 * (double)m * (double)(i == 0 || i == 4 ? k : n) * (double)r, "GF/s", run_gemm, &gemms[i]);
    }
    free(x), free(y), free(down), free(up), free(t);
}

/* --- Convolution ---------------------------------------------------------------------------------------------------
 */

struct conv {
    struct draft_conv_shape shape;
    float *x, *y, *dw;
    struct draft_tensor w;
};

static void conv_forward(void *context)
{
    struct conv *c = context;
    must(draft_cpu_conv2d(backend, &c->shape, c->x, &c->w, NULL, c->y, NULL));
}

static void conv_dx(void *context)
{
    struct conv *c = context;
    must(draft_cpu_conv2d_dx(backend, &c->shape, c->y, &c->w, c->x, false, NULL));
}

static void bench_conv(int64_t n, int64_t size, int64_t c, int64_t o, int64_t kernel, int64_t stride)
{
    int64_t pad = stride == kernel ? 0 : kernel / 2;
    struct conv v = {.shape = {n, size, size, c, o, kernel, kernel, stride, pad, pad, pad, pad}};
    int64_t pixels = n * draft_conv_out_h(&v.shape) * draft_conv_out_w(&v.shape);
    v.x = numbers(n * size * size * c);
    v.y = numbers(pixels * o);
    v.w = weight(o, kernel, kernel, c);
    double flops = 2.0 * (double)pixels * (double)o * (double)(kernel * kernel * c);
    char name[96];
    snprintf(name, sizeof(name), "conv %ldx%ldx%ld %ld->%ld k%ld s%ld", (long)n, (long)size, (long)size, (long)c,
             (long)o, (long)kernel, (long)stride);
    report(name, flops, "GF/s", conv_forward, &v);
    snprintf(name, sizeof(name), "conv_dx %ldx%ldx%ld %ld->%ld k%ld s%ld", (long)n, (long)size, (long)size, (long)c,
             (long)o, (long)kernel, (long)stride);
    report(name, flops, "GF/s", conv_dx, &v);
    free(v.x), free(v.y), free(v.w.data);
}

/* --- Attention -----------------------------------------------------------------------------------------------------
 */

struct attention {
    struct draft_attention_shape shape;
    float *q, *k, *v, *out, *lse, *dq, *dk, *dv;
};

static void attention_forward(void *context)
{
    struct attention *a = context;
    must(draft_cpu_attention(backend, &a->shape, a->q, a->k, a->v, a->out, a->lse, NULL));
}

static void attention_backward(void *context)
{
    struct attention *a = context;
    struct draft_attention_gradients g = {a->dq, a->dk, a->dv, false, false, false};
    must(draft_cpu_attention_backward(backend, &a->shape, a->q, a->k, a->v, a->out, a->lse, a->q, &g, NULL));
}

static void bench_attention(int64_t n, int64_t s, int64_t t, int64_t heads, int64_t d, bool causal)
{
    struct attention a = {.shape = {n, s, t, heads, d, causal, 1.0f / sqrtf((float)d)}};
    int64_t nq = n * s * heads * d, nk = n * t * heads * d;
    a.q = numbers(nq), a.k = numbers(nk), a.v = numbers(nk), a.out = numbers(nq), a.lse = numbers(n * heads * s);
    a.dq = numbers(nq), a.dk = numbers(nk), a.dv = numbers(nk);
    double flops = 4.0 * (double)(n * heads * s) * (double)(t * d) * (causal ? 0.5 : 1.0);
    char name[96];
    snprintf(name, sizeof(name), "attention %ldx%ldx%ld heads %ld d %ld%s", (long)n, (long)s, (long)t, (long)heads,
             (long)d, causal ? " causal" : "");
    report(name, flops, "GF/s", attention_forward, &a);
    snprintf(name, sizeof(name), "attention_bwd %ldx%ldx%ld heads %ld d %ld%s", (long)n, (long)s, (long)t, (long)heads,
             (long)d, causal ? " causal" : "");
    report(name, 2.5 * flops, "GF/s", attention_backward, &a);
    free(a.q), free(a.k), free(a.v), free(a.out), free(a.lse), free(a.dq), free(a.dk), free(a.dv);
}

/* --- Norms and elementwise -----------------------------------------------------------------------------------------
 */

struct rows {
    struct draft_group_norm_shape shape;
    float *x, *y, *dy, *gamma, *stats;
};

static void group_norm(void *context)
{
    struct rows *r = context;
    must(draft_cpu_group_norm(backend, &r->shape, r->x, r->gamma, r->gamma, r->y, r->stats, NULL));
}

static void group_norm_backward(void *context)
{
    struct rows *r = context;
    struct draft_norm_gradients g = {.dx = r->y};
    must(draft_cpu_group_norm_backward(backend, &r->shape, r->x, r->gamma, r->gamma, r->stats, r->dy, &g, NULL));
}

static void layer_norm(void *context)
{
    struct rows *r = context;
    must(draft_cpu_layer_norm(backend, r->shape.n * r->shape.positions, r->shape.c, 1e-5f, r->x, r->gamma, r->gamma,
                              r->y, r->stats, NULL));
}

static void layer_norm_backward(void *context)
{
    struct rows *r = context;
    struct draft_norm_gradients g = {.dx = r->y};
    must(draft_cpu_layer_norm_backward(backend, r->shape.n * r->shape.positions, r->shape.c, r->x, r->gamma, r->stats,
                                       r->dy, &g, NULL));
}

static void geglu(void *context)
{
    struct rows *r = context;
    draft_cpu_geglu(backend, r->shape.n * r->shape.positions, r->shape.c / 2, r->x, r->y);
}

static void geglu_backward(void *context)
{
    struct rows *r = context;
    draft_cpu_geglu_backward(backend, r->shape.n * r->shape.positions, r->shape.c / 2, r->x, r->dy, r->y, false);
}

static void silu(void *context)
{
    struct rows *r = context;
    draft_cpu_map(backend, DRAFT_MAP_SILU, r->shape.n * r->shape.positions * r->shape.c, r->x, r->y);
}

static void gelu_backward(void *context)
{
    struct rows *r = context;
    draft_cpu_map_backward(backend, DRAFT_MAP_GELU, r->shape.n * r->shape.positions * r->shape.c, r->x, r->dy, r->y,
                           false);
}

static void add(void *context)
{
    struct rows *r = context;
    draft_cpu_axpby(backend, r->shape.n * r->shape.positions * r->shape.c, 1, r->x, 1, r->dy, r->y, false);
}

static void bench_rows(int64_t n, int64_t positions, int64_t c, int64_t groups)
{
    static const struct {
        const char *name;
        double passes; /* arrays read and written */
        void (*run)(void *context);
    } kernels[] = {
        {"group_norm+silu", 2, group_norm},
        {"group_norm+silu_bwd", 3, group_norm_backward},
        {"layer_norm", 2, layer_norm},
        {"layer_norm_bwd", 3, layer_norm_backward},
        {"geglu", 1.5, geglu},
        {"geglu_bwd", 2.5, geglu_backward},
        {"silu", 2, silu},
        {"gelu_bwd", 3, gelu_backward},
        {"add", 3, add},
    };
    int64_t count = n * positions * c;
    struct rows r = {.shape = {n, positions, c, groups, 1e-5f, true}};
    r.x = numbers(count), r.y = numbers(count), r.dy = numbers(count), r.gamma = numbers(c);
    r.stats = numbers(2 * n * (positions > groups ? positions : groups));
    for (size_t i = 0; i < sizeof(kernels) / sizeof(kernels[0]); i++) {
        char name[96];
        snprintf(name, sizeof(name), "%s %ldx%ldx%ld", kernels[i].name, (long)n, (long)positions, (long)c);
        group_norm(&r); /* statistics */
        if (strncmp(kernels[i].name, "layer", 5) == 0)
            layer_norm(&r);
        report(name, kernels[i].passes * (double)count * sizeof(float), "GB/s", kernels[i].run, &r);
    }
    free(r.x), free(r.y), free(r.dy), free(r.gamma), free(r.stats);
}

int main(int argc, char **argv)
{
    struct draft_backend_options options = {0};
    bool large = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--isa") == 0 && i + 1 < argc)
            options.isa = argv[++i];
        else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
            options.threads = atoi(argv[++i]);
        else if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc)
            seconds = atof(argv[++i]);
        else if (strcmp(argv[i], "--large") == 0)
            large = true;
        else
            filter = argv[i];
    }
    struct draft_error err = {0};
    backend = draft_backend_create_cpu(&options, &err);
    if (!backend) {
        fprintf(stderr, "%s\n", err.message);
        return 2;
    }
    printf("%s, %d threads\n", draft_backend_isa(backend), draft_backend_threads(backend));
    if (large) { /* Stable Diffusion 1.5 */
        bench_linear(4096, 320, 320);
        bench_linear(4096, 2560, 320);
        bench_linear(2048, 5120, 640);
        bench_linear(256, 1280, 1280);
        bench_linear(512, 10240, 1280);
        bench_linear(512, 1280, 5120);
        bench_linear(128, 1280, 5120);
        bench_lora(4096, 320, 320, 8);
        bench_conv(1, 64, 320, 320, 3, 1);
        bench_conv(1, 32, 640, 640, 3, 1);
        bench_conv(1, 16, 1280, 1280, 3, 1);
        bench_conv(2, 8, 1280, 1280, 3, 1);
        bench_conv(2, 64, 320, 320, 3, 2);
        bench_conv(2, 64, 4, 320, 3, 1);
        bench_conv(2, 64, 320, 4, 3, 1);
        bench_conv(1, 256, 256, 256, 3, 1);
        bench_conv(1, 512, 128, 3, 3, 1);
        bench_attention(1, 4096, 4096, 8, 40, false);
        bench_attention(1, 1024, 1024, 8, 80, false);
        bench_attention(1, 4096, 77, 8, 40, false);
        bench_rows(1, 4096, 320, 32);
        return 0;
    }
    /* UNet: guided, batch 8 pairs */
    bench_linear(1024, 128, 128);
    bench_linear(1024, 1024, 128);
    bench_linear(1024, 128, 512);
    bench_linear(512, 128, 128);
    bench_linear(4096, 64, 128);
    bench_linear(16, 256, 64);
    bench_lora(1024, 128, 128, 4);
    bench_conv(16, 16, 4, 64, 3, 1);
    bench_conv(16, 16, 64, 64, 3, 1);
    bench_conv(16, 16, 128, 64, 3, 1);
    bench_conv(16, 8, 128, 128, 3, 1);
    bench_conv(16, 8, 320, 128, 3, 1);
    bench_conv(16, 4, 192, 192, 3, 1);
    bench_conv(16, 4, 384, 192, 3, 1);
    bench_conv(16, 16, 64, 64, 3, 2);
    bench_conv(16, 16, 64, 4, 3, 1);
    bench_attention(16, 64, 64, 8, 16, false);
    bench_attention(16, 64, 32, 8, 16, false);
    bench_attention(16, 16, 16, 8, 24, false);
    bench_rows(16, 256, 64, 32);
    bench_rows(16, 64, 128, 32);
    /* VAE decoder */
    bench_conv(8, 16, 4, 96, 3, 1);
    bench_conv(8, 16, 96, 96, 3, 1);
    bench_conv(8, 32, 96, 96, 3, 1);
    bench_conv(8, 32, 96, 48, 3, 1);
    bench_conv(8, 64, 48, 48, 3, 1);
    bench_conv(8, 64, 48, 24, 3, 1);
    bench_conv(8, 64, 24, 24, 3, 1);
    bench_conv(8, 64, 24, 3, 3, 1);
    bench_attention(8, 256, 256, 1, 96, false);
    bench_rows(8, 4096, 24, 8);
    bench_rows(8, 4096, 48, 8);
    /* CLIP, LPIPS */
    bench_conv(8, 64, 3, 128, 8, 8);
    bench_linear(520, 128, 128);
    bench_linear(520, 512, 128);
    bench_attention(8, 65, 65, 4, 32, false);
    bench_attention(8, 32, 32, 4, 32, true);
    bench_rows(8, 65, 128, 32);
    draft_backend_destroy(backend);
    return 0;
}
