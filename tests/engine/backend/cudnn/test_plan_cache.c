/* Plans on disk: read back, and whatever else lies in their place is written over. */
#include "engine/backend/cudnn/described_gpus.h"

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/cuda/convolution_graph.h"
#include "backend/cuda/cudnn_cache.h"

enum { MADE = 0, READ_BACK = -1 };

struct folder {
    char path[64], file[512];
};

static int make(void **state)
{
    struct folder *f = calloc(1, sizeof *f);
    snprintf(f->path, sizeof f->path, "/tmp/draft-test-XXXXXX");
    *state = f;
    return f != NULL && mkdtemp(f->path) != NULL ? 0 : -1;
}

static int forget(void **state)
{
    struct folder *f = *state;
    unlink(f->file);
    rmdir(f->path);
    free(f);
    return 0;
}

/* One convolution by a library that has seen nothing yet. */
static int64_t engine_of(const char *gpu, const char *folder)
{
    const struct draft_conv_shape shape = {2, 16, 16, 64, 32, 3, 3, 1, 1, 1, 1, 1};
    const struct draft_cudnn_request request =
        draft_convolution_request(DRAFT_CUDNN_FORWARD, &shape, DRAFT_CONVOLUTION_BIASED, 1 << 20);
    struct draft_cudnn *cudnn = cudnn_for(gpu, folder);
    const struct draft_cudnn_plan *plan = plan_for(cudnn, &request);
    const int64_t engine = plan->engine;
    assert_true(plan->supported);
    draft_cudnn_destroy(cudnn);
    return engine;
}

/* The only file of the folder. */
static void find_file(struct folder *f)
{
    DIR *folder = opendir(f->path);
    const struct dirent *entry;
    int count = 0;
    while ((entry = readdir(folder)) != NULL)
        if (entry->d_name[0] != '.') {
            snprintf(f->file, sizeof f->file, "%s/%s", f->path, entry->d_name);
            count++;
        }
    closedir(folder);
    assert_int_equal(count, 1);
}

static void write_file(const char *path, const char *bytes, size_t size)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

static void test_plan_cache__gives_a_plan_back(void **state)
{
    struct folder *f = *state;
    assert_in_range(engine_of("h200", f->path), MADE, 1000);
    find_file(f);
    assert_int_equal(engine_of("h200", f->path), READ_BACK);
}

static void test_plan_cache__is_of_one_gpu(void **state)
{
    struct folder *f = *state;
    engine_of("h200", f->path);
    find_file(f);
    char first[512];
    snprintf(first, sizeof first, "%s", f->file);
    assert_in_range(engine_of("a100", f->path), MADE, 1000);
    unlink(first);
    find_file(f);
    /* another GPU's plan under this one's name */
    size_t size = 0;
    struct draft_error err = {0};
    char *foreign = draft_read_file(f->file, 1 << 20, &size, &err);
    write_file(first, foreign, size);
    free(foreign);
    assert_in_range(engine_of("h200", f->path), MADE, 1000);
    assert_int_equal(engine_of("h200", f->path), READ_BACK);
    unlink(first);
}

static void test_plan_cache__writes_over_whatever_is_damaged(void **state)
{
    struct folder *f = *state;
    engine_of("h200", f->path);
    find_file(f);
    size_t size = 0;
    struct draft_error err = {0};
    char *whole = draft_read_file(f->file, 1 << 20, &size, &err);
    assert_non_null(whole);
    for (size_t at = 0; at < size; at += size / 37) {
        whole[at] ^= 0x20;
        write_file(f->file, whole, size);
        whole[at] ^= 0x20;
        assert_in_range(engine_of("h200", f->path), MADE, 1000);
        assert_int_equal(engine_of("h200", f->path), READ_BACK);
    }
    for (size_t cut = 0; cut < size; cut += size / 7) {
        write_file(f->file, whole, cut);
        assert_in_range(engine_of("h200", f->path), MADE, 1000);
    }
    free(whole);
}

/* Whole by its fingerprint, and no plan: cuDNN has the last word. */
static void test_plan_cache__does_not_trust_a_well_made_file(void **state)
{
    struct folder *f = *state;
    static const char *const PLANS[] = {"", "{}", "[]", "{\"cudnnVersion\":91900,\"engine\":{\"engineId\":-1}}",
                                        "\xff"};
    engine_of("h200", f->path);
    find_file(f);
    size_t size;
    struct draft_error err = {0};
    char *whole = draft_read_file(f->file, 1 << 20, &size, &err);
    char *key = strchr(whole, '\n') + 1, *plan = strstr(key, "{\"cudnnVersion\"");
    *plan = '\0';
    for (size_t i = 0; i < sizeof PLANS / sizeof *PLANS; i++) {
        draft_cudnn_cache_write(f->path, key, PLANS[i]);
        assert_in_range(engine_of("h200", f->path), MADE, 1000);
        assert_int_equal(engine_of("h200", f->path), READ_BACK);
    }
    free(whole);
}

static void test_plan_cache__is_in_a_folder_of_ours_alone(void **state)
{
    struct folder *f = *state;
    char folder[512], expected[512];
    setenv("DRAFT_CUDA_CACHE", f->path, 1);
    assert_true(draft_cudnn_cache_folder(folder, sizeof folder));
    assert_string_equal(folder, f->path);
    chmod(f->path, 0777);
    assert_false(draft_cudnn_cache_folder(folder, sizeof folder));
    chmod(f->path, 0700);
    setenv("DRAFT_CUDA_CACHE", "", 1);
    assert_false(draft_cudnn_cache_folder(folder, sizeof folder));

    unsetenv("DRAFT_CUDA_CACHE");
    snprintf(expected, sizeof expected, "%s/a/b/draftd", f->path);
    snprintf(folder, sizeof folder, "%s/a/b", f->path);
    setenv("XDG_CACHE_HOME", folder, 1);
    assert_true(draft_cudnn_cache_folder(folder, sizeof folder));
    assert_string_equal(folder, expected);
    struct stat st;
    assert_int_equal(stat(folder, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    for (int i = 0; i < 3; i++) {
        rmdir(folder);
        *strrchr(folder, '/') = '\0';
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_plan_cache__gives_a_plan_back, make, forget),
        cmocka_unit_test_setup_teardown(test_plan_cache__is_of_one_gpu, make, forget),
        cmocka_unit_test_setup_teardown(test_plan_cache__writes_over_whatever_is_damaged, make, forget),
        cmocka_unit_test_setup_teardown(test_plan_cache__does_not_trust_a_well_made_file, make, forget),
        cmocka_unit_test_setup_teardown(test_plan_cache__is_in_a_folder_of_ours_alone, make, forget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
