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

#include "train/model_files.h"

static char folder[40];

static const char *const parts[] = {"unet", "vae", "text_encoder", "tokenizer", "scheduler"};

static const char *inside(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/draft-model-files-XXXXXX");
    bool ok = mkdtemp(folder) != NULL;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        ok = ok && mkdir(inside(parts[i]), 0700) == 0;
    return !ok;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[80];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static void write_file(const char *name, const char *text)
{
    FILE *file = fopen(inside(name), "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void refused(const char *words)
{
    struct draft_model_files files;
    struct draft_error err = {0};
    assert_false(draft_model_locate(&files, folder, &err));
    if (strstr(err.message, words) == NULL || strstr(err.message, folder) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
}

static void test_model_files__takes_the_parts_of_a_stable_diffusion_folder(void **state)
{
    (void)state;
    static const char *const indices[] = {
        "{\"_class_name\": \"StableDiffusionPipeline\", \"unet\": [\"diffusers\", \"UNet2DConditionModel\"]}",
        "{\"_class_name\": \"StableDiffusionImg2ImgPipeline\"}",
        "{\"_diffusers_version\": \"0.42.1\"}",
    };
    char expected[128];
    snprintf(expected, sizeof expected, "%s/scheduler/scheduler_config.json", folder);
    for (size_t i = 0; i < sizeof indices / sizeof *indices; i++) {
        struct draft_model_files files;
        struct draft_error err = {0};
        write_file("model_index.json", indices[i]);
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
        write_file("model_index.json", rows[i].text);
        refused(rows[i].words);
    }
}

static void test_model_files__a_folder_that_is_no_model_says_what_to_give(void **state)
{
    (void)state;
    assert_int_equal(rmdir(inside("tokenizer")), 0);
    refused("has no tokenizer/, which a Stable Diffusion folder needs");
    assert_int_equal(rmdir(inside("unet")), 0);
    refused("holds no model: expected a diffusers folder (unet/, vae/, ");
    write_file("v1-5.safetensors", "");
    refused("to open the checkpoint in it give the file itself: ");
    write_file("config.json", "{}");
    refused("is one part of a model; give the folder that holds unet/, ");
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_model_files__takes_the_parts_of_a_stable_diffusion_folder),
        TEST(test_model_files__other_pipelines_are_named),
        TEST(test_model_files__a_folder_that_is_no_model_says_what_to_give),
        TEST(test_model_files__a_model_that_is_not_there_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
