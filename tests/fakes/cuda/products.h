/* Matrix products of the fake libraries: sums in double, in the order of k. */
#ifndef TESTS_FAKES_CUDA_PRODUCTS_H
#define TESTS_FAKES_CUDA_PRODUCTS_H

#include <stdint.h>

/* A matrix of floats in memory: element (i, j) at values[i * row + j * column]. */
struct fake_matrix {
    const float *values;
    int64_t row, column;
};

/* c[i * n + j] = the sum over l < k of a(i, l) b(l, j). */
void fake_multiply(int64_t m, int64_t n, int64_t k, struct fake_matrix a, struct fake_matrix b, double *c);

#endif
