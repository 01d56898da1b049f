#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train/model_files.h"

static char folder[] = "/tmp/draft-model-files-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    char path[64];
    snprintf(path, sizeof path, "%s/model_index.json", folder);
    unlink(path);
    return rmdir(folder);
}

static void write_index(const char *text)
{
    char path[64];
    snprintf(path, sizeof path, "%s/model_index.json", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void test_model_files__takes_the_parts_of_a_stable_diffusion_folder(void **state)
{
    (void)state;
    static const char *const indices[] = {
        "{\"_class_name\": \"StableDiffusionPipeline\", \"unet\": [\"diffusers\", \"UNet2DConditionModel\"]}",
        "{\"_class_name\": \"StableDiffusionImg2ImgPipeline\"}",
        "{\"_diffusers_version\": \"0.42.1\"}",
    };
    char expected[64];
    snprintf(expected, sizeof expected, "%s/scheduler/scheduler_config.json", folder);
    for (size_t i = 0; i < sizeof indices / sizeof *indices; i++) {
        struct draft_model_files files;
        struct draft_error err = {0};
        write_index(indices[i]);
        if (!draft_model_locate(&files, folder, &err))
            fail_msg("%s", err.message);
        assert_false(files.single);
        assert_string_equal(files.scheduler, expected);
    }
}

static void test_model_files__other_pipelines_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } rows[] = {
        {"{\"_class_name\": \"StableDiffusionXLPipeline\"}",
         "says that the model is a StableDiffusionXLPipeline; only"},
        {"{\"_class_name\": \"StableDiffusion3Pipeline\"}", "is a StableDiffusion3Pipeline; only Stable Diffusion 1.x"},
        {"{\"_class_name\": \"FluxPipeline\"}", "is a FluxPipeline; only"},
        {"{\"_class_name\": \"StableDiffusionInpaintPipeline\"}", "is a StableDiffusionInpaintPipeline; only"},
        {"{\"_class_name\": [\"a\"]}", "\"_class_name\" is [\"a\"], expected a string"},
        {"{\"_class_name\": ", "model_index.json is not JSON"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct draft_model_files files;
        struct draft_error err = {0};
        write_index(rows[i].text);
        assert_false(draft_model_locate(&files, folder, &err));
        assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
        if (strstr(err.message, rows[i].words) == NULL || strstr(err.message, folder) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", err.message, rows[i].words);
    }
}

static void test_model_files__a_model_that_is_not_there_is_named(void **state)
{
    (void)state;
    struct draft_model_files files;
    struct draft_error err = {0};
    assert_false(draft_model_locate(&files, "/nowhere/sd15", &err));
    assert_int_equal(err.code, DRAFT_NOT_FOUND);
    assert_non_null(strstr(err.message, "/nowhere/sd15"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_files__takes_the_parts_of_a_stable_diffusion_folder),
        cmocka_unit_test(test_model_files__other_pipelines_are_named),
        cmocka_unit_test(test_model_files__a_model_that_is_not_there_is_named),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
