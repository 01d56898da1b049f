/*
 * Block products, written once for three kinds of numbers: the file that includes this defines BLOCK, the function's
 * name; BLOCK_DEPTH, the depth after which sums go to c; MULTIPLY_ADD(sum, x, row), sum + x row with x the same in all
 * lanes; and IN_FLOAT(sum), such a sum as floats.
 */
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
                _Pragma("GCC unroll 2") for (int j = 0; j < NV; j++) s[i][j] = MULTIPLY_ADD(s[i][j], x, row[j]);       \
            }                                                                                                          \
        }                                                                                                              \
        _Pragma("GCC unroll 16") for (int i = 0; i < ROWS; i++) _Pragma("GCC unroll 2") for (int j = 0; j < NV; j++)   \
        {                                                                                                              \
            vf v = rounded(alpha * IN_FLOAT(s[i][j]));                                                                 \
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
#elif defined(__aarch64__)
TILES(7)
TILES(8)
#define MORE(NAME, NV) , NAME##_7x##NV, NAME##_8x##NV
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

/* The left rows of the next tile, on their way to the first cache while this one is computed. */
INLINE void fetch_rows(const float *a, int64_t rows, int64_t k, int64_t lda)
{
    enum { LINE = 16 };
    for (int64_t i = 0; i < rows; i++)
        for (int64_t p = 0; p < k; p += LINE)
            __builtin_prefetch(a + i * lda + p);
}

/* COLUMNS of c stay in the second cache while all of the depth is added to them. */
void BLOCK(const struct draft_block *g)
{
    bool transposed = g->a_row == 1 && g->a_col != 1;
    int64_t lda = transposed ? g->a_col : g->a_row;
    enum { WORTH_FETCHING = 128, COLUMNS = 8 * NR };
    int64_t pieces = g->k > BLOCK_DEPTH ? (g->k + BLOCK_DEPTH - 1) / BLOCK_DEPTH : 1;
    int64_t panels = (g->n + COLUMNS - 1) / COLUMNS * pieces; /* COLUMNS wide and BLOCK_DEPTH deep */
    for (int64_t panel = 0; panel < panels; panel++) {
        int64_t k0 = panel % pieces * BLOCK_DEPTH, first = panel / pieces * COLUMNS;
        int64_t k = g->k - k0 < BLOCK_DEPTH ? g->k - k0 : BLOCK_DEPTH;
        int64_t end = g->n - first < COLUMNS ? g->n : first + COLUMNS;
        bool accumulate = g->accumulate || k0 > 0;
        for (int64_t j = first; j < end; j += NR) {
            int64_t columns = g->n - j < NR ? g->n - j : NR;
            const float *b = g->b + j / NR * g->b_panel + k0 * g->b_row;
            const float *bias = g->bias && k0 == 0 ? g->bias + j : NULL;
            const tile_fn *tiles = (transposed ? by_column : by_row)[columns > VL];
            bool whole = columns == VL || columns == NR;
            int64_t tiles_left = (g->m + MR - 1) / MR;
            for (int64_t i = 0, rows; i < g->m; i += rows) {
                rows = (g->m - i + tiles_left - 1) / tiles_left; /* even: a low tile cannot keep the FMA units busy */
                tiles_left--;
                const float *a = g->a + i * g->a_row + k0 * g->a_col;
                float *c = g->c + i * g->ldc + j;
                if (tiles_left > 0 && !transposed && k >= WORTH_FETCHING)
                    fetch_rows(a + rows * lda, rows, k, lda);
                if (whole)
                    tiles[rows](k, a, lda, b, g->b_row, c, g->ldc, g->alpha, bias, accumulate);
                else
                    edge(tiles[rows], rows, columns, k, a, lda, b, g->b_row, c, g->ldc, g->alpha, bias, accumulate);
            }
        }
    }
}
