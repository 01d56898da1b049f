/*
 * GroupNorm (Wu and He 2018) and LayerNorm (Ba et al. 2016) over rows of channels.
 *
 * Sums run in float over chunks of DRAFT_NORM_CHUNK rows and in double, in order, over the chunks: exact enough for
 * activations near epsilon, and the same for any number of threads.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "backend/cpu/state.h"

enum { TASK_FLOATS = 16384, WIDE = 256 };

/* --- GroupNorm ---------------------------------------------------------------------------------------------------- */

struct group_norm {
    struct draft_backend *backend;
    const struct draft_group_norm_shape *shape;
    const float *x, *gamma, *beta, *dy;
    float *y, *dx;
    float *stats;        /* [n, groups, 2] */
    double *moments;     /* [n, chunks, groups, 2]: mean, squared deviations */
    float *sums;         /* [n, chunks, 2, c] */
    float *coefficients; /* [n, 2, c]: b and k of norm_dx */
    int64_t chunks, chunks_of_piece, pieces;
    int64_t repeat; /* rows taken side by side as one, so that loops over few channels fill vectors */
    bool store_dz, accumulate;
};

static int64_t chunk_rows(const struct group_norm *g, int64_t chunk)
{
    int64_t left = g->shape->positions - chunk * DRAFT_NORM_CHUNK;
    return left < DRAFT_NORM_CHUNK ? left : DRAFT_NORM_CHUNK;
}

static int64_t offset_of(const struct group_norm *g, int64_t image, int64_t chunk)
{
    return (image * g->shape->positions + chunk * DRAFT_NORM_CHUNK) * g->shape->c;
}

static void moments_of(const struct group_norm *g, int64_t image, int64_t first, int64_t last, float *scratch)
{
    for (int64_t chunk = first; chunk < last; chunk++)
        g->backend->kernels->group_moments(chunk_rows(g, chunk), g->shape->c, g->repeat, g->shape->groups,
                                           g->x + offset_of(g, image, chunk),
                                           g->moments + (image * g->chunks + chunk) * g->shape->groups * 2, scratch);
}

/* Chan et al. 1983: deviations of the parts plus deviations of the parts' means. */
static void combine_moments(const struct group_norm *g, int64_t image)
{
    const struct draft_group_norm_shape *s = g->shape;
    double width = (double)(s->c / s->groups), count = width * (double)s->positions;
    const double *part = g->moments + image * g->chunks * s->groups * 2;
    for (int64_t group = 0; group < s->groups; group++) {
        double mean = 0, squares = 0;
        for (int64_t chunk = 0; chunk < g->chunks; chunk++)
            mean += part[(chunk * s->groups + group) * 2] * (double)chunk_rows(g, chunk);
        mean /= (double)s->positions;
        for (int64_t chunk = 0; chunk < g->chunks; chunk++) {
            const double *p = part + (chunk * s->groups + group) * 2;
            squares += p[1] + width * (double)chunk_rows(g, chunk) * (p[0] - mean) * (p[0] - mean);
        }
        float *stats = g->stats + (image * s->groups + group) * 2;
        stats[0] = (float)mean;
        stats[1] = (float)(1.0 / sqrt(squares / count + (double)s->eps));
    }
}

/* What the kernels need of an image by channel, `repeat` times over. */
struct by_channel {
    float *mean, *rstd, *gamma, *beta, *scale, *rest; /* scale = rstd gamma; rest: free for use */
};

static struct by_channel spread(const struct group_norm *g, int64_t image, float *scratch)
{
    int64_t c = g->shape->c, wide = g->repeat * c, width = c / g->shape->groups;
    struct by_channel b = {
        scratch, scratch + wide, scratch + 2 * wide, scratch + 3 * wide, scratch + 4 * wide, scratch + 5 * wide};
    const float *stats = g->stats + image * g->shape->groups * 2;
    for (int64_t i = 0; i < c; i++) {
        b.mean[i] = stats[i / width * 2];
        b.rstd[i] = stats[i / width * 2 + 1];
        b.gamma[i] = g->gamma[i];
        b.beta[i] = g->beta[i];
        b.scale[i] = b.rstd[i] * b.gamma[i];
    }
    for (int64_t vector = 0; vector < 5; vector++)
        for (int64_t r = 1; r < g->repeat; r++)
            memcpy(scratch + vector * wide + r * c, scratch + vector * wide, (size_t)c * sizeof(float));
    return b;
}

static void apply(const struct group_norm *g, int64_t image, int64_t first, int64_t last, float *scratch)
{
    int64_t c = g->shape->c;
    struct by_channel b = spread(g, image, scratch);
    for (int64_t chunk = first; chunk < last; chunk++) {
        int64_t at = offset_of(g, image, chunk), rows = chunk_rows(g, chunk), wide = rows / g->repeat;
        int64_t rest = at + wide * g->repeat * c;
        const struct draft_kernels *kernels = g->backend->kernels;
        kernels->norm_apply(wide, g->repeat * c, g->x + at, b.mean, b.scale, b.beta, g->shape->silu, g->y + at);
        kernels->norm_apply(rows - wide * g->repeat, c, g->x + rest, b.mean, b.scale, b.beta, g->shape->silu,
                            g->y + rest);
    }
}

static void sums_of(const struct group_norm *g, int64_t image, int64_t first, int64_t last, float *scratch)
{
    int64_t c = g->shape->c;
    struct by_channel b = spread(g, image, scratch);
    float *wide_sums = b.rest;
    for (int64_t chunk = first; chunk < last; chunk++) {
        int64_t at = offset_of(g, image, chunk), rows = chunk_rows(g, chunk), wide = rows / g->repeat;
        int64_t rest = at + wide * g->repeat * c;
        float *sums = g->sums + (image * g->chunks + chunk) * 2 * c;
        const struct draft_kernels *kernels = g->backend->kernels;
        kernels->norm_sums(wide, g->repeat * c, g->x + at, b.mean, b.rstd, b.gamma, b.beta, g->shape->silu, g->dy + at,
                           g->store_dz ? g->dx + at : NULL, wide_sums);
        kernels->norm_sums(rows - wide * g->repeat, c, g->x + rest, b.mean, b.rstd, b.gamma, b.beta, g->shape->silu,
                           g->dy + rest, g->store_dz ? g->dx + rest : NULL, sums);
        for (int64_t r = 0; r < g->repeat; r++)
            for (int64_t i = 0; i < c; i++) {
                sums[i] += wide_sums[r * c + i];
                sums[c + i] += wide_sums[(g->repeat + r) * c + i];
            }
    }
}

static void combine_sums(const struct group_norm *g, int64_t image)
{
    int64_t c = g->shape->c, width = c / g->shape->groups;
    double count = (double)width * (double)g->shape->positions;
    float *coefficient = g->coefficients + image * 2 * c;
    for (int64_t group = 0; group < g->shape->groups; group++) {
        double sum = 0, sum_hat = 0;
        for (int64_t chunk = 0; chunk < g->chunks; chunk++) {
            const float *part = g->sums + (image * g->chunks + chunk) * 2 * c + group * width;
            for (int64_t i = 0; i < width; i++) {
                sum += (double)part[i] * (double)g->gamma[group * width + i];
                sum_hat += (double)part[c + i] * (double)g->gamma[group * width + i];
            }
        }
        double rstd = (double)g->stats[(image * g->shape->groups + group) * 2 + 1];
        for (int64_t i = group * width; i < (group + 1) * width; i++) {
            coefficient[i] = (float)(rstd * sum / count);
            coefficient[c + i] = (float)(rstd * sum_hat / count);
        }
    }
}

static void dx_of(const struct group_norm *g, int64_t image, int64_t first, int64_t last, float *scratch)
{
    int64_t c = g->shape->c;
    struct by_channel b = spread(g, image, scratch);
    float *coefficient = b.rest; /* b and k of norm_dx */
    for (int64_t r = 0; r < 2 * g->repeat; r++)
        memcpy(coefficient + r * c, g->coefficients + (image * 2 + r / g->repeat) * c, (size_t)c * sizeof(float));
    const float *offset = coefficient, *slope = coefficient + g->repeat * c, *dz = g->store_dz ? g->dx : g->dy;
    bool silu = g->shape->silu && !g->store_dz;
    for (int64_t chunk = first; chunk < last; chunk++) {
        int64_t at = offset_of(g, image, chunk), rows = chunk_rows(g, chunk), wide = rows / g->repeat;
        int64_t rest = at + wide * g->repeat * c;
        const struct draft_kernels *kernels = g->backend->kernels;
        kernels->norm_dx(wide, g->repeat * c, g->x + at, b.mean, b.rstd, b.gamma, b.beta, silu, dz + at, b.scale,
                         offset, slope, g->dx + at, g->accumulate);
        kernels->norm_dx(rows - wide * g->repeat, c, g->x + rest, b.mean, b.rstd, b.gamma, b.beta, silu, dz + rest,
                         b.scale, offset, slope, g->dx + rest, g->accumulate);
    }
}

/* One image from start to end in one task, or piece by piece with all threads on each pass: the same sums either way.
 */
struct passes {
    struct group_norm *g;
    void (*first)(const struct group_norm *, int64_t image, int64_t first, int64_t last, float *scratch);
    void (*combine)(const struct group_norm *, int64_t image);
    void (*second)(const struct group_norm *, int64_t image, int64_t first, int64_t last, float *scratch);
};

static void whole_image(void *context, int64_t image, int thread)
{
    const struct passes *p = context;
    float *scratch = draft_scratch_of(p->g->backend, thread);
    p->first(p->g, image, 0, p->g->chunks, scratch);
    p->combine(p->g, image);
    if (p->second)
        p->second(p->g, image, 0, p->g->chunks, scratch);
}

static void piece_bounds(const struct group_norm *g, int64_t task, int64_t *image, int64_t *first, int64_t *last)
{
    *image = task / g->pieces;
    *first = task % g->pieces * g->chunks_of_piece;
    *last = *first + g->chunks_of_piece < g->chunks ? *first + g->chunks_of_piece : g->chunks;
}

static void first_piece(void *context, int64_t task, int thread)
{
    const struct passes *p = context;
    int64_t image, first, last;
    piece_bounds(p->g, task, &image, &first, &last);
    p->first(p->g, image, first, last, draft_scratch_of(p->g->backend, thread));
}

static void second_piece(void *context, int64_t task, int thread)
{
    const struct passes *p = context;
    int64_t image, first, last;
    piece_bounds(p->g, task, &image, &first, &last);
    p->second(p->g, image, first, last, draft_scratch_of(p->g->backend, thread));
}

static void run_passes(struct passes *p)
{
    struct group_norm *g = p->g;
    const struct draft_group_norm_shape *s = g->shape;
    if (s->n >= 4 * g->backend->threads || s->n % g->backend->threads == 0 || s->positions * s->c <= TASK_FLOATS) {
        draft_parallel(g->backend, s->n, whole_image, p);
        return;
    }
    draft_parallel(g->backend, s->n * g->pieces, first_piece, p);
    for (int64_t image = 0; image < s->n; image++)
        p->combine(g, image);
    if (p->second)
        draft_parallel(g->backend, s->n * g->pieces, second_piece, p);
}

static void cut(struct group_norm *g)
{
    const struct draft_group_norm_shape *s = g->shape;
    assert(s->c > 0 && s->groups > 0 && s->c % s->groups == 0);
    g->chunks = (s->positions + DRAFT_NORM_CHUNK - 1) / DRAFT_NORM_CHUNK;
    g->chunks_of_piece = 1 + TASK_FLOATS / (DRAFT_NORM_CHUNK * s->c);
    g->pieces = (g->chunks + g->chunks_of_piece - 1) / g->chunks_of_piece;
    g->repeat = 1;
    while (g->repeat * 4 <= DRAFT_NORM_CHUNK && g->repeat * s->c < WIDE)
        g->repeat *= 2;
}

static size_t channel_scratch(const struct group_norm *g)
{
    return (size_t)(7 * g->repeat * g->shape->c) * sizeof(float);
}

bool draft_cpu_group_norm(struct draft_backend *backend, const struct draft_group_norm_shape *shape, const float *x,
                          const float *gamma, const float *beta, float *y, float *stats, struct draft_error *err)
{
    struct group_norm g = {
        .backend = backend, .shape = shape, .x = x, .gamma = gamma, .beta = beta, .y = y, .stats = stats};
    cut(&g);
    size_t moments = (size_t)(shape->n * g.chunks * shape->groups * 2) * sizeof(double);
    if (!draft_scratch_reserve(backend, moments, channel_scratch(&g), err))
        return false;
    g.moments = draft_scratch_shared(backend);
    run_passes(&(struct passes){&g, moments_of, combine_moments, apply});
    return true;
}

/* out[c] = sum over parts of part[i * step + c] (+ out) */
static void add_parts(int64_t parts, int64_t step, int64_t c, const float *part, float *out, bool accumulate)
{
    for (int64_t i = 0; i < c; i++) {
        double sum = 0;
        for (int64_t p = 0; p < parts; p++)
            sum += (double)part[p * step + i];
        out[i] = accumulate ? (float)((double)out[i] + sum) : (float)sum;
    }
}

bool draft_cpu_group_norm_backward(struct draft_backend *backend, const struct draft_group_norm_shape *shape,
                                   const float *x, const float *gamma, const float *beta, const float *stats,
                                   const float *dy, const struct draft_norm_gradients *gradients,
                                   struct draft_error *err)
{
    struct group_norm g = {.backend = backend,
                           .shape = shape,
                           .x = x,
                           .gamma = gamma,
                           .beta = beta,
                           .dy = dy,
                           .dx = gradients->dx,
                           .stats = (float *)stats,
                           .accumulate = gradients->accumulate_x};
    cut(&g);
    g.store_dz = g.dx && !g.accumulate && shape->silu; /* spares the second pass an exp */
    int64_t sums = shape->n * g.chunks * 2 * shape->c, coefficients = shape->n * 2 * shape->c;
    if (!draft_scratch_reserve(backend, (size_t)(sums + coefficients) * sizeof(float), channel_scratch(&g), err))
        return false;
    g.sums = draft_scratch_shared(backend);
    g.coefficients = g.sums + sums;
    run_passes(&(struct passes){&g, sums_of, combine_sums, g.dx ? dx_of : NULL});
    int64_t parts = shape->n * g.chunks;
    if (gradients->dbeta)
        add_parts(parts, 2 * shape->c, shape->c, g.sums, gradients->dbeta, gradients->accumulate_beta);
    if (gradients->dgamma)
        add_parts(parts, 2 * shape->c, shape->c, g.sums + shape->c, gradients->dgamma, gradients->accumulate_gamma);
    return true;
}

/* --- LayerNorm ---------------------------------------------------------------------------------------------------- */

struct layer_norm {
    const struct draft_kernels *kernels;
    int64_t c;
    float eps;
    const float *x, *gamma, *beta, *dy;
    float *y, *stats, *sums;
    bool accumulate;
};

static int64_t rows_of_task(int64_t c)
{
    return c < TASK_FLOATS ? TASK_FLOATS / c : 1;
}

static void run_layer_norm(void *context, int64_t begin, int64_t end)
{
    const struct layer_norm *l = context;
    l->kernels->layer_norm(end - begin, l->c, l->eps, l->x + begin * l->c, l->gamma, l->beta, l->y + begin * l->c,
                           l->stats + begin * 2);
}

bool draft_cpu_layer_norm(struct draft_backend *backend, int64_t rows, int64_t c, float eps, const float *x,
                          const float *gamma, const float *beta, float *y, float *stats, struct draft_error *err)
{
    (void)err;
    struct layer_norm work = {backend->kernels, c, eps, x, gamma, beta, NULL, y, stats, NULL, false};
    draft_parallel_range(backend, rows, rows_of_task(c), run_layer_norm, &work);
    return true;
}

static void run_layer_norm_sums(void *context, int64_t begin, int64_t end)
{
    const struct layer_norm *l = context;
    l->kernels->layer_norm_sums(end - begin, l->c, l->x + begin * l->c, l->stats + begin * 2, l->dy + begin * l->c,
                                l->sums + begin / DRAFT_NORM_CHUNK * 2 * l->c);
}

static void run_layer_norm_dx(void *context, int64_t begin, int64_t end)
{
    const struct layer_norm *l = context;
    l->kernels->layer_norm_dx(end - begin, l->c, l->x + begin * l->c, l->gamma, l->stats + begin * 2,
                              l->dy + begin * l->c, l->y + begin * l->c, l->accumulate);
}

bool draft_cpu_layer_norm_backward(struct draft_backend *backend, int64_t rows, int64_t c, const float *x,
                                   const float *gamma, const float *stats, const float *dy,
                                   const struct draft_norm_gradients *gradients, struct draft_error *err)
{
    struct layer_norm work = {.kernels = backend->kernels,
                              .c = c,
                              .x = x,
                              .gamma = gamma,
                              .dy = dy,
                              .y = gradients->dx,
                              .stats = (float *)stats,
                              .accumulate = gradients->accumulate_x};
    if (gradients->dgamma || gradients->dbeta) {
        int64_t chunks = (rows + DRAFT_NORM_CHUNK - 1) / DRAFT_NORM_CHUNK;
        if (!draft_scratch_reserve(backend, (size_t)(chunks * 2 * c) * sizeof(float), 0, err))
            return false;
        work.sums = draft_scratch_shared(backend);
        draft_parallel_range(backend, rows, DRAFT_NORM_CHUNK, run_layer_norm_sums, &work);
        if (gradients->dbeta)
            add_parts(chunks, 2 * c, c, work.sums, gradients->dbeta, gradients->accumulate_beta);
        if (gradients->dgamma)
            add_parts(chunks, 2 * c, c, work.sums + c, gradients->dgamma, gradients->accumulate_gamma);
    }
    if (gradients->dx)
        draft_parallel_range(backend, rows, rows_of_task(c), run_layer_norm_dx, &work);
    return true;
}

/* --- Sums over rows ----------------------------------------------------------------------------------------------- */

struct row_sums {
    const struct draft_kernels *kernels;
    int64_t rows, c, chunks;
    const float *x;
    float *parts; /* [b, chunks, c] */
};

static void run_row_sums(void *context, int64_t begin, int64_t end)
{
    const struct row_sums *s = context;
    for (int64_t part = begin; part < end; part++) {
        int64_t row = part % s->chunks * DRAFT_NORM_CHUNK;
        int64_t rows = s->rows - row < DRAFT_NORM_CHUNK ? s->rows - row : DRAFT_NORM_CHUNK;
        s->kernels->sum_rows(rows, s->c, s->x + (part / s->chunks * s->rows + row) * s->c, s->parts + part * s->c);
    }
}

bool draft_cpu_sum_rows(struct draft_backend *backend, int64_t b, int64_t rows, int64_t c, const float *x, float *sum,
                        bool accumulate, struct draft_error *err)
{
    int64_t chunks = (rows + DRAFT_NORM_CHUNK - 1) / DRAFT_NORM_CHUNK;
    if (!draft_scratch_reserve(backend, (size_t)(b * chunks * c) * sizeof(float), 0, err))
        return false;
    struct row_sums work = {backend->kernels, rows, c, chunks, x, draft_scratch_shared(backend)};
    draft_parallel_range(backend, b * chunks, 1 + 2 * TASK_FLOATS / (DRAFT_NORM_CHUNK * c), run_row_sums, &work);
    for (int64_t i = 0; i < b; i++)
        add_parts(chunks, c, c, work.parts + i * chunks * c, sum + i * c, accumulate);
    return true;
}
