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

void ISA(block)(const struct draft_block *g)
{
    bool transposed = g->a_row == 1 && g->a_col != 1;
    int64_t lda = transposed ? g->a_col : g->a_row;
    enum { WORTH_FETCHING = 128 };
    for (int64_t k0 = 0; k0 == 0 || k0 < g->k; k0 += DRAFT_K_BLOCK) {
        int64_t k = g->k - k0 < DRAFT_K_BLOCK ? g->k - k0 : DRAFT_K_BLOCK;
        bool accumulate = g->accumulate || k0 > 0;
        for (int64_t j = 0; j < g->n; j += NR) {
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

static void pack_turned(int64_t k, int64_t columns, const float *b, int64_t ldb, float *panel)
{
    int64_t quads = columns / 4 * 4, whole = k / 4 * 4;
    for (int64_t j = 0; j < quads; j += 4)
        for (int64_t p = 0; p < whole; p += 4) {
            v4 turned[4];
            turn_four(b + j * ldb + p, ldb, turned);
            for (int i = 0; i < 4; i++)
                *(v4u *)(panel + (p + i) * NR + j) = turned[i];
        }
    for (int64_t p = whole; p < k; p++)
        for (int64_t j = 0; j < quads; j++)
            panel[p * NR + j] = b[j * ldb + p];
    for (int64_t p = 0; p < k && quads < NR; p++) {
        for (int64_t j = quads; j < columns; j++)
            panel[p * NR + j] = b[j * ldb + p];
        for (int64_t j = columns; j < NR; j++)
            panel[p * NR + j] = 0.0f;
    }
}

void ISA(pack_panel)(int64_t k, int64_t columns, const float *b, int64_t ldb, bool transposed, float *panel)
{
    if (transposed) {
        pack_turned(k, columns, b, ldb, panel);
        return;
    }
    for (int64_t p = 0; p < k; p++) {
        float *out = panel + p * NR;
        const float *in = b + p * ldb;
        if (columns == NR || columns == VL) {
            store(out, load(in));
            store(out + VL, columns == NR ? load(in + VL) : (vf){0});
            continue;
        }
        for (int64_t j = 0; j < NR; j++)
            out[j] = j < columns ? in[j] : 0.0f;
    }
}

/* --- Few columns: dot products ------------------------------------------------------------------------------------ */

enum { THIN_COLUMNS = 4, THIN_ROWS = VL == 16 ? 4 : 2 };

typedef void (*thin_fn)(int64_t k, const float *restrict a, int64_t lda, const float *restrict b, int64_t ldb, v4 *dot);

/* dot[row] = a's row against N <= 4 rows of b. */
#define THIN(ROWS, N)                                                                                                  \
    static __attribute__((noinline)) void thin_##ROWS##x##N(int64_t k, const float *restrict a, int64_t lda,           \
                                                            const float *restrict b, int64_t ldb, v4 *dot)             \
    {                                                                                                                  \
        vf s[ROWS][THIN_COLUMNS];                                                                                      \
        _Pragma("GCC unroll 8") for (int i = 0; i < ROWS; i++)                                                         \
            _Pragma("GCC unroll 8") for (int j = 0; j < THIN_COLUMNS; j++) s[i][j] = (vf){0};                          \
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
            _Pragma("GCC unroll 8") for (int i = 0; i < ROWS; i++)                                                     \
            {                                                                                                          \
                vf x = load_part(a + i * lda + p, k - p);                                                              \
                _Pragma("GCC unroll 8") for (int j = 0; j < N; j++) s[i][j] += x * load_part(b + j * ldb + p, k - p);  \
            }                                                                                                          \
        _Pragma("GCC unroll 8") for (int i = 0; i < ROWS; i++) dot[i] =                                                \
            four_sums(quarter(s[i][0]), quarter(s[i][1]), quarter(s[i][2]), quarter(s[i][3]));                         \
    }

THIN(1, 1)
THIN(1, 2)
THIN(1, 3)
THIN(1, 4)
#if defined(__AVX512F__)
THIN(4, 1)
THIN(4, 2)
THIN(4, 3)
THIN(4, 4)
static const thin_fn several[THIN_COLUMNS + 1] = {NULL, thin_4x1, thin_4x2, thin_4x3, thin_4x4};
#else
THIN(2, 1)
THIN(2, 2)
THIN(2, 3)
THIN(2, 4)
static const thin_fn several[THIN_COLUMNS + 1] = {NULL, thin_2x1, thin_2x2, thin_2x3, thin_2x4};
#endif
static const thin_fn one[THIN_COLUMNS + 1] = {NULL, thin_1x1, thin_1x2, thin_1x3, thin_1x4};

void ISA(thin)(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, float *c,
               int64_t ldc, float alpha, const float *bias, bool accumulate)
{
    for (int64_t j = 0; j < n; j += THIN_COLUMNS) {
        int64_t columns = n - j < THIN_COLUMNS ? n - j : THIN_COLUMNS;
        for (int64_t i = 0; i < m;) {
            v4 dot[THIN_ROWS];
            int64_t rows = m - i >= THIN_ROWS ? THIN_ROWS : 1;
            (rows == 1 ? one : several)[columns](k, a + i * lda, lda, b + j * ldb, ldb, dot);
            for (int64_t r = 0; r < rows; r++)
                for (int64_t q = 0; q < columns; q++) {
                    float *out = c + (i + r) * ldc + j + q;
                    float v = alpha * dot[r][q] + (bias ? bias[j + q] : 0.0f);
                    *out = accumulate ? *out + v : v;
                }
            i += rows;
        }
    }
}
