#include <stdatomic.h>

#include "engine/backend/every_backend.h"

#include "backend/backend.h"

static void test_backend__unknown_instruction_sets_and_thread_counts_are_refused(void **state)
{
    (void)state;
    struct draft_error err = {0};
    assert_null(draft_backend_create_cpu(&(struct draft_backend_options){.threads = 1, .isa = "sse9"}, &err));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "\"sse9\""));
    err = (struct draft_error){0};
    assert_null(draft_backend_create_cpu(&(struct draft_backend_options){.threads = -1}, &err));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
    err = (struct draft_error){0};
    assert_null(draft_backend_create_cpu(&(struct draft_backend_options){.threads = 1000000}, &err));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
    draft_backend_destroy(NULL);
}

static void test_backend__auto_takes_the_best_and_one_thread_per_processor(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_backend *backend = draft_backend_create_cpu(&(struct draft_backend_options){.isa = "auto"}, &err);
    assert_non_null(backend);
    assert_true(draft_backend_threads(backend) >= 1);
    for (int i = ISAS - 1; i >= 0; i--)
        if (backends[i][0] && !strstr(isa_names[i], "bf16")) { /* less exact: only when asked for */
            assert_string_equal(draft_backend_isa(backend), isa_names[i]);
            break;
        }
    draft_backend_destroy(backend);
}

static void test_backend__bf16_is_taken_when_asked_for_and_refused_where_it_is_missing(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_backend *backend = draft_backend_create_cpu(&(struct draft_backend_options){.bf16 = true}, &err);
    bool here = strstr(isa_names[ISAS - 1], "bf16") && backends[ISAS - 1][0];
    assert_int_equal(backend != NULL, here);
    if (backend)
        assert_string_equal(draft_backend_isa(backend), "x86-64-v4-bf16");
    else
        assert_int_equal(err.code, DRAFT_FAILED_PRECONDITION);
    draft_backend_destroy(backend);
    err = (struct draft_error){0};
    assert_null(draft_backend_create_cpu(&(struct draft_backend_options){.bf16 = true, .isa = "x86-64-v3"}, &err));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
}

struct counting {
    _Atomic int runs[5000];
    _Atomic int wrong_thread;
    int threads;
};

static void count_task(void *context, int64_t task, int thread)
{
    struct counting *c = context;
    atomic_fetch_add(&c->runs[task], 1);
    if (thread < 0 || thread >= c->threads)
        atomic_fetch_add(&c->wrong_thread, 1);
}

static void test_backend__every_task_runs_once(void **state)
{
    (void)state;
    static struct counting c;
    static const int64_t sizes[] = {0, 1, 2, 3, 7, 64, 1000, 5000};
    struct draft_error err = {0};
    for (int threads = 1; threads <= 8; threads += 3) {
        struct draft_backend *backend =
            draft_backend_create_cpu(&(struct draft_backend_options){.threads = threads}, &err);
        assert_non_null(backend);
        for (int round = 0; round < 300; round++) {
            int64_t tasks = sizes[round % 8];
            memset(&c, 0, sizeof(c));
            c.threads = threads;
            draft_parallel(backend, tasks, count_task, &c);
            for (int64_t i = 0; i < 5000; i++)
                assert_int_equal(c.runs[i], i < tasks);
            assert_int_equal(c.wrong_thread, 0);
        }
        draft_backend_destroy(backend);
    }
}

static void mark_range(void *context, int64_t begin, int64_t end)
{
    for (int64_t i = begin; i < end; i++)
        ((char *)context)[i]++;
}

static void test_backend__ranges_cover_everything_once(void **state)
{
    (void)state;
    static char marks[10007];
    struct draft_error err = {0};
    struct draft_backend *backend = draft_backend_create_cpu(&(struct draft_backend_options){.threads = 2}, &err);
    assert_non_null(backend);
    static const int64_t grains[] = {1, 13, 10006, 10007, 20000};
    for (size_t g = 0; g < sizeof(grains) / sizeof(grains[0]); g++) {
        memset(marks, 0, sizeof(marks));
        draft_parallel_range(backend, 10007, grains[g], mark_range, marks);
        for (int i = 0; i < 10007; i++)
            assert_int_equal(marks[i], 1);
    }
    draft_backend_destroy(backend);
}

static void run_linear(struct draft_backend *backend, struct draft_tensor *w, const float *x, float *y)
{
    struct draft_error err = {0};
    assert_true(draft_cpu_linear(backend, 4, x, w, NULL, NULL, y, false, &err));
}

static void test_backend__frozen_weights_are_packed_once_and_forgotten_on_request(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_backend *backend = draft_backend_create_cpu(&(struct draft_backend_options){.threads = 1}, &err);
    assert_non_null(backend);
    float *data = numbers(64 * 32, 1), *x = numbers(4 * 32, 1), y[4 * 64], again[4 * 64];
    struct draft_tensor w = weight_of(data, 2, (int64_t[]){64, 32}, false);
    assert_int_equal(draft_backend_prepared_bytes(backend), 0);
    run_linear(backend, &w, x, y);
    size_t bytes = draft_backend_prepared_bytes(backend);
    assert_true(bytes >= 64 * 32 * sizeof(float));
    run_linear(backend, &w, x, again);
    assert_int_equal(draft_backend_prepared_bytes(backend), bytes);
    assert_memory_equal(y, again, sizeof(y));

    for (int i = 0; i < 64 * 32; i++)
        data[i] *= 2.0f;
    draft_backend_forget(backend, &w);
    assert_int_equal(draft_backend_prepared_bytes(backend), 0);
    run_linear(backend, &w, x, again);
    for (int i = 0; i < 4 * 64; i++)
        assert_true(again[i] == 2.0f * y[i]);

    struct draft_tensor never = weight_of(data, 2, (int64_t[]){64, 32}, false);
    draft_backend_forget(backend, &never);
    draft_backend_destroy(backend);
    free(data), free(x);
}

/* The product with a trained weight, and again with twice its values. */
static void change_a_trained_weight(bool every_step)
{
    struct draft_error err = {0};
    struct draft_backend *backend = draft_backend_create_cpu(&(struct draft_backend_options){.threads = 1}, &err);
    assert_non_null(backend);
    float *data = numbers(64 * 32, 1), *x = numbers(4 * 32, 1), y[4 * 64], again[4 * 64];
    struct draft_tensor w = weight_of(data, 2, (int64_t[]){64, 32}, true);
    w.every_step = every_step;
    run_linear(backend, &w, x, y);
    assert_true(draft_backend_prepared_bytes(backend) >= (every_step ? 64 * 32 * sizeof(float) : 0));
    for (int i = 0; i < 64 * 32; i++)
        data[i] *= 2.0f;
    if (every_step) {
        draft_backend_forget(backend, &w);
        assert_int_equal(draft_backend_prepared_bytes(backend), 0);
        draft_backend_keep(backend, 0); /* no memory to spare: packed anew each time, with the same numbers */
    }
    run_linear(backend, &w, x, again);
    for (int i = 0; i < 4 * 64; i++)
        assert_true(again[i] == 2.0f * y[i]);
    assert_int_equal(draft_backend_prepared_bytes(backend), 0);
    draft_backend_destroy(backend);
    free(data), free(x);
}

static void test_backend__trained_weights_are_read_afresh(void **state)
{
    (void)state;
    change_a_trained_weight(false);
}

static void test_backend__trained_weights_of_every_step_are_kept_packed_until_they_change(void **state)
{
    (void)state;
    change_a_trained_weight(true);
}

static void test_backend__a_weight_may_outlive_the_backend_that_packed_it(void **state)
{
    (void)state;
    struct draft_error err = {0};
    float *data = numbers(64 * 32, 1), *x = numbers(4 * 32, 1), y[4 * 64], again[4 * 64];
    struct draft_tensor w = weight_of(data, 2, (int64_t[]){64, 32}, false);
    struct draft_backend *backend = draft_backend_create_cpu(&(struct draft_backend_options){.threads = 1}, &err);
    assert_non_null(backend);
    run_linear(backend, &w, x, y);
    draft_backend_destroy(backend);
    backend = draft_backend_create_cpu(&(struct draft_backend_options){.threads = 1}, &err);
    assert_non_null(backend);
    run_linear(backend, &w, x, again);
    assert_memory_equal(y, again, sizeof(y));
    draft_backend_destroy(backend);
    free(data), free(x);
}

static void test_backend__scratch_that_cannot_be_had_is_an_error(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_backend *backend = draft_backend_create_cpu(&(struct draft_backend_options){.threads = 2}, &err);
    assert_non_null(backend);
    assert_true(draft_scratch_reserve(backend, 1000, 1000, &err));
    memset(draft_scratch_shared(backend), 1, 1000);
    memset(draft_scratch_of(backend, 1), 1, 1000);
    assert_int_equal((uintptr_t)draft_scratch_of(backend, 1) % 64, 0);
    assert_false(draft_scratch_reserve(backend, SIZE_MAX - 100, 0, &err));
    assert_int_equal(err.code, DRAFT_OUT_OF_MEMORY);
    assert_false(draft_scratch_reserve(backend, 0, SIZE_MAX / 4, NULL));
    err = (struct draft_error){0};
    assert_true(draft_scratch_reserve(backend, 1000, 1000, &err));
    memset(draft_scratch_of(backend, 0), 1, 1000);
    draft_backend_destroy(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backend__unknown_instruction_sets_and_thread_counts_are_refused),
        cmocka_unit_test(test_backend__auto_takes_the_best_and_one_thread_per_processor),
        cmocka_unit_test(test_backend__bf16_is_taken_when_asked_for_and_refused_where_it_is_missing),
        cmocka_unit_test(test_backend__every_task_runs_once),
        cmocka_unit_test(test_backend__ranges_cover_everything_once),
        cmocka_unit_test(test_backend__frozen_weights_are_packed_once_and_forgotten_on_request),
        cmocka_unit_test(test_backend__trained_weights_are_read_afresh),
        cmocka_unit_test(test_backend__trained_weights_of_every_step_are_kept_packed_until_they_change),
        cmocka_unit_test(test_backend__a_weight_may_outlive_the_backend_that_packed_it),
        cmocka_unit_test(test_backend__scratch_that_cannot_be_had_is_an_error),
    };
    return cmocka_run_group_tests(tests, create_backends, destroy_backends);
}
