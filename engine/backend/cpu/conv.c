/*
 * Convolution on NHWC as matrix products over gathered pixels: y = gather(x) W^T + b.
 *
 * Backward to data is the same thing turned around. With stride s the input pixels fall into s*s phases by
 * (row + pad_top) mod s and (column + pad_left) mod s; the pixels of one phase see the same taps of the kernel, one
 * every s, so each phase is a stride-1 convolution of dy with a part of the weight: no scattering, every pixel is
 * written once. 3x3 convolutions of stride 1 mostly go to conv_winograd.c, 1x1 ones to the linear layer, patches
 * (stride = kernel) to conv_patch.c on the way back.
 */
#include <assert.h>
#include <string.h>

#include "backend/cpu/state.h"

enum { BLOCK_PIXELS = 96, GRADIENT_PIXELS = 256 };

/* Which source pixels make a row of the left matrix: pixel (gy, gx) of the grid takes source pixels
 * (gy*step + top + ty, gx*step + left + tx) for all taps; zeros outside. */
struct gather {
    const float *source; /* [n, h, w, c] */
    int64_t h, w, c;
    int64_t n, rows, columns; /* the grid, image by image */
    int64_t step, top, left;
    int64_t tap_rows, tap_columns;
};

struct conv_tasks {
    struct draft_backend *backend;
    struct gather gather;
    int64_t depth;       /* taps * c */
    int64_t n;           /* output channels */
    const float *packed; /* panels, of pairs or not, or [n, depth] when thin */
    bool thin, pairs;
    const float *bias;
    bool accumulate;
    int64_t pixels_of_task, columns_of_task, column_tasks;
    /* pixel (gy, gx) of the grid is written to (gy*out_step + out_top, gx*out_step + out_left) of [n, out_h, out_w] */
    float *out;
    int64_t out_h, out_w, out_step, out_top, out_left;
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* One row of `width` = tap_columns * c floats for a tap row that may lie partly outside. */
static void gather_run(const struct gather *g, int64_t image, int64_t y, int64_t x, float *out)
{
    size_t width = (size_t)(g->tap_columns * g->c) * sizeof(float);
    if (y < 0 || y >= g->h) {
        memset(out, 0, width);
        return;
    }
    const float *row = g->source + (image * g->h + y) * g->w * g->c;
    if (x >= 0 && x + g->tap_columns <= g->w) {
        memcpy(out, row + x * g->c, width);
        return;
    }
    for (int64_t t = 0; t < g->tap_columns; t++, out += g->c) {
        if (x + t >= 0 && x + t < g->w)
            memcpy(out, row + (x + t) * g->c, (size_t)g->c * sizeof(float));
        else
            memset(out, 0, (size_t)g->c * sizeof(float));
    }
}

/* Rows first .. first+count-1 of the left matrix. */
static void gather_pixels(const struct gather *g, int64_t first, int64_t count, float *out)
{
    int64_t width = g->tap_columns * g->c;
    int64_t gx = first % g->columns, gy = first / g->columns % g->rows, image = first / (g->columns * g->rows);
    for (int64_t p = 0; p < count; p++) {
        for (int64_t t = 0; t < g->tap_rows; t++, out += width)
            gather_run(g, image, gy * g->step + g->top + t, gx * g->step + g->left, out);
        if (++gx == g->columns) {
            gx = 0;
            if (++gy == g->rows) {
                gy = 0;
                image++;
            }
        }
    }
}

/* Moves finished rows [count, width] to their pixels of the output, `column` channels in. */
static void place(const struct conv_tasks *t, int64_t first, int64_t count, int64_t column, int64_t width,
                  const float *rows)
{
    const struct gather *g = &t->gather;
    for (int64_t p = first; p < first + count; p++, rows += width) {
        int64_t x = p % g->columns * t->out_step + t->out_left;
        int64_t y = p / g->columns % g->rows * t->out_step + t->out_top;
        float *out = t->out + ((p / (g->columns * g->rows) * t->out_h + y) * t->out_w + x) * t->n + column;
        if (!t->accumulate) {
            memcpy(out, rows, (size_t)width * sizeof(float));
            continue;
        }
        for (int64_t i = 0; i < width; i++)
            out[i] += rows[i];
    }
}

static void conv_task(void *context, int64_t task, int thread)
{
    const struct conv_tasks *t = context;
    const struct draft_kernels *kernels = t->backend->kernels;
    int64_t pixels = t->gather.n * t->gather.rows * t->gather.columns;
    int64_t first = task / t->column_tasks * t->pixels_of_task, count = least(t->pixels_of_task, pixels - first);
    int64_t column = task % t->column_tasks * t->columns_of_task, width = least(t->columns_of_task, t->n - column);
    float *left = draft_scratch_of(t->backend, thread), *rows = left + t->pixels_of_task * t->depth;
    float *pairs = rows + (t->out_step > 1 ? t->pixels_of_task * t->columns_of_task : 0);
    bool straight = t->out_step == 1;
    int64_t elements = t->pairs ? draft_pairs_of(t->depth) : t->depth;
    gather_pixels(&t->gather, first, count, left);
    if (t->pairs)
        kernels->pair_columns(count, t->depth, left, t->depth, pairs, draft_pairs_step(t->depth));
    struct draft_block block = {.m = count,
                                .n = width,
                                .k = elements,
                                .a = t->pairs ? pairs : left,
                                .a_row = t->pairs ? draft_pairs_step(t->depth) : t->depth,
                                .a_col = 1,
                                .b = t->packed + column * elements,
                                .b_panel = elements * kernels->nr,
                                .b_row = kernels->nr,
                                .c = straight ? t->out + first * t->n + column : rows,
                                .ldc = straight ? t->n : width,
                                .alpha = 1.0f,
                                .bias = t->bias ? t->bias + column : NULL,
                                .accumulate = straight && t->accumulate};
    if (t->thin)
        kernels->thin(count, width, t->depth, left, t->depth, block.b, t->depth, block.c, block.ldc, 1.0f, block.bias,
                      block.accumulate);
    else
        (t->pairs ? kernels->block_pairs : kernels->block)(&block);
    if (!straight)
        place(t, first, count, column, width, rows);
}

/* Sets the sizes of tasks; false when scratch is out. */
static bool cut(struct conv_tasks *t, struct draft_error *err)
{
    int64_t nr = t->backend->kernels->nr, pixels = t->gather.n * t->gather.rows * t->gather.columns;
    int64_t want = t->backend->threads > 1 ? 4 * t->backend->threads : 1;
    t->pixels_of_task = least(BLOCK_PIXELS, pixels);
    int64_t row_tasks = (pixels + t->pixels_of_task - 1) / t->pixels_of_task;
    if (row_tasks < want && pixels > t->backend->kernels->mr * want) {
        t->pixels_of_task = draft_round_up((pixels + want - 1) / want, t->backend->kernels->mr);
        row_tasks = (pixels + t->pixels_of_task - 1) / t->pixels_of_task;
    }
    int64_t panels = t->thin ? 1 : (t->n + nr - 1) / nr, pieces = least(panels, (want + row_tasks - 1) / row_tasks);
    t->columns_of_task = t->thin ? t->n : (panels + pieces - 1) / pieces * nr;
    t->column_tasks = (t->n + t->columns_of_task - 1) / t->columns_of_task;
    int64_t each = t->pixels_of_task * (t->depth + (t->out_step > 1 ? t->columns_of_task : 0) +
                                        (t->pairs ? draft_pairs_step(t->depth) : 0));
    return draft_scratch_reserve(t->backend, 0, (size_t)each * sizeof(float), err);
}

static void run(struct conv_tasks *t)
{
    int64_t pixels = t->gather.n * t->gather.rows * t->gather.columns;
    int64_t row_tasks = (pixels + t->pixels_of_task - 1) / t->pixels_of_task;
    draft_parallel(t->backend, row_tasks * t->column_tasks, conv_task, t);
}

static bool is_pointwise(const struct draft_conv_shape *s)
{
    return s->kh == 1 && s->kw == 1 && s->stride == 1 && s->pad_top == 0 && s->pad_left == 0 && s->pad_bottom == 0 &&
           s->pad_right == 0;
}

static void check(const struct draft_conv_shape *s)
{
    assert(s->stride > 0 && s->kh > 0 && s->kw > 0 && s->c > 0 && s->o > 0);
    assert(draft_conv_out_h(s) > 0 && draft_conv_out_w(s) > 0);
    (void)s;
}

bool draft_cpu_conv2d(struct draft_backend *backend, const struct draft_conv_shape *shape, const float *x,
                      struct draft_tensor *w, const float *bias, float *y, struct draft_error *err)
{
    check(shape);
    if (is_pointwise(shape))
        return draft_cpu_linear(backend, shape->n * shape->h * shape->w, x, w, bias, NULL, y, false, err);
    if (!w->needs_grad && draft_winograd_wins(backend, shape))
        return draft_winograd_run(backend, shape, false, x, w, bias, y, false, err);
    struct conv_tasks tasks = {.backend = backend,
                               .gather = {.source = x,
                                          .h = shape->h,
                                          .w = shape->w,
                                          .c = shape->c,
                                          .n = shape->n,
                                          .rows = draft_conv_out_h(shape),
                                          .columns = draft_conv_out_w(shape),
                                          .step = shape->stride,
                                          .top = -shape->pad_top,
                                          .left = -shape->pad_left,
                                          .tap_rows = shape->kh,
                                          .tap_columns = shape->kw},
                               .depth = shape->kh * shape->kw * shape->c,
                               .n = shape->o,
                               .bias = bias,
                               .out = y,
                               .out_step = 1};
    tasks.thin = draft_is_thin(backend, tasks.n, tasks.depth);
    struct draft_recipe recipe = tasks.thin ? draft_rows_recipe(w) : draft_forward_product_recipe(backend, w);
    tasks.pairs = draft_is_pairs(recipe.form);
    tasks.packed = draft_form_of(backend, w, &recipe, err);
    if (!tasks.packed || !cut(&tasks, err))
        return false;
    run(&tasks);
    return true;
}

/* --- Backward to data --------------------------------------------------------------------------------------------- */

/* The taps of one phase along one axis: kernel rows first, first+stride, ... (`count`), and where they lie in dy. */
struct phase {
    int64_t begin; /* first input pixel of the phase */
    int64_t pixels;
    int64_t first, count;
    int64_t offset; /* output pixel = grid pixel + offset + tap, taps counted from the last kernel row down */
};

static struct phase phase_of(int64_t phase, int64_t stride, int64_t pad, int64_t kernel, int64_t size)
{
    struct phase p = {.first = phase};
    p.begin = ((phase - pad) % stride + stride) % stride;
    p.pixels = p.begin < size ? (size - p.begin + stride - 1) / stride : 0;
    p.count = phase < kernel ? (kernel - phase + stride - 1) / stride : 0;
    /* output = (input + pad - row) / stride, row = first + stride * (count - 1 - tap) */
    p.offset = (p.begin + pad - phase) / stride - (p.count - 1);
    return p;
}

/* Offset of a phase's packed weights: phases one after another, row-major. */
struct backward_form {
    const struct draft_conv_shape *shape;
    bool thin, pairs; /* pairs: of neighbouring output channels of a tap */
};

static int64_t phase_floats(const struct draft_backend *backend, const struct backward_form *form, int64_t taps)
{
    int64_t depth = taps * form->shape->o, c = form->shape->c;
    return form->thin ? depth * c : draft_packed_size(backend, form->pairs ? depth / 2 : depth, c);
}

struct phase_rows {
    const struct draft_kernels *kernels;
    const struct backward_form *of;
    struct phase py, px;
    float *form;
};

/* Output channels first .. first+count-1: their rows of each tap of the right matrix. */
static void pack_phase(void *context, int64_t first, int64_t count, const float *values)
{
    const struct phase_rows *r = context;
    const struct draft_conv_shape *s = r->of->shape;
    bool thin = r->of->thin, pairs = r->of->pairs;
    int64_t nr = r->kernels->nr, row = s->kh * s->kw * s->c, depth = r->py.count * r->px.count * s->o;
    for (int64_t ty = 0; ty < r->py.count; ty++)
        for (int64_t tx = 0; tx < r->px.count; tx++) {
            int64_t ky = r->py.first + s->stride * (r->py.count - 1 - ty),
                    kx = r->px.first + s->stride * (r->px.count - 1 - tx);
            int64_t at = (ty * r->px.count + tx) * s->o + first; /* row of the right matrix */
            const float *tap = values + (ky * s->kw + kx) * s->c;
            for (int64_t o = 0; thin && o < count; o++)
                for (int64_t c = 0; c < s->c; c++)
                    r->form[c * depth + at + o] = tap[o * row + c];
            for (int64_t c = 0; !thin && c < s->c; c += nr) {
                int64_t columns = least(nr, s->c - c);
                if (pairs)
                    r->kernels->pair_rows(count, columns, tap + c, row, r->form + (c * depth + at * nr) / 2, nr, nr);
                else
                    r->kernels->pack_panel(count, columns, tap + c, row, false, r->form + c * depth + at * nr);
            }
        }
}

static bool make_phases(struct draft_backend *backend, const struct draft_tensor *w, const void *context, void *memory,
                        struct draft_error *err)
{
    const struct backward_form *b = context;
    const struct draft_conv_shape *s = b->shape;
    float *form = memory;
    for (int64_t y = 0; y < s->stride; y++)
        for (int64_t x = 0; x < s->stride; x++) {
            struct phase_rows rows = {.kernels = backend->kernels,
                                      .of = b,
                                      .py = phase_of(y, s->stride, s->pad_top, s->kh, s->h),
                                      .px = phase_of(x, s->stride, s->pad_left, s->kw, s->w),
                                      .form = form};
            if (!draft_weight_pieces(backend, w, backend->kernels->nr, pack_phase, &rows, err))
                return false;
            form += phase_floats(backend, b, rows.py.count * rows.px.count);
        }
    return true;
}

bool draft_cpu_conv2d_dx(struct draft_backend *backend, const struct draft_conv_shape *shape, const float *dy,
                         struct draft_tensor *w, float *dx, bool accumulate, struct draft_error *err)
{
    check(shape);
    if (is_pointwise(shape))
        return draft_cpu_linear_dx(backend, shape->n * shape->h * shape->w, dy, w, NULL, dx, accumulate, err);
    if (!w->needs_grad && draft_winograd_wins(backend, shape))
        return draft_winograd_run(backend, shape, true, dy, w, NULL, dx, accumulate, err);
    if (draft_patch_applies(shape))
        return draft_patch_dx(backend, shape, dy, w, dx, accumulate, err);
    const struct draft_conv_shape *s = shape;
    struct backward_form form = {.shape = s, .thin = draft_is_thin(backend, s->c, s->o)};
    form.pairs = draft_has_pairs(backend) && !form.thin && s->o % 2 == 0; /* else a pair would straddle two taps */
    int64_t floats = 0;
    for (int64_t y = 0; y < s->stride; y++)
        for (int64_t x = 0; x < s->stride; x++)
            floats += phase_floats(backend, &form,
                                   phase_of(y, s->stride, s->pad_top, s->kh, s->h).count *
                                       phase_of(x, s->stride, s->pad_left, s->kw, s->w).count);
    struct draft_recipe recipe = {form.pairs ? DRAFT_FORM_BACKWARD_PAIRS : DRAFT_FORM_BACKWARD,
                                  (size_t)floats * sizeof(float), make_phases, &form, 0};
    const float *packed = draft_form_of(backend, w, &recipe, err);
    if (!packed)
        return false;
    for (int64_t y = 0; y < s->stride; y++)
        for (int64_t x = 0; x < s->stride; x++) {
            struct phase py = phase_of(y, s->stride, s->pad_top, s->kh, s->h);
            struct phase px = phase_of(x, s->stride, s->pad_left, s->kw, s->w);
            struct conv_tasks tasks = {.backend = backend,
                                       .gather = {.source = dy,
                                                  .h = draft_conv_out_h(s),
                                                  .w = draft_conv_out_w(s),
                                                  .c = s->o,
                                                  .n = s->n,
                                                  .rows = py.pixels,
                                                  .columns = px.pixels,
                                                  .step = 1,
                                                  .top = py.offset,
                                                  .left = px.offset,
                                                  .tap_rows = py.count,
                                                  .tap_columns = px.count},
                                       .depth = py.count * px.count * s->o,
                                       .n = s->c,
                                       .packed = packed,
                                       .thin = form.thin,
                                       .pairs = form.pairs,
                                       .accumulate = accumulate,
                                       .out = dx,
                                       .out_h = s->h,
                                       .out_w = s->w,
                                       .out_step = s->stride,
                                       .out_top = py.begin,
                                       .out_left = px.begin};
            packed += phase_floats(backend, &form, py.count * px.count);
            if (py.pixels == 0 || px.pixels == 0)
                continue;
            if (!cut(&tasks, err))
                return false;
            run(&tasks);
        }
    return true;
}

/* --- Backward to weights ------------------------------------------------------------------------------------------ */

struct gradient_tasks {
    struct draft_backend *backend;
    const struct draft_conv_shape *shape;
    struct gather gather; /* of a single tap */
    const float *dy;
    float *dw;
    bool accumulate;
    int64_t step; /* c rounded up to a panel */
};

/* dw[:, ky, kx, :] = sum over pixels of dy^T x, block by block of pixels. */
static void gradient_task(void *context, int64_t task, int thread)
{
    const struct gradient_tasks *t = context;
    const struct draft_conv_shape *s = t->shape;
    struct gather gather = t->gather;
    gather.top += task / s->kw;
    gather.left += task % s->kw;
    float *pixels = draft_scratch_of(t->backend, thread), *padded = pixels + GRADIENT_PIXELS * s->c;
    int64_t total = gather.n * gather.rows * gather.columns;
    for (int64_t first = 0; first < total; first += GRADIENT_PIXELS) {
        int64_t count = least(GRADIENT_PIXELS, total - first);
        gather_pixels(&gather, first, count, pixels);
        for (int64_t p = 0; t->step != s->c && p < count; p++) {
            memcpy(padded + p * t->step, pixels + p * s->c, (size_t)s->c * sizeof(float));
            memset(padded + p * t->step + s->c, 0, (size_t)(t->step - s->c) * sizeof(float));
        }
        struct draft_block block = {.m = s->o,
                                    .n = s->c,
                                    .k = count,
                                    .a = t->dy + first * s->o,
                                    .a_row = 1,
                                    .a_col = s->o,
                                    .b = t->step != s->c ? padded : pixels,
                                    .b_panel = t->backend->kernels->nr,
                                    .b_row = t->step,
                                    .c = t->dw + task * s->c,
                                    .ldc = s->kh * s->kw * s->c,
                                    .alpha = 1.0f,
                                    .accumulate = t->accumulate || first > 0};
        t->backend->kernels->block(&block);
    }
}

bool draft_cpu_conv2d_dw(struct draft_backend *backend, const struct draft_conv_shape *shape, const float *x,
                         const float *dy, float *dw, bool accumulate, struct draft_error *err)
{
    check(shape);
    if (is_pointwise(shape))
        return draft_cpu_linear_dw(backend, shape->n * shape->h * shape->w, shape->o, shape->c, x, dy, dw, accumulate,
                                   err);
    struct gradient_tasks tasks = {.backend = backend,
                                   .shape = shape,
                                   .gather = {.source = x,
                                              .h = shape->h,
                                              .w = shape->w,
                                              .c = shape->c,
                                              .n = shape->n,
                                              .rows = draft_conv_out_h(shape),
                                              .columns = draft_conv_out_w(shape),
                                              .step = shape->stride,
                                              .top = -shape->pad_top,
                                              .left = -shape->pad_left,
                                              .tap_rows = 1,
                                              .tap_columns = 1},
                                   .dy = dy,
                                   .dw = dw,
                                   .accumulate = accumulate,
                                   .step = draft_round_up(shape->c, backend->kernels->nr)};
    size_t each = (size_t)(GRADIENT_PIXELS * (shape->c + tasks.step)) * sizeof(float);
    if (!draft_scratch_reserve(backend, 0, each, err))
        return false;
    draft_parallel(backend, shape->kh * shape->kw, gradient_task, &tasks);
    return true;
}
