/* Elementwise work, cut into pieces that do not depend on the number of threads. */
#include "backend/cpu/state.h"

enum { GRAIN = 16384 };

struct map_work {
    const struct draft_kernels *kernels;
    enum draft_map map;
    const float *x, *dy;
    float *out;
    bool accumulate;
};

static void run_map(void *context, int64_t begin, int64_t end)
{
    const struct map_work *w = context;
    w->kernels->map(w->map, end - begin, w->x + begin, w->out + begin);
}

void draft_cpu_map(struct draft_backend *backend, enum draft_map map, int64_t n, const float *x, float *y)
{
    struct map_work work = {.kernels = backend->kernels, .map = map, .x = x, .out = y};
    draft_parallel_range(backend, n, GRAIN, run_map, &work);
}

static void run_map_backward(void *context, int64_t begin, int64_t end)
{
    const struct map_work *w = context;
    w->kernels->map_backward(w->map, end - begin, w->x + begin, w->dy + begin, w->out + begin, w->accumulate);
}

void draft_cpu_map_backward(struct draft_backend *backend, enum draft_map map, int64_t n, const float *x,
                            const float *dy, float *dx, bool accumulate)
{
    struct map_work work = {backend->kernels, map, x, dy, dx, accumulate};
    draft_parallel_range(backend, n, GRAIN, run_map_backward, &work);
}

struct geglu_work {
    const struct draft_kernels *kernels;
    int64_t c;
    const float *x, *dy;
    float *out;
    bool accumulate;
};

static int64_t rows_of_grain(int64_t c)
{
    return c < GRAIN ? GRAIN / c : 1;
}

static void run_geglu(void *context, int64_t begin, int64_t end)
{
    const struct geglu_work *w = context;
    w->kernels->geglu(end - begin, w->c, w->x + begin * 2 * w->c, w->out + begin * w->c);
}

void draft_cpu_geglu(struct draft_backend *backend, int64_t rows, int64_t c, const float *x, float *y)
{
    struct geglu_work work = {.kernels = backend->kernels, .c = c, .x = x, .out = y};
    draft_parallel_range(backend, rows, rows_of_grain(2 * c), run_geglu, &work);
}

static void run_geglu_backward(void *context, int64_t begin, int64_t end)
{
    const struct geglu_work *w = context;
    w->kernels->geglu_backward(end - begin, w->c, w->x + begin * 2 * w->c, w->dy + begin * w->c,
                               w->out + begin * 2 * w->c, w->accumulate);
}

void draft_cpu_geglu_backward(struct draft_backend *backend, int64_t rows, int64_t c, const float *x, const float *dy,
                              float *dx, bool accumulate)
{
    struct geglu_work work = {backend->kernels, c, x, dy, dx, accumulate};
    draft_parallel_range(backend, rows, rows_of_grain(2 * c), run_geglu_backward, &work);
}

struct axpby_work {
    const struct draft_kernels *kernels;
    float alpha, beta;
    const float *a, *b;
    float *y;
    bool accumulate;
};

static void run_axpby(void *context, int64_t begin, int64_t end)
{
    const struct axpby_work *w = context;
    w->kernels->axpby(end - begin, w->alpha, w->a + begin, w->beta, w->b ? w->b + begin : NULL, w->y + begin,
                      w->accumulate);
}

void draft_cpu_axpby(struct draft_backend *backend, int64_t n, float alpha, const float *a, float beta, const float *b,
                     float *y, bool accumulate)
{
    struct axpby_work work = {backend->kernels, alpha, beta, a, b, y, accumulate};
    draft_parallel_range(backend, n, 2 * GRAIN, run_axpby, &work);
}
