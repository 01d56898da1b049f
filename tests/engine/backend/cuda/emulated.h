/*
 * For the tests of the CUDA kernels, run on the emulated device (tests/fakes/cuda/emulation): arrays of either type,
 * and a case run for both types with the threads forwards, backwards and shuffled. Its outputs must be within the bound
 * of what the CPU engine computes, and the same bits for every order.
 */
#ifndef TESTS_ENGINE_BACKEND_CUDA_EMULATED_H
#define TESTS_ENGINE_BACKEND_CUDA_EMULATED_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/cuda/cuda.h"
#include "emulation.h"
#include "engine/backend/uniform.h"
#include "tensor/half.h"

static const double BOUND[] = {[DRAFT_F32] = 1e-5, [DRAFT_BF16] = 2e-2};

static inline uint16_t to_bf16(float value)
{
    uint32_t bits = draft_f32_to_bits(value);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* --- Arrays ------------------------------------------------------------------------------------------------------- */

/* What a test allocates is freed together, at the end of its case. */
static void *allocated[256];
static int allocations;

/* Exactly that many bytes, so that the address sanitizer sees their end; aligned as the arena aligns. */
static inline void *memory(size_t bytes)
{
    void *p = NULL;
    assert_true(allocations < (int)(sizeof allocated / sizeof *allocated));
    if (posix_memalign(&p, 256, bytes ? bytes : 1) != 0 || p == NULL) {
        fail_msg("out of memory");
        return NULL;
    }
    memset(p, 0xff, bytes); /* NaN in every type */
    return allocated[allocations++] = p;
}

static inline void free_all(void)
{
    while (allocations > 0)
        free(allocated[--allocations]);
}

/* Normal numbers that the type holds exactly, so that CPU and device start from the same. */
static inline float *numbers(enum draft_dtype type, int64_t n, double scale, double mean)
{
    float *x = memory((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)(mean + scale * sqrt(-2 * log(uniform())) * cos(6.283185307179586 * uniform()));
        if (type == DRAFT_BF16)
            x[i] = draft_bf16_to_f32(to_bf16(x[i]));
    }
    return x;
}

static inline size_t size_of(enum draft_dtype type)
{
    return type == DRAFT_BF16 ? 2 : 4;
}

/* An array on the device: those values, or NaN. */
static inline void *device(enum draft_dtype type, int64_t n, const float *values)
{
    void *p = memory((size_t)n * size_of(type));
    for (int64_t i = 0; i < n && values; i++)
        if (type == DRAFT_BF16)
            ((uint16_t *)p)[i] = to_bf16(values[i]);
        else
            ((float *)p)[i] = values[i];
    return p;
}

static inline float at(enum draft_dtype type, const void *array, int64_t i)
{
    return type == DRAFT_BF16 ? draft_bf16_to_f32(((const uint16_t *)array)[i]) : ((const float *)array)[i];
}

/* --- Comparing ---------------------------------------------------------------------------------------------------- */

static const char *of_case = "";
static uint64_t bits_seen; /* of all outputs of a run */

static inline void check(const char *what, enum draft_dtype type, int64_t n, const void *got, const float *want,
                         double bound)
{
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)at(type, got, i) - (double)want[i];
        difference += d * d;
        norm += (double)want[i] * (double)want[i];
    }
    double error = norm > 0 ? sqrt(difference / norm) : sqrt(difference);
    if (!(error <= bound))
        fail_msg("%s, %s in %s: relative error %.3g, bound %.3g", of_case, what, type == DRAFT_BF16 ? "bf16" : "fp32",
                 error, bound);
    const unsigned char *bytes = got;
    for (size_t i = 0; i < (size_t)n * size_of(type); i++)
        bits_seen = (bits_seen ^ bytes[i]) * UINT64_C(1099511628211);
}

/* Runs a case for one type in three orders of threads. `run` makes its arrays, calls, and checks. */
static inline void in_every_order(const char *name, enum draft_dtype type,
                                  void (*run)(enum draft_dtype type, const void *context), const void *context)
{
    static const int orders[] = {0, 1, 7};
    uint64_t first = 0, random_before = random_state;
    of_case = name;
    for (int i = 0; i < 3; i++) {
        random_state = random_before;
        emulated_order = orders[i];
        bits_seen = UINT64_C(14695981039346656037);
        run(type, context);
        assert_int_equal(emulated_take_error(), 0);
        free_all();
        if (i == 0)
            first = bits_seen;
        if (bits_seen != first)
            fail_msg("%s in %s: other bits when the threads run in order %d", name,
                     type == DRAFT_BF16 ? "bf16" : "fp32", orders[i]);
    }
}

static inline void in_every_way(const char *name, void (*run)(enum draft_dtype type, const void *context),
                                const void *context)
{
    in_every_order(name, DRAFT_F32, run, context);
    in_every_order(name, DRAFT_BF16, run, context);
}

#endif
