/*
 * jpeg_size: a differentiable estimate of how many kB (1000 bytes) libjpeg makes of each picture; x [n, h, w, 3] in
 * [0, 1] -> y [n]. As the encoder: RGB -> YCbCr, chroma averaged over 2x2, edges replicated to whole blocks, 8x8 DCT,
 * division by the quality's tables, zigzag. Then, in place of rounding and Huffman's codes, two smooth stand-ins:
 *
 *   s(q) = q - 3/4 sin(2 pi q) / (2 pi)          a staircase with rounded edges; its slope is 1/4 on the treads, so
 * that a coefficient that rounds to zero still knows where to go n(s) = s^2 / (s^2 + 1/4)                     how far s
 * counts as nonzero (1/2 at |s| = 1/2); z = 1 - n
 *
 *   bits of a block = end + sum over its 63 AC of  a n(s_k) + b log2(1 + s_k^2) + r z_k (1 - prod over j > k of z_j)
 *                     + u n(d) + v log2(1 + d^2),   d the difference of DC to the block before
 *
 * The terms are the code's own: a code word for each nonzero coefficient, its magnitude bits (about log2 |s|), a price
 * for each zero in front of a later nonzero one (longer run, longer word), end of block, and the differential DC. `end`
 * is end-of-block plus the shortest DC word in the standard tables (4 + 2 and 2 + 2 bits). The other constants were
 * fitted by least squares to libjpeg-turbo's sizes of 200 pictures of the demo model, and of blurred, noisy, flat and
 * random ones, at qualities 30, 50, 75, 85 and 95: mean error 1 %, rank correlation 0.996 and more at each quality.
 *
 *   dx: through the transposes of all these steps (the DCT is orthonormal: its transpose is its inverse).
 */
#include "ops/jpeg.h"
#include "ops/op.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>

static const double STEEPNESS = 0.75;    /* of s */
static const double HALF_NONZERO = 0.25; /* s^2 at which n = 1/2 */
static const double HEADER_BYTES = 623;  /* markers, two quantisation tables, the four standard Huffman tables */

/* AC: a, b, r, end */
struct prices {
    double nonzero, magnitude, run, end;
};
static const struct prices LUMA = {1.13, 1.22, 0.80, 6}, CHROMA = {2.40, 0.77, 1.49, 4};
static const double DC_NONZERO = 3.83, DC_MAGNITUDE = 0.41; /* u, v */

/* ITU-T T.81, annex K.1, row by row */
static const uint8_t LUMA_TABLE[64] = {16, 11, 10, 16, 24,  40,  51,  61,  12, 12, 14, 19, 26,  58,  60,  55,
                                       14, 13, 16, 24, 40,  57,  69,  56,  14, 17, 22, 29, 51,  87,  80,  62,
                                       18, 22, 37, 56, 68,  109, 103, 77,  24, 35, 55, 64, 81,  104, 113, 92,
                                       49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99};
static const uint8_t CHROMA_TABLE[64] = {17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
                                         24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
                                         99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
                                         99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99};
static const uint8_t ZIGZAG[64] = {0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,
                                   12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28,
                                   35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
                                   58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};
/* JFIF's RGB -> YCbCr */
static const double COLOUR[3][3] = {{0.299, 0.587, 0.114}, {-0.168736, -0.331264, 0.5}, {0.5, -0.418688, -0.081312}};

/* What one run over the pictures needs; sizes in pixels of a picture padded to 16 x 16 units. */
struct work {
    int64_t h, w, height, width;
    double step[2][64]; /* quantisation, luma and chroma, in zigzag order */
    double cosine[8][8];
    const float *x;
    float *size;     /* forward */
    const float *dy; /* backward */
    float *dx;
    bool accumulate;
    struct draft_backend *backend;
};

/* libjpeg's jpeg_quality_scaling and jpeg_add_quant_table, baseline */
static double scaled_step(int base, int quality)
{
    int scale = quality < 50 ? 5000 / quality : 200 - 2 * quality;
    int step = (base * scale + 50) / 100;
    return step < 1 ? 1 : step > 255 ? 255 : step;
}

static void fill_steps(struct work *k, int quality)
{
    for (int i = 0; i < 64; i++) {
        k->step[0][i] = scaled_step(LUMA_TABLE[ZIGZAG[i]], quality);
        k->step[1][i] = scaled_step(CHROMA_TABLE[ZIGZAG[i]], quality);
    }
}

static void fill_cosines(struct work *k)
{
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++)
            k->cosine[i][j] = (i == 0 ? sqrt(0.125) : 0.5) * cos((2 * j + 1) * i * acos(-1) / 16);
}

static struct work prepare(struct draft_graph *g, const struct draft_call *call)
{
    const struct draft_jpeg_size_args *args = call->args;
    const struct draft_tensor *x = call->in[0];
    struct work k = {.h = x->dim[1], .w = x->dim[2], .x = draft_f32(x), .backend = g->backend};
    k.height = (k.h + 15) / 16 * 16;
    k.width = (k.w + 15) / 16 * 16;
    fill_steps(&k, args->quality);
    fill_cosines(&k);
    return k;
}

/* A thread's memory: the planes [height, width] and 2 x [height / 2, width / 2], and as many coefficients. */
static size_t plane_floats(const struct work *k)
{
    return (size_t)(k->height * k->width) * 3 / 2;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

struct draft_jpeg_model draft_jpeg_model(int quality)
{
    struct draft_jpeg_model m = {.steepness = (float)STEEPNESS,
                                 .half_nonzero = (float)HALF_NONZERO,
                                 .header_bytes = (float)HEADER_BYTES,
                                 .dc_nonzero = (float)DC_NONZERO,
                                 .dc_magnitude = (float)DC_MAGNITUDE};
    for (int i = 0; i < 2; i++) {
        const struct prices *p = i == 0 ? &LUMA : &CHROMA;
        m.nonzero[i] = (float)p->nonzero;
        m.magnitude[i] = (float)p->magnitude;
        m.run[i] = (float)p->run;
        m.end[i] = (float)p->end;
    }
    struct work k;
    fill_steps(&k, quality);
    fill_cosines(&k);
    for (int i = 0; i < 64; i++) {
        m.step[0][i] = (float)k.step[0][i];
        m.step[1][i] = (float)k.step[1][i];
        m.cosine[i] = k.cosine[i / 8][i % 8];
        m.zigzag[i] = ZIGZAG[i];
    }
    for (int i = 0; i < 9; i++)
        m.colour[i] = COLOUR[i / 3][i % 3];
    return m;
}

void draft_jpeg_ycbcr(const float *rgb, double *ycbcr)
{
    for (int c = 0; c < 3; c++)
        ycbcr[c] =
            255 * (COLOUR[c][0] * (double)rgb[0] + COLOUR[c][1] * (double)rgb[1] + COLOUR[c][2] * (double)rgb[2]);
    ycbcr[0] -= 128; /* chroma is centred already */
}

static void to_planes(const struct work *k, const float *x, float *planes)
{
    float *luma = planes, *chroma[2] = {planes + k->height * k->width, planes + k->height * k->width * 5 / 4};
    memset(chroma[0], 0, (size_t)(k->height * k->width / 2) * sizeof *planes);
    for (int64_t i = 0; i < k->height; i++)
        for (int64_t j = 0; j < k->width; j++) {
            const float *p = x + (least(i, k->h - 1) * k->w + least(j, k->w - 1)) * 3;
            double value[3];
            draft_jpeg_ycbcr(p, value);
            luma[i * k->width + j] = (float)value[0];
            for (int c = 0; c < 2; c++)
                chroma[c][i / 2 * (k->width / 2) + j / 2] += (float)(value[c + 1] / 4);
        }
}

static void from_planes(const struct work *k, const float *planes, double dy, float *dx)
{
    const float *luma = planes;
    const float *chroma[2] = {planes + k->height * k->width, planes + k->height * k->width * 5 / 4};
    if (!k->accumulate)
        memset(dx, 0, (size_t)(k->h * k->w * 3) * sizeof *dx);
    for (int64_t i = 0; i < k->height; i++)
        for (int64_t j = 0; j < k->width; j++) {
            float *d = dx + (least(i, k->h - 1) * k->w + least(j, k->w - 1)) * 3;
            int64_t quarter = i / 2 * (k->width / 2) + j / 2;
            double value[3] = {(double)luma[i * k->width + j], (double)chroma[0][quarter] / 4,
                               (double)chroma[1][quarter] / 4};
            for (int c = 0; c < 3; c++)
                d[c] +=
                    (float)(255 * dy * (COLOUR[0][c] * value[0] + COLOUR[1][c] * value[1] + COLOUR[2][c] * value[2]));
        }
}

/* out = C in C^T, or C^T in C for the transpose */
static void transform(const struct work *k, const double *in, double *out, bool transpose)
{
    double middle[64];
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++) {
            double sum = 0;
            for (int l = 0; l < 8; l++)
                sum += (transpose ? k->cosine[l][i] : k->cosine[i][l]) * in[l * 8 + j];
            middle[i * 8 + j] = sum;
        }
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 8; j++) {
            double sum = 0;
            for (int l = 0; l < 8; l++)
                sum += middle[i * 8 + l] * (transpose ? k->cosine[l][j] : k->cosine[j][l]);
            out[i * 8 + j] = sum;
        }
}

void draft_jpeg_dct(const double *block, double *frequencies)
{
    struct work k;
    fill_cosines(&k);
    transform(&k, block, frequencies, false);
}

/* block of a plane -> 64 coefficients divided by their steps, in zigzag order */
static void to_coefficients(const struct work *k, const float *block, int64_t stride, const double *step, float *q)
{
    double pixels[64], frequencies[64];
    for (int i = 0; i < 64; i++)
        pixels[i] = (double)block[i / 8 * stride + i % 8];
    transform(k, pixels, frequencies, false);
    for (int i = 0; i < 64; i++)
        q[i] = (float)(frequencies[ZIGZAG[i]] / step[i]);
}

static void from_coefficients(const struct work *k, const float *dq, const double *step, float *block, int64_t stride)
{
    double pixels[64], frequencies[64];
    for (int i = 0; i < 64; i++)
        frequencies[ZIGZAG[i]] = (double)dq[i] / step[i];
    transform(k, frequencies, pixels, true);
    for (int i = 0; i < 64; i++)
        block[i / 8 * stride + i % 8] = (float)pixels[i];
}

static double soft_round(double q, double *slope)
{
    const double turn = 2 * acos(-1);
    *slope = 1 - STEEPNESS * cos(turn * q);
    return q - STEEPNESS * sin(turn * q) / turn;
}

/* a n(s) + b log2(1 + s^2) and its slope */
static double price(double s, double a, double b, double *slope)
{
    double square = s * s, sum = square + HALF_NONZERO;
    *slope = a * 2 * s * HALF_NONZERO / (sum * sum) + b * 2 * s / ((1 + square) * log(2));
    return a * square / sum + b * log2(1 + square);
}

/* The AC bits of a block; with `backward`, q[1 .. 63] becomes their gradient. */
static double ac_bits(const struct prices *p, float *q, bool backward)
{
    double s[64], slope[64], zero[64], rest[65], bits = p->end, unused;
    rest[64] = 1; /* rest[k]: product of zero[j], j >= k: how surely nothing follows */
    for (int i = 63; i > 0; i--) {
        s[i] = soft_round((double)q[i], &slope[i]);
        zero[i] = HALF_NONZERO / (s[i] * s[i] + HALF_NONZERO);
        rest[i] = zero[i] * rest[i + 1];
        bits += price(s[i], p->nonzero, p->magnitude, &unused) + p->run * zero[i] * (1 - rest[i + 1]);
    }
    double d_rest = 0; /* of the run term, with respect to rest[i] */
    for (int i = 1; i < 64 && backward; i++) {
        double d_zero = 1 - rest[i + 1] + d_rest * rest[i + 1], d_price, sum = s[i] * s[i] + HALF_NONZERO;
        price(s[i], p->nonzero, p->magnitude, &d_price);
        d_rest = zero[i] * (d_rest - 1);
        q[i] = (float)(slope[i] * (d_price - p->run * d_zero * 2 * s[i] * HALF_NONZERO / (sum * sum)));
    }
    return bits;
}

/* The blocks of one component in the order of the file, so that DC differences are the file's. Luma comes in units of
 * 2 x 2 blocks; blocks wholly in the padding are the encoder's dummies: no AC, the DC of the block before. */
struct component {
    float *plane, *coefficients;
    int64_t rows, columns, stride, unit; /* in blocks; stride in pixels */
    int64_t real_rows, real_columns;
    const double *step;
    const struct prices *prices;
};

static float *block_at(const struct component *c, int64_t i, bool *real)
{
    int64_t unit = i / (c->unit * c->unit), inside = i % (c->unit * c->unit), across = c->columns / c->unit;
    int64_t row = unit / across * c->unit + inside / c->unit, column = unit % across * c->unit + inside % c->unit;
    *real = row < c->real_rows && column < c->real_columns;
    return c->plane + row * 8 * c->stride + column * 8;
}

static double component_bits(const struct work *k, const struct component *c, bool backward)
{
    double bits = 0, before = 0, before_slope = 0;
    float *previous = NULL;
    for (int64_t i = 0; i < c->rows * c->columns; i++) {
        bool real;
        const float *block = block_at(c, i, &real);
        float *q = c->coefficients + i * 64;
        if (!real) {
            memset(q, 0, 64 * sizeof *q);
            bits += c->prices->end;
            continue;
        }
        to_coefficients(k, block, c->stride, c->step, q);
        double dc_slope, dc = soft_round((double)q[0], &dc_slope), slope;
        bits += ac_bits(c->prices, q, backward) + price(dc - before, DC_NONZERO, DC_MAGNITUDE, &slope);
        if (backward) {
            q[0] = (float)(slope * dc_slope);
            if (previous != NULL)
                previous[0] -= (float)(slope * before_slope);
        }
        before = dc;
        before_slope = dc_slope;
        previous = q;
    }
    for (int64_t i = 0; i < c->rows * c->columns && backward; i++) {
        bool real;
        from_coefficients(k, c->coefficients + i * 64, c->step, block_at(c, i, &real), c->stride);
    }
    return bits;
}

static void do_picture(void *context, int64_t n, int thread)
{
    const struct work *k = context;
    bool backward = k->dx != NULL;
    float *planes = draft_scratch_of(k->backend, thread), *coefficients = planes + plane_floats(k);
    int64_t pixels = k->height * k->width, size = k->h * k->w * 3;
    to_planes(k, k->x + n * size, planes);
    struct component luma = {.plane = planes,
                             .coefficients = coefficients,
                             .rows = k->height / 8,
                             .columns = k->width / 8,
                             .stride = k->width,
                             .unit = 2,
                             .real_rows = (k->h + 7) / 8,
                             .real_columns = (k->w + 7) / 8,
                             .step = k->step[0],
                             .prices = &LUMA};
    double bits = 8 * HEADER_BYTES + component_bits(k, &luma, backward);
    for (int i = 0; i < 2; i++) {
        int64_t offset = pixels + i * pixels / 4;
        struct component chroma = {.plane = planes + offset,
                                   .coefficients = coefficients + offset,
                                   .rows = k->height / 16,
                                   .columns = k->width / 16,
                                   .stride = k->width / 2,
                                   .unit = 1,
                                   .real_rows = k->height / 16,
                                   .real_columns = k->width / 16,
                                   .step = k->step[1],
                                   .prices = &CHROMA};
        bits += component_bits(k, &chroma, backward);
    }
    if (backward)
        from_planes(k, planes, (double)k->dy[n] / 8000, k->dx + n * size);
    else
        k->size[n] = (float)(bits / 8000);
}

static bool run(struct draft_graph *g, struct draft_call *call, struct work *k)
{
    if (!draft_scratch_reserve(g->backend, 0, 2 * plane_floats(k) * sizeof(float), &g->error))
        return false;
    draft_parallel(g->backend, call->in[0]->dim[0], do_picture, k);
    return true;
}

static bool forward(struct draft_graph *g, struct draft_call *call)
{
    struct work k = prepare(g, call);
    k.size = draft_f32(call->out);
    return run(g, call, &k);
}

static bool backward(struct draft_graph *g, struct draft_call *call)
{
    struct work k = prepare(g, call);
    k.dy = call->out->grad;
    k.dx = draft_grad(g, call->in[0], &k.accumulate);
    return k.dx != NULL && run(g, call, &k);
}

const struct draft_op draft_op_jpeg_size = {
    .name = "jpeg_size", .id = DRAFT_OP_jpeg_size, .forward = forward, .backward = backward};

struct draft_tensor *draft_jpeg_size(struct draft_graph *g, struct draft_tensor *x, int quality)
{
    if (!draft_graph_ok(g))
        return NULL;
    assert(x != NULL);
    if (quality < 1 || quality > 100) {
        draft_fail(&g->error, DRAFT_INVALID_ARGUMENT, "jpeg_size: a quality of %d is not between 1 and 100", quality);
        return NULL;
    }
    if (!draft_is_activation(x, 4) || x->dim[3] != 3 || draft_tensor_count(x) == 0)
        return DRAFT_REFUSE(g, "jpeg_size", "pictures [n, h, w, 3]", x);
    struct draft_jpeg_size_args args = {quality};
    struct draft_call call = {.op = &draft_op_jpeg_size, .in = {x}, .args = &args, .args_size = sizeof args};
    call.out = draft_new(g, DRAFT_F32, 1, x->dim);
    return draft_graph_run(g, &call);
}
