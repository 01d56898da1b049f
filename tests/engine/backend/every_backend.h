/*
 * For the tests of the CPU kernels: every instruction set of this machine with 1, 2 and 3 threads, random inputs, and
 * the comparison with a plain twin in double. A result must be within the bound on the first backend of each
 * instruction set, and bitwise the same on the others.
 */
#ifndef TESTS_ENGINE_BACKEND_EVERY_BACKEND_H
#define TESTS_ENGINE_BACKEND_EVERY_BACKEND_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/cpu/cpu.h"
#include "engine/backend/uniform.h"

#if defined(__x86_64__)
enum { ISAS = 4, THREADS = 3 };
static const char *const isa_names[ISAS] = {"x86-64", "x86-64-v3", "x86-64-v4", "x86-64-v4-bf16"};
#elif defined(__aarch64__)
enum { ISAS = 1, THREADS = 3 };
static const char *const isa_names[ISAS] = {"armv8-a"};
#else
enum { ISAS = 1, THREADS = 3 };
static const char *const isa_names[ISAS] = {"generic"};
#endif
/* The bound of kernels that multiply bf16 numbers on an instruction set that does so; 0: this file's kernels do not. */
static double bf16_bound;
static struct draft_backend *backends[ISAS][THREADS]; /* NULL where the machine lacks the instruction set */

static int create_backends(void **state)
{
    (void)state;
    int made = 0;
    for (int i = 0; i < ISAS; i++)
        for (int t = 0; t < THREADS; t++) {
            struct draft_error err = {0};
            struct draft_backend_options options = {.threads = t + 1, .isa = isa_names[i]};
            backends[i][t] = draft_backend_create_cpu(&options, &err);
            made += backends[i][t] != NULL;
        }
    return made > 0 ? 0 : -1;
}

static int destroy_backends(void **state)
{
    (void)state;
    for (int i = 0; i < ISAS; i++)
        for (int t = 0; t < THREADS; t++)
            draft_backend_destroy(backends[i][t]);
    return 0;
}

/* numbers() makes such as bf16 has: then bf16 products are as exact as fp32's, and held to the same bounds. */
static bool bf16_numbers;

static inline float *numbers(int64_t n, double scale) /* normal, the caller frees */
{
    float *x = malloc((size_t)(n ? n : 1) * sizeof(float));
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(scale * sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform()));
    for (int64_t i = 0; bf16_numbers && i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0xffff0000u;
        memcpy(&x[i], &bits, sizeof bits);
    }
    return x;
}

static inline double *zeros(int64_t n)
{
    double *x = calloc((size_t)(n ? n : 1), sizeof(double));
    assert_non_null(x);
    return x;
}

static inline double relative_error(int64_t n, const float *got, const double *want)
{
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        norm += want[i] * want[i];
    }
    if (!(difference < INFINITY))
        return INFINITY;
    return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}

/* One output of a kernel under test: `before` is what it holds when the kernel accumulates (NULL: garbage). */
struct output {
    const char *name;
    int64_t n;
    const double *want;
    const float *before;
    float *got;
};

enum { MAX_OUTPUTS = 4 };

/* Runs the kernel on every backend and holds its outputs against the twin. */
static inline void
check_everywhere(const char *what, double bound, struct output *outputs, int count,
                 void (*kernel)(struct draft_backend *backend, void *context, struct output *outputs), void *context)
{
    float *first[MAX_OUTPUTS];
    for (int o = 0; o < count; o++) {
        size_t bytes = (size_t)(outputs[o].n ? outputs[o].n : 1) * sizeof(float);
        first[o] = malloc(bytes);
        outputs[o].got = malloc(bytes);
        assert_true(first[o] && outputs[o].got);
    }
    for (int i = 0; i < ISAS; i++)
        for (int t = 0; t < THREADS; t++) {
            if (!backends[i][t])
                continue;
            for (int o = 0; o < count; o++)
                for (int64_t j = 0; j < outputs[o].n; j++)
                    outputs[o].got[j] = outputs[o].before ? outputs[o].before[j] : NAN;
            kernel(backends[i][t], context, outputs);
            for (int o = 0; o < count; o++) {
                struct output *out = &outputs[o];
                if (t > 0) {
                    if (memcmp(first[o], out->got, (size_t)out->n * sizeof(float)) != 0)
                        fail_msg("%s: %s differs between 1 and %d threads on %s", what, out->name, t + 1, isa_names[i]);
                    continue;
                }
                memcpy(first[o], out->got, (size_t)out->n * sizeof(float));
                double error = relative_error(out->n, out->got, out->want);
                double limit = bf16_bound > 0 && strstr(isa_names[i], "bf16") ? bf16_bound : bound;
                if (!(error <= limit))
                    fail_msg("%s: %s has relative error %.3g on %s, bound %.3g", what, out->name, error, isa_names[i],
                             limit);
            }
        }
    for (int o = 0; o < count; o++) {
        free(first[o]);
        free(outputs[o].got);
    }
}

static inline struct draft_tensor weight_of(float *data, int rank, const int64_t *dim, bool trained)
{
    struct draft_tensor w = {.dtype = DRAFT_F32, .rank = rank, .data = data, .name = "weight", .needs_grad = trained};
    for (int i = 0; i < rank; i++)
        w.dim[i] = dim[i];
    return w;
}

#endif
