/* Devices by name, and each way in which there may be no GPU, in its own words: over the fake plugin where that is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/open.h"

static const struct draft_services NONE;
static const struct draft_backend_options ONE_THREAD = {.threads = 1};

static void test_open__reads_the_names_of_devices(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        struct draft_device_choice choice;
    } names[] = {{NULL, {.automatic = true}}, {"", {.automatic = true}}, {"auto", {.automatic = true}},
                 {"cpu", {.cpu = true}},      {"cuda", {.number = 0}},   {"cuda:0", {.number = 0}},
                 {"cuda:12", {.number = 12}}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct draft_device_choice choice;
        struct draft_error err = {0};
        assert_true(draft_device_parse(names[i].text, &choice, &err));
        assert_true(choice.automatic == names[i].choice.automatic && choice.cpu == names[i].choice.cpu &&
                    choice.number == names[i].choice.number);
    }
    static const char *const WRONG[] = {"gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:1x", "cuda: 1", "cuda:99999", "CPU"};
    for (size_t i = 0; i < sizeof WRONG / sizeof *WRONG; i++) {
        struct draft_device_choice choice;
        struct draft_error err = {0};
        assert_false(draft_device_parse(WRONG[i], &choice, &err));
        assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
        assert_non_null(strstr(err.message, WRONG[i]));
    }
}

static void need_plugin(void)
{
    if (getenv("DRAFT_CUDA_PLUGIN") == NULL) {
        print_message("skipped: no CUDA toolkit\n");
        skip();
    }
}

static void refused(const char *device, const char *says)
{
    struct draft_error err = {0};
    assert_null(draft_backend_open(device, NULL, &ONE_THREAD, &NONE, &err));
    if (strstr(err.message, says) == NULL)
        fail_msg("\"%s\" should say \"%s\"", err.message, says);
}

/* Before the plugin is loaded for good. */
static void test_open__says_what_a_plugin_lacks(void **state)
{
    (void)state;
    need_plugin();
    char plugin[4096];
    snprintf(plugin, sizeof plugin, "%s", getenv("DRAFT_CUDA_PLUGIN"));
    setenv("DRAFT_CUDA_PLUGIN", "/nowhere/libdraft_cuda.so", 1);
    refused("cuda", "/nowhere/libdraft_cuda.so: cannot open shared object file");
    unsetenv("DRAFT_CUDA_PLUGIN"); /* a build folder has the real plugin, if any, elsewhere than the test programs */
    refused("cuda", "there is no CUDA backend here");
    setenv("DRAFT_CUDA_PLUGIN", plugin, 1);
}

static void refused_libraries(const char *folders, const char *says)
{
    struct draft_error err = {0};
    assert_null(draft_backend_open("cuda", folders, &ONE_THREAD, &NONE, &err));
    if (strstr(err.message, says) == NULL || strstr(err.message, "--cuda-libraries") == NULL)
        fail_msg("\"%s\" should say \"%s\"", err.message, says);
}

static void test_open__finds_libraries_where_wheels_put_them_and_says_which_is_missing_or_wrong(void **state)
{
    (void)state;
    need_plugin();
    char folder[] = "/tmp/test_open_XXXXXX", path[256], folders[256];
    assert_non_null(mkdtemp(folder));
    static const char *const MADE[] = {"nvidia", "nvidia/cu13", "nvidia/cu13/lib"};
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, MADE[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    snprintf(folders, sizeof folders, "/nowhere:%s", folder);
    refused_libraries(folders, "there is no libcublasLt.so.13 in /nowhere:");
    snprintf(path, sizeof path, "%s/nvidia/cu13/lib/libcublasLt.so.13", folder);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    fputs("no library", file);
    fclose(file);
    refused_libraries(folders, "nvidia/cu13/lib/libcublasLt.so.13: file too short");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink(getenv("DRAFT_CUDA_PLUGIN"), path), 0); /* something that loads */
    refused_libraries(folders, "there is no libcudnn.so.9 in /nowhere:");
    unlink(path);
    for (int i = 3; i-- > 0;) {
        snprintf(path, sizeof path, "%s/%s", folder, MADE[i]);
        rmdir(path);
    }
    rmdir(folder);
}

static void test_open__says_why_there_is_no_gpu_and_computes_on_the_cpu_when_it_may(void **state)
{
    (void)state;
    need_plugin();
    static const char *const MACHINES[][2] = {
        {"no-driver", "no NVIDIA driver is installed; install version 580 or newer"},
        {"old-driver", "too old: it knows CUDA 12.4"},
        {"stub", "a stub libcuda.so"},
        {"no-device", "it shows no GPU"},
    };
    for (size_t i = 0; i < sizeof MACHINES / sizeof *MACHINES; i++) {
        setenv("FAKE_CUDA", MACHINES[i][0], 1);
        refused("cuda:0", MACHINES[i][1]);
        struct draft_error err = {0};
        struct draft_backend *backend = draft_backend_open("auto", NULL, &ONE_THREAD, &NONE, &err);
        assert_string_equal(draft_backend_kind(backend)->name, "cpu");
        assert_string_equal(err.message, "");
        draft_backend_destroy(backend);
    }
    unsetenv("FAKE_CUDA");
}

/* Both cuDNN 9s have one file name. */
static void test_open__says_which_cudnn_is_needed(void **state)
{
    (void)state;
    need_plugin();
    static const char *const FOUND[][2] = {
        {"old", "the cuDNN found is 9.1.0, 9.8 or a newer 9 is needed; install it, name its folder in DRAFT_CUDA_LIB"},
        {"cuda-12", "the cuDNN found is the one for CUDA 12, this program needs the one for CUDA 13; install it"}};
    for (size_t i = 0; i < sizeof FOUND / sizeof *FOUND; i++) {
        setenv("FAKE_CUDNN", FOUND[i][0], 1);
        refused("cuda:0", FOUND[i][1]);
        struct draft_error err = {0};
        struct draft_backend *backend = draft_backend_open("auto", NULL, &ONE_THREAD, &NONE, &err);
        assert_string_equal(draft_backend_kind(backend)->name, "cpu");
        draft_backend_destroy(backend);
    }
    unsetenv("FAKE_CUDNN");
}

static void test_open__takes_the_gpu_and_lists_it(void **state)
{
    (void)state;
    need_plugin();
    struct draft_error err = {0};
    struct draft_device device;
    assert_int_equal(draft_devices(NULL, &device, 1, &err), 1);
    assert_string_equal(device.name, "emulated GPU");
    assert_int_equal(device.memory, (size_t)8 << 30);
    assert_true(device.driver >= 12080);
    assert_int_equal(device.free, 0);
    assert_true(draft_device_probe(NULL, 0, &NONE, &device, &err));
    assert_string_equal(device.name, "emulated GPU");
    assert_in_range(device.free, (size_t)7 << 30, ((size_t)8 << 30) - 1); /* less the backend's own */
    refused("cuda:1", "the last of this machine's GPUs is cuda:0");
    static const char *const NAMES[] = {"auto", "cuda", "cuda:0"};
    for (int i = 0; i < 3; i++) {
        struct draft_backend *backend = draft_backend_open(NAMES[i], NULL, &ONE_THREAD, &NONE, &err);
        assert_string_equal(draft_backend_kind(backend)->name, "cuda");
        draft_backend_destroy(backend);
    }
    struct draft_backend *backend = draft_backend_open("cpu", NULL, &ONE_THREAD, &NONE, &err);
    assert_string_equal(draft_backend_kind(backend)->name, "cpu");
    draft_backend_destroy(backend);
}

static void test_open__an_arena_of_the_device_ends_where_its_memory_does(void **state)
{
    (void)state;
    need_plugin();
    setenv("FAKE_CUDA_MEMORY", "134217728", 1); /* 128 MiB, of which the workspace takes 32 */
    struct draft_error err = {0};
    struct draft_backend *backend = draft_backend_open("cuda", NULL, &ONE_THREAD, &NONE, &err);
    struct draft_arena *arena = draft_backend_arena(backend, "step", (size_t)1 << 40, &err);
    assert_non_null(arena);
    float *numbers = draft_arena_alloc(arena, (size_t)60 << 20), back[2];
    assert_non_null(numbers);
    assert_null(draft_arena_alloc(arena, (size_t)60 << 20));
    assert_true(draft_backend_fill(backend, numbers, 1 << 20, 1.5f, &err));
    assert_true(draft_backend_axpby(backend, DRAFT_F32, 2, 2, numbers, numbers + 2, true, &err));
    assert_true(draft_backend_download(backend, back, numbers + 2, sizeof back, &err));
    assert_true(back[0] == 4.5f && back[1] == 4.5f);
    assert_null(draft_backend_alloc(backend, (size_t)60 << 20, &err));
    assert_int_equal(err.code, DRAFT_OUT_OF_MEMORY);
    draft_arena_destroy(arena);
    draft_backend_destroy(backend);
    unsetenv("FAKE_CUDA_MEMORY");
}

/* Blocks slide down over themselves, by less than their length: the fake aborts on an overlapping copy. */
static void test_open__an_arena_of_the_device_slides_blocks_down(void **state)
{
    (void)state;
    need_plugin();
    struct draft_error err = {0};
    struct draft_backend *backend = draft_backend_open("cuda", NULL, &ONE_THREAD, &NONE, &err);
    struct draft_arena *arena = draft_backend_arena(backend, "step", (size_t)1 << 30, &err);
    enum { NUMBERS = 20 << 20 };
    int32_t *values = malloc(NUMBERS * sizeof *values), *back = malloc(NUMBERS * sizeof *back);
    for (int32_t i = 0; i < NUMBERS; i++)
        values[i] = i;
    draft_arena_alloc(arena, 300);
    void *block = draft_arena_alloc(arena, NUMBERS * sizeof *values);
    assert_true(draft_backend_upload(backend, block, values, NUMBERS * sizeof *values, &err));
    block = draft_arena_slide(arena, 0, block, NUMBERS * sizeof *values);
    assert_true(draft_backend_download(backend, back, block, NUMBERS * sizeof *values, &err));
    assert_memory_equal(back, values, NUMBERS * sizeof *values);
    free(values);
    free(back);
    draft_arena_destroy(arena);
    draft_backend_destroy(backend);
}

/* More than the buffer on the way holds, to a device that has not fetched the first of it yet. */
static void test_open__waiting_for_the_device_leaves_no_error_behind(void **state)
{
    (void)state;
    need_plugin();
    enum { BYTES = 20 << 20 };
    struct draft_error err = {0};
    struct draft_backend *backend = draft_backend_open("cuda", NULL, &ONE_THREAD, &NONE, &err);
    void *there = draft_backend_alloc(backend, BYTES, &err);
    char *here = calloc(1, BYTES), back = 0;
    here[BYTES - 1] = 7;
    setenv("FAKE_CUDA_LATE", "1", 1);
    assert_true(draft_backend_upload(backend, there, here, BYTES, &err));
    assert_true(draft_backend_fill(backend, there, 16, 1, &err));
    assert_true(draft_backend_download(backend, &back, (char *)there + BYTES - 1, 1, &err));
    assert_int_equal(back, 7);
    unsetenv("FAKE_CUDA_LATE");
    free(here);
    draft_backend_free(backend, there);
    draft_backend_destroy(backend);
}

static void test_open__after_a_sticky_error_the_process_is_told_to_end(void **state)
{
    (void)state;
    need_plugin();
    struct draft_error err = {0};
    struct draft_backend *backend = draft_backend_open("cuda", NULL, &ONE_THREAD, &NONE, &err);
    float *numbers = draft_backend_alloc(backend, 64, &err), back;
    setenv("FAKE_CUDA", "dies", 1);
    draft_backend_fill(backend, numbers, 16, 1, &err);
    err = (struct draft_error){0};
    assert_false(draft_backend_download(backend, &back, numbers, sizeof back, &err));
    assert_non_null(strstr(err.message, "copying from the GPU"));
    assert_non_null(strstr(err.message, "it must be started again"));
    assert_int_equal(err.code, DRAFT_DEVICE_LOST);
    struct draft_device device;
    err = (struct draft_error){0};
    assert_false(draft_device_probe(NULL, 0, &NONE, &device, &err));
    assert_int_equal(err.code, DRAFT_DEVICE_LOST);
    draft_backend_free(backend, numbers);
    draft_backend_destroy(backend);
    unsetenv("FAKE_CUDA");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open__reads_the_names_of_devices),
        cmocka_unit_test(test_open__says_what_a_plugin_lacks),
        cmocka_unit_test(test_open__finds_libraries_where_wheels_put_them_and_says_which_is_missing_or_wrong),
        cmocka_unit_test(test_open__says_why_there_is_no_gpu_and_computes_on_the_cpu_when_it_may),
        cmocka_unit_test(test_open__says_which_cudnn_is_needed),
        cmocka_unit_test(test_open__takes_the_gpu_and_lists_it),
        cmocka_unit_test(test_open__an_arena_of_the_device_ends_where_its_memory_does),
        cmocka_unit_test(test_open__an_arena_of_the_device_slides_blocks_down),
        cmocka_unit_test(test_open__waiting_for_the_device_leaves_no_error_behind),
        cmocka_unit_test(test_open__after_a_sticky_error_the_process_is_told_to_end), /* nothing works after it */
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
