/* The matrix kernels: block products of floats, packing, and products with few columns. */
#include "backend/cpu/kernels/kernels_isa.h"

#define BLOCK                     ISA(block)
#define BLOCK_DEPTH               DRAFT_K_BLOCK
#define MULTIPLY_ADD(sum, x, row) ((sum) + (x) * (row))
#define IN_FLOAT(sum)             (sum)
#include "backend/cpu/kernels/block.h"

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
