/*
 * 3x3 convolution of stride 1 by Winograd F(4x4, 3x3): the weights' transform and the tasks; see kernels/winograd.c.
 *
 * A transformed weight is four times the plain one. It is made from the packed panels of W^T (the form that a direct
 * convolution would read), kept where memory allows, and otherwise made at each use: panel by panel in a thread's
 * scratch, where it stays in the cache while all tiles use it; or whole in the shared scratch, when the tiles are too
 * many to be transformed at once. With few tiles and many channels (8x8) the transform is never kept: to read it would
 * take longer than to make it, part after part of its depth, in the second cache.
 *
 * Where there are bf16 products the 36 products are of 16-bit words instead (kernels/words.h): as fast, and F(4x4, 3x3)
 * of bf16 numbers would be 1.1e-2 off a layer, direct bf16 2.4e-3, words 3e-3.
 */
#include "backend/cpu/state.h"

enum { MIN_CHANNELS = 16, MIN_SIZE = 3, MIN_TILES = 4 };
enum {
    PART = 128,          /* channels of a transform made in parts: 0.6 MB of it */
    PART_STEP = PART + 4 /* rows of its matrices, whose 36 places must not share cache sets */
};

static int64_t tiles_of(const struct draft_conv_shape *s)
{
    return (draft_conv_out_h(s) + 3) / 4 * ((draft_conv_out_w(s) + 3) / 4);
}

/* The transformed weight is four times the plain one and read once per block of tiles: with few tiles and many
 * channels that is more memory than it is worth. */
static bool in_parts(const struct draft_conv_shape *s)
{
    return s->n * tiles_of(s) < 16 && s->c * s->o > 512 * 512;
}

bool draft_winograd_wins(const struct draft_backend *backend, const struct draft_conv_shape *s)
{
    if (s->kh != 3 || s->kw != 3 || s->stride != 1 || s->c < MIN_CHANNELS || s->o < MIN_CHANNELS)
        return false;
    int64_t oh = draft_conv_out_h(s), ow = draft_conv_out_w(s);
    if (oh < MIN_SIZE || ow < MIN_SIZE || s->h < MIN_SIZE || s->w < MIN_SIZE)
        return false;
    /* Tiles past the edge are paid for in full. */
    if (tiles_of(s) * 16 > 2 * oh * ow)
        return false;
    /* Words have factors for the whole depth. */
    return !in_parts(s) || (s->n * tiles_of(s) >= MIN_TILES && !draft_has_pairs(backend));
}

/* The transform of one weight, in one direction, from its packed panels of W^T. */
struct transform {
    struct draft_backend *backend;
    const struct draft_kernels *kernels;
    const float *packed; /* [o panels][9][c][nr] */
    int64_t c, o;
    bool backward, words;
    float *form;
};

static int64_t inputs_of(const struct transform *t)
{
    return t->backward ? t->o : t->c;
}

/* Input channels first .. first+count-1 of one panel, [36][step][nr]; first is a multiple of nr. Backward, outputs are
 * c and inputs o, and the kernel is turned around. */
static void transform_part(const struct transform *t, int64_t panel, int64_t first, int64_t count, int64_t step,
                           float *out)
{
    int64_t nr = t->kernels->nr, whole = 9 * t->c * nr, output = panel * nr;
    struct draft_winograd_weights w = {.w = t->packed + panel * whole + first * nr,
                                       .in = count,
                                       .in_step = nr,
                                       .out_step = 1,
                                       .tap_step = t->c * nr,
                                       .depth = step};
    if (!t->backward) {
        t->kernels->winograd_weights(&w, t->o - output < nr ? t->o - output : nr, out);
        return;
    }
    for (int64_t o = first; o < first + count; o += nr) {
        w = (struct draft_winograd_weights){.w = t->packed + o / nr * whole + (8 * t->c + output) * nr,
                                            .in = first + count - o < nr ? first + count - o : nr,
                                            .in_step = 1,
                                            .out_step = nr,
                                            .tap_step = -t->c * nr,
                                            .depth = step};
        t->kernels->winograd_weights(&w, t->c - output < nr ? t->c - output : nr, out + (o - first) * nr);
    }
}

/* Of floats [36][inputs][nr]; of words half as many pairs and the factors [36][nr]. */
static int64_t panel_floats(const struct transform *t)
{
    return 36 * (t->words ? inputs_of(t) / 2 + 1 : inputs_of(t)) * t->kernels->nr;
}

static void transform_task(void *context, int64_t panel, int thread)
{
    const struct transform *t = context;
    float *form = t->form + panel * panel_floats(t);
    float *floats = t->words ? draft_scratch_of(t->backend, thread) : form;
    transform_part(t, panel, 0, inputs_of(t), inputs_of(t), floats);
    if (t->words)
        t->kernels->words(inputs_of(t), floats, form);
}

static bool make_winograd(struct draft_backend *backend, const struct draft_tensor *w, const void *context, void *form,
                          struct draft_error *err)
{
    (void)w, (void)err;
    struct transform t = *(const struct transform *)context;
    int64_t nr = backend->kernels->nr, outputs = t.backward ? t.c : t.o;
    t.form = form;
    draft_parallel(backend, (outputs + nr - 1) / nr, transform_task, &t);
    return true;
}

struct winograd_tasks {
    struct draft_backend *backend;
    const struct draft_winograd_kernels *kernels;
    struct draft_winograd w;
    int64_t tiles, tiles_of_block, panels;
    int64_t v_floats, m_floats; /* of a block: its input transformed; its products with one panel */
    int64_t tile_floats;        /* scratch of a tile's transform */
    float *shared_v;
    bool in_parts;
    const struct transform *transform;
};

static int64_t count_of(const struct winograd_tasks *t, int64_t block)
{
    int64_t left = t->tiles - block * t->tiles_of_block;
    return left < t->tiles_of_block ? left : t->tiles_of_block;
}

/* A block of tiles from start to end. */
static void block_task(void *context, int64_t block, int thread)
{
    const struct winograd_tasks *t = context;
    float *v = draft_scratch_of(t->backend, thread), *m = v + t->v_floats;
    int64_t first = block * t->tiles_of_block, count = count_of(t, block);
    t->kernels->input(&t->w, first, count, 0, v, m + t->m_floats);
    for (int64_t panel = 0; panel < t->panels; panel++)
        t->kernels->output(&t->w, first, count, panel, v, m);
}

/* With few blocks: all threads transform the input first, then share out blocks and panels. */
static void input_task(void *context, int64_t task, int thread)
{
    enum { TILES_AT_A_TIME = 4 };
    const struct winograd_tasks *t = context;
    int64_t per_block = (t->tiles_of_block + TILES_AT_A_TIME - 1) / TILES_AT_A_TIME;
    int64_t block = task / per_block, skip = task % per_block * TILES_AT_A_TIME, count = count_of(t, block) - skip;
    if (count > 0)
        t->kernels->input(&t->w, block * t->tiles_of_block + skip, count < TILES_AT_A_TIME ? count : TILES_AT_A_TIME,
                          skip, t->shared_v + block * t->v_floats, draft_scratch_of(t->backend, thread));
}

static void output_task(void *context, int64_t task, int thread)
{
    const struct winograd_tasks *t = context;
    int64_t block = task / t->panels;
    t->kernels->output(&t->w, block * t->tiles_of_block, count_of(t, block), task % t->panels,
                       t->shared_v + block * t->v_floats, draft_scratch_of(t->backend, thread));
}

/* The weight's transform is made where it is used: one panel for all blocks. In parts there is one block. */
static void panel_task(void *context, int64_t panel, int thread)
{
    const struct winograd_tasks *t = context;
    int64_t blocks = (t->tiles + t->tiles_of_block - 1) / t->tiles_of_block;
    float *m = draft_scratch_of(t->backend, thread), *transformed = m + t->m_floats;
    struct draft_winograd w = t->w;
    w.transformed = transformed;
    w.panel_step = 0;
    for (; w.from < w.c; w.from += w.depth) {
        w.depth = w.c - w.from < t->w.depth ? w.c - w.from : t->w.depth;
        transform_part(t->transform, panel, w.from, w.depth, w.depth_step, transformed);
        if (t->transform->words)
            t->backend->kernels->words(w.c, transformed, transformed);
        for (int64_t block = 0; block < blocks; block++)
            t->kernels->output(&w, block * t->tiles_of_block, count_of(t, block), panel,
                               t->shared_v + block * t->v_floats, m);
    }
}

/* Where the pieces of a run's scratch are, in floats. */
struct layout {
    int64_t packed, transformed, shared; /* shared: all of it; the tiles come first */
    int64_t each;
    bool together; /* all tiles are transformed before the products begin */
    bool fused;    /* and the weight's panels between them */
    bool made;     /* the transform is there */
    bool kept;     /* or will be, its source for the moment only */
};

static struct layout lay_out(const struct winograd_tasks *t, const struct draft_tensor *w,
                             const struct draft_recipe *packed, const struct draft_recipe *transformed)
{
    const struct draft_backend *backend = t->backend;
    int64_t blocks = (t->tiles + t->tiles_of_block - 1) / t->tiles_of_block;
    bool kept = !t->in_parts && draft_prepared_keeps(backend, w, transformed->form, transformed->bytes);
    bool made = draft_prepared_has(backend, w, transformed->form), few = blocks < (int64_t)4 * backend->threads;
    struct layout l = {.together = few && (backend->threads > 1 || !kept), .made = made, .kept = kept};
    l.fused = l.together && !kept;
    l.packed = l.together ? blocks * t->v_floats : 0;
    /* A kept transform needs its source once: no reason to keep that too. */
    size_t source = made ? 0 : kept ? packed->bytes : draft_prepared_scratch(backend, w, packed);
    l.transformed = l.packed + draft_round_up((int64_t)(source / sizeof(float)), 16);
    l.shared = l.transformed + (kept || l.fused ? 0 : (int64_t)(transformed->bytes / sizeof(float)));
    /* A panel of floats, where panels are made beside products or become words; else a tile of them. */
    bool panel = l.fused || (t->transform->words && !made);
    l.each = t->m_floats + (l.together ? 0 : t->v_floats) +
             (panel ? 36 * t->w.depth_step * backend->kernels->nr : t->tile_floats);
    return l;
}

bool draft_winograd_run(struct draft_backend *backend, const struct draft_conv_shape *shape, bool backward,
                        const float *x, struct draft_tensor *w, const float *bias, float *y, bool accumulate,
                        struct draft_error *err)
{
    const struct draft_kernels *kernels = backend->kernels;
    int64_t oh = draft_conv_out_h(shape), ow = draft_conv_out_w(shape);
    struct transform transform = {
        .backend = backend, .kernels = kernels, .c = shape->c, .o = shape->o, .backward = backward};
    transform.words = draft_has_pairs(backend) && inputs_of(&transform) % 2 == 0;
    struct winograd_tasks tasks = {.backend = backend,
                                   .kernels = transform.words ? &kernels->winograd_words : &kernels->winograd,
                                   .transform = &transform,
                                   .w = {.x = x,
                                         .h = backward ? oh : shape->h,
                                         .w = backward ? ow : shape->w,
                                         .c = backward ? shape->o : shape->c,
                                         .oh = backward ? shape->h : oh,
                                         .ow = backward ? shape->w : ow,
                                         .o = backward ? shape->c : shape->o,
                                         .pad_top = backward ? 2 - shape->pad_top : shape->pad_top,
                                         .pad_left = backward ? 2 - shape->pad_left : shape->pad_left,
                                         .bias = bias,
                                         .y = y,
                                         .accumulate = accumulate}};
    struct draft_winograd *g = &tasks.w;
    g->tile_rows = (g->oh + 3) / 4;
    g->tile_columns = (g->ow + 3) / 4;
    g->panel_step = panel_floats(&transform);
    tasks.tiles = shape->n * g->tile_rows * g->tile_columns;
    tasks.panels = (g->o + kernels->nr - 1) / kernels->nr;
    tasks.in_parts = in_parts(shape);
    g->depth = tasks.in_parts && g->c > PART ? PART : g->c;
    g->depth_step = tasks.in_parts ? PART_STEP : g->c;
    tasks.tiles_of_block = DRAFT_TILES / kernels->mr * kernels->mr;
    int64_t row = draft_round_up(g->c, kernels->vector);
    tasks.v_floats = 36 * (transform.words ? DRAFT_WINOGRAD_STEP(row / 2) + DRAFT_TILES : DRAFT_WINOGRAD_STEP(row));
    tasks.tile_floats = transform.words ? 36 * row : 0;
    tasks.m_floats = 36 * DRAFT_WINOGRAD_STEP(kernels->nr);
    int64_t blocks = (tasks.tiles + tasks.tiles_of_block - 1) / tasks.tiles_of_block;

    struct draft_recipe packed = draft_forward_recipe(backend, w);
    struct draft_recipe transformed = {backward ? DRAFT_FORM_WINOGRAD_BACKWARD : DRAFT_FORM_WINOGRAD,
                                       (size_t)(tasks.panels * g->panel_step) * sizeof(float), make_winograd,
                                       &transform, 0};
    struct layout l = lay_out(&tasks, w, &packed, &transformed);
    if (!draft_scratch_reserve(backend, (size_t)l.shared * sizeof(float), (size_t)l.each * sizeof(float), err))
        return false;
    float *shared = draft_scratch_shared(backend);
    if (!l.made && !(transform.packed = l.kept ? draft_prepared_borrow(backend, w, &packed, shared + l.packed, err)
                                               : draft_prepared_get(backend, w, &packed, shared + l.packed, err)))
        return false;
    if (!l.fused && !(g->transformed = draft_prepared_get(backend, w, &transformed, shared + l.transformed, err)))
        return false;
    tasks.shared_v = shared;
    if (!l.together) {
        draft_parallel(backend, blocks, block_task, &tasks);
        return true;
    }
    draft_parallel(backend, blocks * ((tasks.tiles_of_block + 3) / 4), input_task, &tasks);
    if (l.fused)
        draft_parallel(backend, tasks.panels, panel_task, &tasks);
    else
        draft_parallel(backend, blocks * tasks.panels, output_task, &tasks);
    return true;
}
