/*
 * Winograd F(4x4, 3x3) (Lavin and Gray 2015) on NHWC, points 0, +-a, +-b, infinity with a = 0.625, b = 1.5: fp32 error
 * of a few 1e-7, a quarter of the multiplications. A 6x6 patch of input gives a 4x4 tile of output; the 36 products
 * between are plain matrix products over channels. The weights' transform is in backend/cpu/conv_winograd.c.
 */
#include "backend/cpu/kernels/kernels_isa.h"

static const float A = 0.625f, B = 1.5f;

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

void ISA(winograd_input)(const struct draft_winograd *w, int64_t first, int64_t count, float *v)
{
    int64_t c_step = (w->c + VL - 1) / VL * VL, tiles = w->tile_rows * w->tile_columns;
    for (int64_t t = 0; t < count; t++) {
        int64_t tile = first + t, image = tile / tiles;
        int64_t y0 = tile % tiles / w->tile_columns * 4 - w->pad_top, x0 = tile % w->tile_columns * 4 - w->pad_left;
        const float *source[36];
        for (int64_t i = 0; i < 6; i++)
            for (int64_t j = 0; j < 6; j++) {
                int64_t y = y0 + i, x = x0 + j;
                bool inside = y >= 0 && x >= 0 && y < w->h && x < w->w;
                source[i * 6 + j] = inside ? w->x + ((image * w->h + y) * w->w + x) * w->c : w->zeros;
            }
        for (int64_t c = 0; c < w->c; c += VL) {
            vf d[36], e[6];
            int64_t n = w->c - c < VL ? w->c - c : VL;
#pragma GCC unroll 6
            for (int j = 0; j < 6; j++) {
                vf column[6];
                if (n == VL) {
#pragma GCC unroll 6
                    for (int i = 0; i < 6; i++)
                        column[i] = load(source[i * 6 + j] + c);
                } else {
                    for (int i = 0; i < 6; i++)
                        column[i] = load_part(source[i * 6 + j] + c, n);
                }
                input_transform(column, 1, d + j, 6);
            }
#pragma GCC unroll 6
            for (int i = 0; i < 6; i++) {
                input_transform(d + i * 6, 1, e, 1);
#pragma GCC unroll 6
                for (int j = 0; j < 6; j++)
                    store(v + ((i * 6 + j) * DRAFT_TILES + t) * c_step + c, e[j]);
            }
        }
    }
}

void ISA(winograd_output)(const struct draft_winograd *w, int64_t first, int64_t count, int64_t panel, const float *v,
                          float *m)
{
    int64_t c_step = (w->c + VL - 1) / VL * VL, tiles = w->tile_rows * w->tile_columns;
    int64_t columns = w->o - panel * NR < NR ? w->o - panel * NR : NR;
    for (int64_t k = 0; k < 36; k++) {
        struct draft_block product = {
            .m = count,
            .n = columns <= VL ? VL : NR,
            .k = w->c,
            .a = v + k * DRAFT_TILES * c_step,
            .a_row = c_step,
            .a_col = 1,
            .b = w->transformed + (panel * 36 + k) * w->c * NR,
            .b_panel = 0,
            .b_row = NR,
            .c = m + k * DRAFT_TILES * NR,
            .ldc = NR,
            .alpha = 1.0f,
        };
        ISA(block)(&product);
    }
    for (int64_t t = 0; t < count; t++) {
        int64_t tile = first + t, image = tile / tiles;
        int64_t y0 = tile % tiles / w->tile_columns * 4, x0 = tile % w->tile_columns * 4;
        int64_t rows = w->oh - y0 < 4 ? w->oh - y0 : 4, width = w->ow - x0 < 4 ? w->ow - x0 : 4;
        for (int64_t half = 0; half * VL < columns; half++) {
            int64_t channel = panel * NR + half * VL;
            int64_t n = w->o - channel < VL ? w->o - channel : VL;
            const float *in = m + t * NR + half * VL;
            vf d[24], out[16];
#pragma GCC unroll 6
            for (int j = 0; j < 6; j++) {
                vf column[6];
#pragma GCC unroll 6
                for (int i = 0; i < 6; i++)
                    column[i] = load(in + (i * 6 + j) * DRAFT_TILES * NR);
                output_transform(column, 1, d + j, 6);
            }
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                output_transform(d + i * 6, 1, out + i * 4, 1);
            vf bias = w->bias ? (n == VL ? load(w->bias + channel) : load_part(w->bias + channel, n)) : (vf){0};
            for (int64_t i = 0; i < rows; i++) {
                float *y = w->y + ((image * w->oh + y0 + i) * w->ow + x0) * w->o + channel;
                for (int64_t j = 0; j < width; j++, y += w->o) {
                    vf value = out[i * 4 + j] + bias;
                    if (w->accumulate)
                        value += n == VL ? load(y) : load_part(y, n);
                    if (n == VL)
                        store(y, value);
                    else
                        store_part(y, value, n);
                }
            }
        }
    }
}
