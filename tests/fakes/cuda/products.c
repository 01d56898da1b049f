#include "products.h"

#include <stdlib.h>
#include <string.h>

/* A panel of eight rows meets four columns at a time: 32 sums side by side. */
enum { PANEL = 8, COLUMNS = 4 };
typedef double eight __attribute__((vector_size(PANEL * sizeof(double))));

__attribute__((always_inline)) static inline void add_up(int64_t k, const eight *panel, const double *columns,
                                                         eight *sum)
{
    eight s[COLUMNS] = {0};
    for (int64_t l = 0; l < k; l++)
        for (int j = 0; j < COLUMNS; j++)
            s[j] += panel[l] * columns[l * COLUMNS + j];
    memcpy(sum, s, sizeof s);
}

/* The same for each kind of processor: what is compiled for all of them has vectors of two numbers. */
typedef void kernel(int64_t k, const eight *panel, const double *columns, eight *sum);

static void add_up_plain(int64_t k, const eight *panel, const double *columns, eight *sum)
{
    add_up(k, panel, columns, sum);
}

__attribute__((target("avx2,fma"))) static void add_up_avx2(int64_t k, const eight *panel, const double *columns,
                                                            eight *sum)
{
    add_up(k, panel, columns, sum);
}

__attribute__((target("avx512f"))) static void add_up_avx512(int64_t k, const eight *panel, const double *columns,
                                                             eight *sum)
{
    add_up(k, panel, columns, sum);
}

static kernel *best(void)
{
    return __builtin_cpu_supports("avx512f")                                 ? add_up_avx512
           : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? add_up_avx2
                                                                             : add_up_plain;
}

/* `count` vectors of m from `first` on, `across` apart, as out[l * width + i]; those that are missing as zeros. */
static void pack(struct fake_matrix m, int64_t first, int64_t count, int64_t k, int64_t across, int64_t along,
                 int width, double *out)
{
    for (int64_t l = 0; l < k; l++)
        for (int i = 0; i < width; i++)
            out[l * width + i] = i < count ? (double)m.values[(first + i) * across + l * along] : 0;
}

void fake_multiply(int64_t m, int64_t n, int64_t k, struct fake_matrix a, struct fake_matrix b, double *c)
{
    const int64_t tiles = (n + COLUMNS - 1) / COLUMNS;
    kernel *add = best();
    double *columns = malloc((size_t)(tiles * COLUMNS * k + 1) * sizeof *columns);
    eight *panel = aligned_alloc(sizeof *panel, (size_t)(k + 1) * sizeof *panel);
    if (columns == NULL || panel == NULL)
        abort();
    for (int64_t t = 0; t < tiles; t++)
        pack(b, t * COLUMNS, n - t * COLUMNS, k, b.column, b.row, COLUMNS, columns + t * COLUMNS * k);
    for (int64_t i = 0; i < m; i += PANEL) {
        pack(a, i, m - i, k, a.row, a.column, PANEL, (double *)panel);
        for (int64_t t = 0; t < tiles; t++) {
            eight sum[COLUMNS];
            add(k, panel, columns + t * COLUMNS * k, sum);
            for (int64_t j = t * COLUMNS; j < n && j < (t + 1) * COLUMNS; j++)
                for (int64_t r = i; r < m && r < i + PANEL; r++)
                    c[r * n + j] = sum[j - t * COLUMNS][r - i];
        }
    }
    free(columns);
    free(panel);
}
