/*
 * Winograd F(4x4, 3x3) (Lavin and Gray 2015) on NHWC, points 0, +-a, +-b, infinity with a = 0.625, b = 1.5: fp32 error
 * of a few 1e-7, a quarter of the multiplications. A 6x6 patch of input gives a 4x4 tile of output; the 36 products
 * between are plain matrix products over channels.
 */
#include "backend/cpu/kernels/kernels_isa.h"
#include "backend/cpu/kernels/words.h"

static const float A = 0.625f, B = 1.5f;

/* G: the filter's values at the points, over the points' norms; the last is its leading coefficient. */
INLINE void filter_transform(const vf *g, int step, vf *out, int out_step)
{
    const double a = (double)A, b = (double)B, a2 = a * a, b2 = b * b;
    const double na = 1 / (2 * a2 * (a2 - b2)), nb = 1 / (2 * b2 * (b2 - a2));
    vf p = (float)na * g[0] + (float)(na * a2) * g[2 * step], q = (float)(na * a) * g[step];
    vf r = (float)nb * g[0] + (float)(nb * b2) * g[2 * step], t = (float)(nb * b) * g[step];
    out[0] = (float)(1 / (a2 * b2)) * g[0];
    out[1 * out_step] = p + q;
    out[2 * out_step] = p - q;
    out[3 * out_step] = r + t;
    out[4 * out_step] = r - t;
    out[5 * out_step] = g[2 * step];
}

/* The taps of `inputs` input channels from `in`, [inputs][9][NR], where they are neighbours and outputs are not. */
static void turn_taps(const struct draft_winograd_weights *w, int64_t in, int64_t inputs, int64_t columns, float *taps)
{
    int64_t quads = inputs == 4 ? columns / 4 * 4 : 0;
    for (int64_t t = 0; t < 9; t++) {
        const float *from = w->w + in + t * w->tap_step;
        for (int64_t j = 0; j < quads; j += 4) {
            v4 turned[4];
            turn_four(from + j * w->out_step, w->out_step, turned);
            for (int64_t i = 0; i < 4; i++)
                *(v4u *)(taps + (i * 9 + t) * NR + j) = turned[i];
        }
        for (int64_t i = 0; i < inputs; i++)
            for (int64_t j = quads; j < NR; j++)
                taps[(i * 9 + t) * NR + j] = j < columns ? from[j * w->out_step + i] : 0.0f;
    }
}

void ISA(winograd_weights)(const struct draft_winograd_weights *w, int64_t columns, float *panel)
{
    enum { INPUTS = 4 };
    float taps[INPUTS * 9 * NR] __attribute__((aligned(64)));
    bool turned = w->out_step != 1;
    for (int64_t c = 0, inputs; c < w->in; c += inputs) {
        inputs = !turned ? 1 : w->in - c < INPUTS ? w->in - c : INPUTS;
        if (turned)
            turn_taps(w, c, inputs, columns, taps);
        const float *tap = turned ? taps : w->w + c * w->in_step;
        int64_t tap_step = turned ? NR : w->tap_step;
        for (int64_t i = 0; i < inputs; i++, tap += 9 * NR)
            for (int64_t j = 0; j < NR; j += VL) {
                vf g[9], half[18], e[6];
#pragma GCC unroll 9
                for (int t = 0; t < 9; t++)
                    g[t] = load(tap + t * tap_step + j);
#pragma GCC unroll 3
                for (int x = 0; x < 3; x++)
                    filter_transform(g + x, 3, half + x, 3);
#pragma GCC unroll 6
                for (int k = 0; k < 6; k++) {
                    filter_transform(half + 3 * k, 1, e, 1);
#pragma GCC unroll 6
                    for (int q = 0; q < 6; q++)
                        store(panel + ((k * 6 + q) * w->depth + c + i) * NR + j, e[q]);
                }
            }
    }
}

INLINE void input_transform(const vf *d, int step, vf *out, int out_step)
{
    const float a2 = A * A, b2 = B * B;
    vf e = d[4 * step] - b2 * d[2 * step], f = A * (d[3 * step] - b2 * d[1 * step]);
    vf g = d[4 * step] - a2 * d[2 * step], h = B * (d[3 * step] - a2 * d[1 * step]);
    out[0] = a2 * b2 * d[0] - (a2 + b2) * d[2 * step] + d[4 * step];
    out[1 * out_step] = e + f;
    out[2 * out_step] = e - f;
    out[3 * out_step] = g + h;
    out[4 * out_step] = g - h;
    out[5 * out_step] = a2 * b2 * d[1 * step] - (a2 + b2) * d[3 * step] + d[5 * step];
}

INLINE void output_transform(const vf *m, int step, vf *out, int out_step)
{
    vf p = m[1 * step] + m[2 * step], q = m[1 * step] - m[2 * step];
    vf r = m[3 * step] + m[4 * step], t = m[3 * step] - m[4 * step];
    out[0] = m[0] + p + r;
    out[1 * out_step] = A * q + B * t;
    out[2 * out_step] = A * A * p + B * B * r;
    out[3 * out_step] = A * A * A * q + B * B * B * t + m[5 * step];
}

/* Where the 36 pixels of a tile lie. */
struct patch {
    const float *pixel[36]; /* `nothing` outside the image */
    int64_t mask[36];       /* of the channel's number: there it is always 0 */
};

static const float nothing[VL];

static const struct patch *find_patch(const struct draft_winograd *w, int64_t tile, struct patch *p)
{
    int64_t tiles = w->tile_rows * w->tile_columns, inner = tile % tiles;
    int64_t y0 = inner / w->tile_columns * 4 - w->pad_top, x0 = inner % w->tile_columns * 4 - w->pad_left;
    const float *image = w->x + tile / tiles * w->h * w->w * w->c;
    for (int64_t i = 0; i < 6; i++)
        for (int64_t j = 0; j < 6; j++) {
            int64_t y = y0 + i, x = x0 + j;
            bool inside = y >= 0 && x >= 0 && y < w->h && x < w->w;
            p->pixel[i * 6 + j] = inside ? image + (y * w->w + x) * w->c : nothing;
            p->mask[i * 6 + j] = inside ? -1 : 0;
        }
    return p;
}

/* The last vector of channels may overlap the one before. */
INLINE int64_t vector_at(int64_t step, int64_t channels)
{
    return step + VL <= channels ? step : channels - VL;
}

INLINE const float *pixel_at(const struct patch *p, int k, int64_t c)
{
    return p->pixel[k] + (c & p->mask[k]);
}

/* The VL channels from c of a patch: 36 vectors, k_step apart. Pixels are read in an order that no hardware foresees:
 * those of the patch that comes next are asked for meanwhile. */
INLINE void transform_patch(const struct patch *p, const struct patch *next, int64_t c, float *out, int64_t k_step)
{
    vf d[36], e[6];
    for (int k = 0; k < 36; k++)
        __builtin_prefetch(pixel_at(next, k, c));
#pragma GCC unroll 6
    for (int j = 0; j < 6; j++) {
        vf in[6];
#pragma GCC unroll 6
        for (int i = 0; i < 6; i++)
            in[i] = load(pixel_at(p, i * 6 + j, c));
        input_transform(in, 1, d + j, 6);
    }
#pragma GCC unroll 6
    for (int i = 0; i < 6; i++) {
        input_transform(d + i * 6, 1, e, 1);
#pragma GCC unroll 6
        for (int j = 0; j < 6; j++)
            store(out + (i * 6 + j) * k_step, e[j]);
    }
}

void ISA(winograd_input)(const struct draft_winograd *w, int64_t first, int64_t count, int64_t at, float *v,
                         float *scratch)
{
    (void)scratch;
    int64_t c_step = (w->c + VL - 1) / VL * VL, k_step = DRAFT_WINOGRAD_STEP(c_step);
    struct patch patch[2];
    find_patch(w, first, &patch[0]);
    for (int64_t t = 0; t < count; t++) {
        const struct patch *p = &patch[t % 2], *next = p;
        if (t + 1 < count)
            next = find_patch(w, first + t + 1, &patch[(t + 1) % 2]);
        for (int64_t step = 0; step < w->c; step += VL) {
            int64_t c = vector_at(step, w->c);
            transform_patch(p, next, c, v + (at + t) * c_step + c, k_step);
        }
    }
}

/* Numbers are `packed` to an element: one float or two words. */
INLINE void multiply(const struct draft_winograd *w, int64_t count, int64_t panel, int64_t columns, const float *v,
                     float *m, int64_t packed, void (*block)(const struct draft_block *block))
{
    int64_t step = (w->c + VL - 1) / VL * VL / packed;
    struct draft_block product = {.m = count,
                                  .n = columns <= VL ? VL : NR,
                                  .k = w->depth / packed,
                                  .a_row = step,
                                  .a_col = 1,
                                  .b_row = NR,
                                  .ldc = NR,
                                  .alpha = 1.0f,
                                  .accumulate = w->from > 0};
    for (int64_t k = 0; k < 36; k++) {
        product.a = v + k * DRAFT_WINOGRAD_STEP(step) + w->from / packed;
        product.b = w->transformed + panel * w->panel_step + k * (w->depth_step / packed) * NR;
        product.c = m + k * DRAFT_WINOGRAD_STEP(NR);
        block(&product);
    }
}

static int64_t columns_of(const struct draft_winograd *w, int64_t panel)
{
    return w->o - panel * NR < NR ? w->o - panel * NR : NR;
}

/* The products of one panel made pixels. Words have factors of tiles [36][DRAFT_TILES] and columns [36][NR]; else NULL.
 */
INLINE void transform_output(const struct draft_winograd *w, int64_t first, int64_t count, int64_t panel,
                             const float *m, const float *of_tile, const float *of_column)
{
    int64_t tiles = w->tile_rows * w->tile_columns, channels = w->o, columns = columns_of(w, panel);
    for (int64_t done = 0; done < columns; done += VL) {
        /* A last vector that is not full overlaps the one before; lanes already written add nothing. */
        int64_t from = columns < VL ? 0 : done + VL <= columns ? done : columns - VL;
        int64_t channel = panel * NR + from, n = columns < VL ? columns : VL;
        vi fresh;
        for (int l = 0; l < VL; l++)
            fresh[l] = from + l >= done ? -1 : 0;
        vf bias = {0};
        if (w->bias)
            bias = n == VL ? load(w->bias + channel) : load_part(w->bias + channel, n);
        bool accumulate = w->accumulate;
        for (int64_t t = 0; t < count; t++) {
            int64_t tile = first + t, inner = tile % tiles;
            int64_t y0 = inner / w->tile_columns * 4, x0 = inner % w->tile_columns * 4;
            int64_t rows = w->oh - y0 < 4 ? w->oh - y0 : 4, width = w->ow - x0 < 4 ? w->ow - x0 : 4;
            float *y = w->y + ((tile / tiles * w->oh + y0) * w->ow + x0) * channels + channel;
            int64_t row_step = w->ow * channels;
            const float *in = m + t * NR + from;
            vf d[24], out[16];
#pragma GCC unroll 6
            for (int j = 0; j < 6; j++) {
                vf column[6];
#pragma GCC unroll 6
                for (int i = 0; i < 6; i++) {
                    int k = i * 6 + j;
                    column[i] = load(in + k * DRAFT_WINOGRAD_STEP(NR));
                    if (of_tile)
                        column[i] *= of_tile[k * DRAFT_TILES + t] * load(of_column + k * NR + from);
                }
                output_transform(column, 1, d + j, 6);
            }
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                output_transform(d + i * 6, 1, out + i * 4, 1);
            if (rows == 4 && width == 4 && n == VL) {
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++)
#pragma GCC unroll 4
                    for (int j = 0; j < 4; j++) {
                        float *to = y + i * row_step + j * channels;
                        vf value = out[i * 4 + j] + bias;
                        if (accumulate)
                            value = (vf)((vi)value & fresh) + load(to);
                        store(to, value);
                    }
                continue;
            }
            for (int64_t i = 0; i < rows; i++)
                for (int64_t j = 0; j < width; j++) {
                    float *to = y + i * row_step + j * channels;
                    vf value = out[i * 4 + j] + bias;
                    if (accumulate)
                        value = (vf)((vi)value & fresh) + (n == VL ? load(to) : load_part(to, n));
                    if (n == VL)
                        store(to, value);
                    else
                        store_part(to, value, n);
                }
        }
    }
}

void ISA(winograd_output)(const struct draft_winograd *w, int64_t first, int64_t count, int64_t panel, const float *v,
                          float *m)
{
    multiply(w, count, panel, columns_of(w, panel), v, m, 1, ISA(block));
    if (w->from + w->depth == w->c)
        transform_output(w, first, count, panel, m, NULL, NULL);
}

/* --- In words (words.c) ------------------------------------------------------------------------------------------- */

#if defined(__AVX512VNNI__)

void ISA(winograd_input_words)(const struct draft_winograd *w, int64_t first, int64_t count, int64_t at, float *v,
                               float *scratch)
{
    int64_t c_step = (w->c + VL - 1) / VL * VL, k_step = 2 * DRAFT_WINOGRAD_STEP(c_step / 2);
    float *factor = v + 36 * DRAFT_WINOGRAD_STEP(c_step / 2);
    int16_t *words = (int16_t *)(void *)v;
    struct patch patch[2];
    find_patch(w, first, &patch[0]);
    for (int64_t t = at; t < at + count; t++) {
        const struct patch *p = &patch[(t - at) % 2], *next = p;
        if (t + 1 < at + count)
            next = find_patch(w, first + t + 1 - at, &patch[(t + 1 - at) % 2]);
        vi largest[36];
        for (int k = 0; k < 36; k++)
            largest[k] = (vi){0};
        for (int64_t step = 0; step < w->c; step += VL) {
            float *vectors = scratch + step * 36;
            transform_patch(p, next, vector_at(step, w->c), vectors, VL);
            for (int k = 0; k < 36; k++)
                largest[k] = larger_magnitude(largest[k], load(vectors + k * VL));
        }
        for (int k = 0; k < 36; k++) {
            float scale = word_scale(largest_lane(largest[k]), &factor[k * DRAFT_TILES + t]);
            for (int64_t step = 0; step < w->c; step += VL)
                store_words(words + k * k_step + t * c_step + vector_at(step, w->c),
                            load(scratch + step * 36 + k * VL) * scale);
        }
    }
}

void ISA(winograd_output_words)(const struct draft_winograd *w, int64_t first, int64_t count, int64_t panel,
                                const float *v, float *m)
{
    int64_t c_step = (w->c + VL - 1) / VL * VL;
    multiply(w, count, panel, columns_of(w, panel), v, m, 2, ISA(block_words));
    transform_output(w, first, count, panel, m, v + 36 * DRAFT_WINOGRAD_STEP(c_step / 2),
                     w->transformed + panel * w->panel_step + 36 * (w->c / 2) * NR);
}

#endif
