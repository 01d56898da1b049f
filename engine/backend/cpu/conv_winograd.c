/* 3x3 convolution of stride 1 by Winograd F(4x4, 3x3): the weights' transform and the tasks; see kernels/winograd.c. */
#include "backend/cpu/state.h"

enum {
    MIN_CHANNELS = 16,
    MIN_SIZE = 3,
    /* Input times output channels. A transformed weight takes four times the plain one, forward and backward each. All
     * of Stable Diffusion's would be 8 GiB a direction; those up to here (its 64x64 and 32x32 levels) are 1.3, and two
     * thirds of the convolutions' arithmetic. */
    MAX_CHANNEL_PAIRS = 640 * 1920,
};

bool draft_winograd_wins(const struct draft_conv_shape *s)
{
    if (s->kh != 3 || s->kw != 3 || s->stride != 1 || s->c < MIN_CHANNELS || s->o < MIN_CHANNELS ||
        s->c * s->o > MAX_CHANNEL_PAIRS)
        return false;
    int64_t oh = draft_conv_out_h(s), ow = draft_conv_out_w(s);
    if (oh < MIN_SIZE || ow < MIN_SIZE || s->h < MIN_SIZE || s->w < MIN_SIZE)
        return false;
    /* Tiles past the edge are paid for in full. */
    int64_t tiles = (oh + 3) / 4 * ((ow + 3) / 4);
    if (tiles * 16 > 2 * oh * ow)
        return false;
    /* The transformed weight is four times the plain one and read once per block of tiles: with few tiles and many
     * channels that is more memory than it is worth. */
    return s->n * tiles >= 16 || s->c * s->o <= 512 * 512;
}

struct transform {
    const struct draft_kernels *kernels;
    struct draft_winograd_weights weights;
    int64_t columns;
    float *form;
};

static void transform_panel(void *context, int64_t panel, int thread)
{
    (void)thread;
    const struct transform *t = context;
    int64_t nr = t->kernels->nr, left = t->columns - panel * nr;
    struct draft_winograd_weights weights = t->weights;
    weights.w += panel * nr * weights.out_step;
    t->kernels->winograd_weights(&weights, left < nr ? left : nr, t->form + panel * 36 * weights.in * nr);
}

static void make_winograd(struct draft_backend *backend, const struct draft_tensor *w, void *context, float *form)
{
    bool backward = *(const bool *)context;
    int64_t o = w->dim[0], c = w->dim[3];
    struct transform t = {.kernels = backend->kernels,
                          .weights = {.w = draft_f32(w) + (backward ? 8 * c : 0),
                                      .in = backward ? o : c,
                                      .in_step = backward ? 9 * c : 1,
                                      .out_step = backward ? 1 : 9 * c,
                                      .tap_step = backward ? -c : c},
                          .columns = backward ? c : o,
                          .form = form};
    int64_t nr = backend->kernels->nr;
    draft_parallel(backend, (t.columns + nr - 1) / nr, transform_panel, &t);
}

struct winograd_tasks {
    struct draft_backend *backend;
    struct draft_winograd w;
    int64_t tiles, tiles_of_block, panels;
    int64_t v_floats; /* of a block */
    float *shared_v;
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
    t->backend->kernels->winograd_input(&t->w, first, count, v);
    for (int64_t panel = 0; panel < t->panels; panel++)
        t->backend->kernels->winograd_output(&t->w, first, count, panel, v, m);
}

/* With few blocks: all threads transform the input first, then share out blocks and panels. */
static void input_task(void *context, int64_t task, int thread)
{
    (void)thread;
    enum { TILES_AT_A_TIME = 4 };
    const struct winograd_tasks *t = context;
    int64_t per_block = (t->tiles_of_block + TILES_AT_A_TIME - 1) / TILES_AT_A_TIME;
    int64_t block = task / per_block, skip = task % per_block * TILES_AT_A_TIME, count = count_of(t, block) - skip;
    struct draft_winograd w = t->w;
    int64_t row = draft_round_up(w.c, t->backend->kernels->vector);
    if (count > 0)
        t->backend->kernels->winograd_input(&w, block * t->tiles_of_block + skip,
                                            count < TILES_AT_A_TIME ? count : TILES_AT_A_TIME,
                                            t->shared_v + block * t->v_floats + skip * row);
}

static void output_task(void *context, int64_t task, int thread)
{
    const struct winograd_tasks *t = context;
    int64_t block = task / t->panels;
    t->backend->kernels->winograd_output(&t->w, block * t->tiles_of_block, count_of(t, block), task % t->panels,
                                         t->shared_v + block * t->v_floats, draft_scratch_of(t->backend, thread));
}

bool draft_winograd_run(struct draft_backend *backend, const struct draft_conv_shape *shape, bool backward,
                        const float *x, struct draft_tensor *w, const float *bias, float *y, bool accumulate,
                        struct draft_error *err)
{
    const struct draft_kernels *kernels = backend->kernels;
    int64_t oh = draft_conv_out_h(shape), ow = draft_conv_out_w(shape);
    struct winograd_tasks tasks = {.backend = backend,
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
    tasks.tiles = shape->n * g->tile_rows * g->tile_columns;
    tasks.panels = (g->o + kernels->nr - 1) / kernels->nr;
    tasks.tiles_of_block = DRAFT_TILES / kernels->mr * kernels->mr;
    tasks.v_floats = 36 * DRAFT_WINOGRAD_STEP(draft_round_up(g->c, kernels->vector));
    int64_t m_floats = 36 * DRAFT_WINOGRAD_STEP(kernels->nr);
    int64_t blocks = (tasks.tiles + tasks.tiles_of_block - 1) / tasks.tiles_of_block;
    bool together = backend->threads > 1 && blocks < 4 * backend->threads;

    int64_t shared = together ? blocks * tasks.v_floats : 0;
    if (!draft_scratch_reserve(backend, (size_t)shared * sizeof(float),
                               (size_t)(m_floats + (together ? 0 : tasks.v_floats)) * sizeof(float), err))
        return false;
    bool turn = backward;
    g->transformed = draft_prepared_get(backend, w, backward ? DRAFT_FORM_WINOGRAD_BACKWARD : DRAFT_FORM_WINOGRAD,
                                        36 * tasks.panels * kernels->nr * g->c, make_winograd, &turn, NULL, err);
    if (!g->transformed)
        return false;
    tasks.shared_v = draft_scratch_shared(backend);
    if (!together) {
        draft_parallel(backend, blocks, block_task, &tasks);
        return true;
    }
    draft_parallel(backend, blocks * ((tasks.tiles_of_block + 3) / 4), input_task, &tasks);
    draft_parallel(backend, blocks * tasks.panels, output_task, &tasks);
    return true;
}
