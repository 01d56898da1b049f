#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

/* Known answers of the Random123 library (kat_vectors: philox4x32, 10 rounds). */
static void test_rng__philox_gives_random123s_known_answers(void **state)
{
    (void)state;
    const struct {
        uint32_t counter[4], key[2], out[4];
    } rows[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint32_t out[4];
        draft_philox_block(rows[i].key, rows[i].counter, out);
        assert_memory_equal(out, rows[i].out, sizeof out);
    }
}

static void test_rng__philox_numbers_are_standard_normal(void **state)
{
    (void)state;
    enum { N = 200000 };
    float *x = malloc(N * sizeof *x);
    draft_philox_randn(1, DRAFT_PURPOSE_NOISE, 5, 3, x, N);
    double sum = 0, square = 0, fourth = 0, neighbours = 0;
    int beyond = 0;
    for (int i = 0; i < N; i++) {
        double v = (double)x[i];
        sum += v;
        square += v * v;
        fourth += v * v * v * v;
        neighbours += i > 0 ? v * (double)x[i - 1] : 0;
        beyond += fabs(v) > 1.959964;
    }
    free(x);
    assert_true(fabs(sum / N) < 4 / sqrt(N)); /* four standard errors each */
    assert_true(fabs(square / N - 1) < 4 * sqrt(2.0 / N));
    assert_true(fabs(fourth / N - 3) < 4 * sqrt(96.0 / N));
    assert_true(fabs(neighbours / N) < 4 / sqrt(N));
    assert_true(fabs((double)beyond / N - 0.05) < 4 * sqrt(0.05 * 0.95 / N));
}

static void test_rng__philox_gives_other_numbers_for_every_seed_purpose_step_and_index(void **state)
{
    (void)state;
    float all[6][8];
    draft_philox_randn(1, DRAFT_PURPOSE_NOISE, 2, 3, all[0], 8);
    draft_philox_randn(2, DRAFT_PURPOSE_NOISE, 2, 3, all[1], 8);
    draft_philox_randn(1, DRAFT_PURPOSE_RENOISE, 2, 3, all[2], 8);
    draft_philox_randn(1, DRAFT_PURPOSE_NOISE, 3, 3, all[3], 8);
    draft_philox_randn(1, DRAFT_PURPOSE_NOISE, 2, 4, all[4], 8);
    draft_philox_randn(1 + (UINT64_C(1) << 32), DRAFT_PURPOSE_NOISE, 2, 3, all[5], 8);
    for (int a = 0; a < 6; a++)
        for (int b = a + 1; b < 6; b++)
            for (int i = 0; i < 8; i++)
                assert_true(all[a][i] != all[b][i]);
}

static void test_rng__philox_gives_the_same_beginning_whatever_the_length(void **state)
{
    (void)state;
    float long_run[64];
    draft_philox_randn(9, DRAFT_PURPOSE_EVALUATION, 0, 0, long_run, 64);
    for (size_t n = 0; n <= 64; n++) {
        float run[65];
        run[n] = 12345.0f;
        draft_philox_randn(9, DRAFT_PURPOSE_EVALUATION, 0, 0, run, n);
        assert_memory_equal(run, long_run, n * sizeof *run);
        assert_true(run[n] == 12345.0f);
    }
}

static void test_rng__permutation_holds_every_index_once(void **state)
{
    (void)state;
    uint32_t order[1000];
    for (size_t n = 0; n <= 1000; n += 37) {
        char seen[1000] = {0};
        draft_philox_permutation(3, n, order, n);
        for (size_t i = 0; i < n; i++) {
            assert_true(order[i] < n && !seen[order[i]]);
            seen[order[i]] = 1;
        }
    }
}

static void test_rng__permutation_is_fair_and_differs_between_epochs(void **state)
{
    (void)state;
    enum { ROUNDS = 24000 };
    int counts[24] = {0};
    for (uint64_t epoch = 0; epoch < ROUNDS; epoch++) {
        uint32_t order[4];
        draft_philox_permutation(11, epoch, order, 4);
        int rank = 0; /* Lehmer code */
        for (int i = 0; i < 4; i++) {
            int smaller = 0;
            for (int j = i + 1; j < 4; j++)
                smaller += order[j] < order[i];
            rank = rank * (4 - i) + smaller;
        }
        counts[rank]++;
    }
    double chi = 0;
    for (int i = 0; i < 24; i++)
        chi += pow(counts[i] - ROUNDS / 24.0, 2) / (ROUNDS / 24.0);
    assert_true(chi < 49.7); /* 23 degrees of freedom, p = 0.001 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rng__philox_gives_random123s_known_answers),
        cmocka_unit_test(test_rng__philox_numbers_are_standard_normal),
        cmocka_unit_test(test_rng__philox_gives_other_numbers_for_every_seed_purpose_step_and_index),
        cmocka_unit_test(test_rng__philox_gives_the_same_beginning_whatever_the_length),
        cmocka_unit_test(test_rng__permutation_holds_every_index_once),
        cmocka_unit_test(test_rng__permutation_is_fair_and_differs_between_epochs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
