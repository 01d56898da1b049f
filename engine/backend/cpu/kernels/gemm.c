/* The matrix kernels: a micro-tile of MR rows by two vectors kept in registers, and what packs and walks for it. */
#include "backend/cpu/kernels/vec.h"
#include "backend/cpu/kernels/kernels_isa.h"

typedef void (*tile_fn)(int64_t k, const float *restrict a, int64_t lda, const float *restrict b, int64_t ldb, float *c,
                        int64_t ldc, float alpha, const float *bias, bool accumulate);

/* c[ROWS][NV vectors] (+)= alpha a b + bias. ROW: a is row-major with step lda; otherwise it is stored transposed. */
#define TILE(ROWS, NV, NAME, ELEMENT)                                                                                  \
    static __attribute__((noinline)) void NAME##_##ROWS##x##NV(                                                        \
        int64_t k, const float *restrict a, int64_t lda, const float *restrict b, int64_t ldb, float *c, int64_t ldc,  \
        float alpha, const float *bias, bool accumulate)                                                               \
    {                                                                                                                  \
        vf s[ROWS][NV];                                                                                                \
        _Pragma("GCC unroll 16") for (int i = 0; i < ROWS; i++) _Pragma("GCC unroll 2") for (int j = 0; j < NV; j++)   \
            s[i][j] = (vf){0};                                                                                         \
        for (int64_t p = 0; p < k; p++) {                                                                              \
            vf row[NV];                                                                                                \
            _Pragma("GCC unroll 2") for (int j = 0; j < NV; j++) row[j] = load(b + p * ldb + j * VL);                  \
            _Pragma("GCC unroll 16") for (int i = 0; i < ROWS; i++)                                                    \
            {                                                                                                          \
                float x = ELEMENT;                                                                                     \
                _Pragma("GCC unroll 2") for (int j = 0; j < NV; j++) s[i][j] += x * row[j];                            \
            }                                                                                                          \
        }                                                                                                              \
        _Pragma("GCC unroll 16") for (int i = 0; i < ROWS; i++) _Pragma("GCC unroll 2") for (int j = 0; j < NV; j++)   \
        {                                                                                                              \
            vf v = alpha * s[i][j];                                                                                    \
            if (bias)                                                                                                  \
                v += load(bias + j * VL);                                                                              \
            if (accumulate)                                                                                            \
                v += load(c + i * ldc + j * VL);                                                                       \
            store(c + i * ldc + j * VL, v);                                                                            \
        }                                                                                                              \
    }

#define TILES(ROWS)                                                                                                    \
    TILE(ROWS, 1, row, a[i * lda + p])                                                                                 \
    TILE(ROWS, 2, row, a[i * lda + p])                                                                                 \
    TILE(ROWS, 1, column, a[p * lda + i])                                                                              \
    TILE(ROWS, 2, column, a[p * lda + i])

TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)
TILES(6)
#if defined(__AVX512F__)
TILES(7)
TILES(8)
TILES(9)
TILES(10)
TILES(11)
TILES(12)
#define MORE(NAME, NV) , NAME##_7x##NV, NAME##_8x##NV, NAME##_9x##NV, NAME##_10x##NV, NAME##_11x##NV, NAME##_12x##NV
#else
#define MORE(NAME, NV)
#endif
#define ROWS_OF(NAME, NV)                                                                                              \
    {                                                                                                                  \
        NULL, NAME##_1x##NV, NAME##_2x##NV, NAME##_3x##NV, NAME##_4x##NV, NAME##_5x##NV, NAME##_6x##NV MORE(NAME, NV)  \
    }

static const tile_fn by_row[2][MR + 1] = {ROWS_OF(row, 1), ROWS_OF(row, 2)};
static const tile_fn by_column[2][MR + 1] = {ROWS_OF(column, 1), ROWS_OF(column, 2)};

/* A tile whose columns end inside a vector goes through a buffer. */
static void edge(tile_fn tile, int64_t rows, int64_t columns, int64_t k, const float *a, int64_t lda, const float *b,
                 int64_t ldb, float *c, int64_t ldc, float alpha, const float *bias, bool accumulate)
{
    float buffer[MR * NR] __attribute__((aligned(64)));
    tile(k, a, lda, b, ldb, buffer, NR, alpha, NULL, false);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) {
            float v = buffer[i * NR + j];
            if (bias)
                v += bias[j];
            if (accumulate)
                v += c[i * ldc + j];
            c[i * ldc + j] = v;
        }
}

void ISA(block)(const struct draft_block *g)
{
    bool transposed = g->a_row == 1 && g->a_col != 1;
    int64_t lda = transposed ? g->a_col : g->a_row;
    for (int64_t k0 = 0; k0 == 0 || k0 < g->k; k0 += DRAFT_K_BLOCK) {
        int64_t k = g->k - k0 < DRAFT_K_BLOCK ? g->k - k0 : DRAFT_K_BLOCK;
        bool accumulate = g->accumulate || k0 > 0;
        for (int64_t j = 0; j < g->n; j += NR) {
            int64_t columns = g->n - j < NR ? g->n - j : NR;
            const float *b = g->b + j / NR * g->b_panel + k0 * g->b_row;
            const float *bias = g->bias && k0 == 0 ? g->bias + j : NULL;
            const tile_fn *tiles = (transposed ? by_column : by_row)[columns > VL];
            bool whole = columns == VL || columns == NR;
            for (int64_t i = 0; i < g->m; i += MR) {
                int64_t rows = g->m - i < MR ? g->m - i : MR;
                const float *a = g->a + i * g->a_row + k0 * g->a_col;
                float *c = g->c + i * g->ldc + j;
                if (whole)
                    tiles[rows](k, a, lda, b, g->b_row, c, g->ldc, g->alpha, bias, accumulate);
                else
                    edge(tiles[rows], rows, columns, k, a, lda, b, g->b_row, c, g->ldc, g->alpha, bias, accumulate);
            }
        }
    }
}

void ISA(pack_panel)(int64_t k, int64_t columns, const float *b, int64_t ldb, bool transposed, float *panel)
{
    if (!transposed) {
        for (int64_t p = 0; p < k; p++) {
            memcpy(panel + p * NR, b + p * ldb, (size_t)columns * sizeof(float));
            for (int64_t j = columns; j < NR; j++)
                panel[p * NR + j] = 0.0f;
        }
        return;
    }
    for (int64_t p0 = 0; p0 < k; p0 += 16) { /* 16 floats of a source row are one cache line */
        int64_t p1 = p0 + 16 < k ? p0 + 16 : k;
        for (int64_t j = 0; j < columns; j++)
            for (int64_t p = p0; p < p1; p++)
                panel[p * NR + j] = b[j * ldb + p];
        for (int64_t p = p0; p < p1; p++)
            for (int64_t j = columns; j < NR; j++)
                panel[p * NR + j] = 0.0f;
    }
}

/* ROWS rows against N columns, both read along k. */
#define THIN(ROWS, N)                                                                                                  \
    static __attribute__((noinline)) void thin_##ROWS##x##N(int64_t k, const float *restrict a, int64_t lda,           \
                                                            const float *restrict b, int64_t ldb, float *dot)          \
    {                                                                                                                  \
        vf s[ROWS][N];                                                                                                 \
        _Pragma("GCC unroll 8") for (int i = 0; i < ROWS; i++) _Pragma("GCC unroll 8") for (int j = 0; j < N; j++)     \
            s[i][j] = (vf){0};                                                                                         \
        int64_t p = 0;                                                                                                 \
        for (; p + VL <= k; p += VL) {                                                                                 \
            vf x[ROWS];                                                                                                \
            _Pragma("GCC unroll 8") for (int i = 0; i < ROWS; i++) x[i] = load(a + i * lda + p);                       \
            _Pragma("GCC unroll 8") for (int j = 0; j < N; j++)                                                        \
            {                                                                                                          \
                vf w = load(b + j * ldb + p);                                                                          \
                _Pragma("GCC unroll 8") for (int i = 0; i < ROWS; i++) s[i][j] += x[i] * w;                            \
            }                                                                                                          \
        }                                                                                                              \
        if (p < k)                                                                                                     \
            for (int i = 0; i < ROWS; i++) {                                                                           \
                vf x = load_part(a + i * lda + p, k - p);                                                              \
                for (int j = 0; j < N; j++)                                                                            \
                    s[i][j] += x * load_part(b + j * ldb + p, k - p);                                                  \
            }                                                                                                          \
        for (int i = 0; i < ROWS; i++)                                                                                 \
            for (int j = 0; j < N; j++)                                                                                \
                dot[i * N + j] = sum_lanes(s[i][j]);                                                                   \
    }

THIN(1, 1)
THIN(1, 2)
THIN(1, 3)
THIN(1, 4)
THIN(4, 1)
THIN(4, 2)
THIN(4, 3)
THIN(2, 4)

void ISA(thin)(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, float *c,
               int64_t ldc, float alpha, const float *bias, bool accumulate)
{
    static void (*const one[5])(int64_t, const float *restrict, int64_t, const float *restrict, int64_t,
                                float *) = {NULL, thin_1x1, thin_1x2, thin_1x3, thin_1x4};
    static void (*const several[5])(int64_t, const float *restrict, int64_t, const float *restrict, int64_t,
                                    float *) = {NULL, thin_4x1, thin_4x2, thin_4x3, thin_2x4};
    for (int64_t j = 0; j < n; j += 4) {
        int columns = (int)(n - j < 4 ? n - j : 4);
        int step = columns == 4 ? 2 : 4;
        for (int64_t i = 0; i < m;) {
            float dot[16];
            int rows = m - i >= step ? step : 1;
            (rows == 1 ? one : several)[columns](k, a + i * lda, lda, b + j * ldb, ldb, dot);
            for (int r = 0; r < rows; r++)
                for (int q = 0; q < columns; q++) {
                    float *out = c + (i + r) * ldc + j + q;
                    float v = alpha * dot[r * columns + q] + (bias ? bias[j + q] : 0.0f);
                    *out = accumulate ? *out + v : v;
                }
            i += rows;
        }
    }
}
