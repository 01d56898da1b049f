/* The emulated device itself: if it is wrong, no other test of a kernel means much. */
#include "engine/backend/cuda/emulated.h"
#include "engine/backend/cuda/emulation_kernels.h"

#include <unistd.h>

static float out[1024];

/* Runs a kernel; its error and what was said on stderr. */
static int run(const char *name, int order, char *said, size_t size)
{
    for (size_t i = 0; i < sizeof out / sizeof *out; i++)
        out[i] = NAN;
    emulated_order = order;
    FILE *file = tmpfile();
    int stderr_was = dup(2);
    assert_true(file && stderr_was >= 0);
    fflush(stderr);
    dup2(fileno(file), 2);
    launch_kernel(name, out);
    fflush(stderr);
    dup2(stderr_was, 2);
    close(stderr_was);
    rewind(file);
    said[fread(said, 1, size - 1, file)] = '\0';
    fclose(file);
    return emulated_take_error();
}

static void run_well(const char *name, int order)
{
    char said[4096];
    int error = run(name, order, said, sizeof said);
    if (error != 0 || said[0])
        fail_msg("%s: error %d: %s", name, error, said);
}

static void test_cuda_emulation__what_kernels_rely_on(void **state)
{
    (void)state;
    static const int orders[] = {0, 1, 7};
    for (int o = 0; o < 3; o++) {
        run_well("indices", orders[o]);
        for (int i = 0; i < 12 * 24; i++)
            assert_true(out[i] == (float)(i / 24 * 100 + i % 24));
        run_well("shuffles", orders[o]);
        for (int t = 0; t < 40; t++) {
            assert_true(out[t * 3] == (t < 32 ? 496 : 32 + 33 + 34 + 35 + 36 + 37 + 38 + 39));
            assert_true(out[t * 3 + 1] == (float)(t ^ 1) && out[t * 3 + 2] == (t < 32 ? 3 : 35));
        }
        run_well("half_warps", orders[o]);
        for (int t = 0; t < 32; t++)
            assert_true(out[t] == (float)(t < 16 ? t ^ 8 : t ^ 4));
        run_well("reverses", orders[o]);
        for (int t = 0; t < 80; t++)
            assert_true(out[t] == (float)(79 - t));
        run_well("starts_as_nan", orders[o]);
        for (int b = 0; b < 5; b++)
            assert_true(out[b] == 1);
    }
}

static void test_cuda_emulation__broken_kernels_are_reported(void **state)
{
    (void)state;
    static const struct {
        const char *name, *says;
        int error;
    } broken[] = {
        {"too_many_threads", "refused", 9},
        {"too_much_shared_memory", "refused", 1},
        {"barrier_in_a_branch", "32 threads returned", 719},
        {"two_barriers", "reached at different places", 719},
        {"half_a_shuffle", "16 threads in a warp's exchange, ", 719},
        {"shuffle_against_barrier", "24 threads at the barrier, ", 719},
        {"wrong_mask", "missing from its own mask", 719},
    };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        char said[4096];
        int error = run(broken[i].name, 0, said, sizeof said);
        if (error != broken[i].error || !strstr(said, broken[i].says))
            fail_msg("%s: error %d, said: %s", broken[i].name, error, said);
    }
    run_well("indices", 0); /* and all is well again */
}

static void test_cuda_emulation__a_missing_barrier_depends_on_the_order(void **state)
{
    (void)state;
    static const char *const names[] = {"missing_barrier", "overtaken"};
    for (int i = 0; i < 2; i++) {
        float forwards[64];
        run_well(names[i], 0);
        memcpy(forwards, out, sizeof forwards);
        run_well(names[i], 1);
        assert_memory_not_equal(forwards, out, sizeof forwards);
    }
}

/* What a fake runtime does with launches: keep them, and run them later, more than once. */
static struct emulated_launch *kept;

static void keep(struct CUstream_st *stream, struct emulated_launch *launch)
{
    (void)stream;
    kept = launch;
}

static void test_cuda_emulation__a_launch_can_be_kept_and_replayed(void **state)
{
    (void)state;
    emulated_submit = keep;
    run_well("starts_as_nan", 0);
    emulated_submit = NULL;
    assert_non_null(kept);
    assert_true(isnan(out[0]));
    for (int i = 0; i < 2; i++) {
        out[0] = 0;
        emulated_run(kept);
        assert_true(out[0] == 1);
    }
    emulated_free(kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_emulation__what_kernels_rely_on),
        cmocka_unit_test(test_cuda_emulation__broken_kernels_are_reported),
        cmocka_unit_test(test_cuda_emulation__a_missing_barrier_depends_on_the_order),
        cmocka_unit_test(test_cuda_emulation__a_launch_can_be_kept_and_replayed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
