#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "json_message.h"
#include "rpc/rpc.h"
#include "spec.h"

static char folder[] = "/tmp/test_spec_XXXXXX";

static int make_files(void **state)
{
    static const char *const files[] = {"prompts.txt", "other.txt"};
    (void)state;
    if (!mkdtemp(folder) || chdir(folder) != 0 || mkdir("sd", 0755) || mkdir("clip", 0755) || mkdir("a,b", 0755))
        return -1;
    for (int i = 0; i < 2; i++) {
        FILE *file = fopen(files[i], "w");
        if (!file)
            return -1;
        fputs("an owl\n", file);
        fclose(file);
    }
    return 0;
}

static int remove_files(void **state)
{
    (void)state;
    unlink("prompts.txt");
    unlink("other.txt");
    unlink("job.json");
    rmdir("sd");
    rmdir("clip");
    rmdir("a,b");
    return chdir("/") || rmdir(folder);
}

static bool from_words(Draftd__V1__JobSpec *spec, char **words, int count, struct draft_error *err)
{
    static struct draft_arguments arguments;
    const struct draft_option *tables[] = {draft_spec_options, NULL};
    *err = (struct draft_error){0};
    return draft_arguments_parse(tables, count, words, &arguments, err) &&
           draft_spec_from_arguments(spec, &arguments, err);
}
#define WORDS(...) ((char *[]){__VA_ARGS__}), (int)(sizeof((char *[]){__VA_ARGS__}) / sizeof(char *))

static void test_spec__flags_set_the_fields_they_name(void **state)
{
    struct draft_error err;
    char expected[256];
    (void)state;
    Draftd__V1__JobSpec *spec = draft_spec_new();
    assert_true(
        from_words(spec,
                   WORDS("--model", "sd", "-d", "prompts.txt", "--reward", "2*clip:clip", "--reward",
                         "-0.5*jpeg,quality=80,mode=compressibility", "--kl-coeff", "0", "--steps", "200", "-T", "25",
                         "-K", "2", "--lv", "2", "--guidance", "0", "--size", "32x64", "--rank", "4", "--alpha", "8",
                         "--lr", "3e-4", "--warmup", "0", "--seed", "18446744073709551615", "--eval-prompt", "a",
                         "--eval-prompt", "b", "--eval-every", "-1", "--recompute", "--batch", "8", "--name", "käse",
                         "--train", "full", "--ema-decay", "0.99", "--precision", "bf16", "--memory", "low"),
                   &err));
    snprintf(expected, sizeof expected, "%s/sd", folder);
    assert_string_equal(spec->model, expected);
    snprintf(expected, sizeof expected, "%s/prompts.txt", folder);
    assert_string_equal(spec->dataset, expected);
    assert_int_equal(spec->n_rewards, 2);
    assert_string_equal(spec->rewards[0]->kind, "clip");
    assert_true(spec->rewards[0]->weight == 2);
    snprintf(expected, sizeof expected, "%s/clip", folder);
    assert_string_equal(spec->rewards[0]->path, expected);
    assert_string_equal(spec->rewards[1]->kind, "jpeg");
    assert_string_equal(spec->rewards[1]->path, "");
    assert_string_equal(spec->rewards[1]->options, "quality=80,mode=compressibility");
    assert_true(spec->rewards[1]->weight == -0.5);
    assert_int_equal(spec->kl_coeff_opt_case, DRAFTD__V1__JOB_SPEC__KL_COEFF_OPT_KL_COEFF);
    assert_true(spec->kl_coeff == 0);
    assert_int_equal(spec->length->steps, 200);
    assert_int_equal(spec->length->global_batch, 8);
    assert_int_equal(spec->sampling->steps, 25);
    assert_int_equal(spec->sampling->truncation_steps, 2);
    assert_int_equal(spec->sampling->lv_copies, 2);
    assert_int_equal(spec->sampling->guidance_opt_case, DRAFTD__V1__SAMPLING__GUIDANCE_OPT_GUIDANCE);
    assert_int_equal(spec->sampling->height, 32);
    assert_int_equal(spec->sampling->width, 64);
    assert_int_equal(spec->lora->rank, 4);
    assert_true(spec->optimizer->learning_rate == 3e-4);
    assert_int_equal(spec->optimizer->warmup_steps_opt_case, DRAFTD__V1__OPTIMIZER__WARMUP_STEPS_OPT_WARMUP_STEPS);
    assert_true(spec->seed == UINT64_MAX);
    assert_int_equal(spec->evaluation->n_prompts, 2);
    assert_string_equal(spec->evaluation->prompts[1], "b");
    assert_int_equal(spec->evaluation->every, -1);
    assert_true(spec->recompute);
    assert_string_equal(spec->display_name, "käse");
    assert_string_equal(spec->train, "full");
    assert_true(spec->ema_decay == 0.99);
    assert_string_equal(spec->precision, "bf16");
    assert_string_equal(spec->memory, "low");
    draft_free_message(spec);
}

/* Every path in the table must be a field of the .proto, and of a fitting type: setting it must work. */
static void test_spec__every_option_reaches_a_field(void **state)
{
    (void)state;
    for (const struct draft_option *o = draft_spec_options; o->name; o++) {
        char flag[80];
        struct draft_error err;
        static const char *const values[] = {
            [DRAFT_VALUE_STRING] = "text",      [DRAFT_VALUE_PATH] = "prompts.txt",  [DRAFT_VALUE_INT] = "3",
            [DRAFT_VALUE_UINT] = "3",           [DRAFT_VALUE_DOUBLE] = "0.5",        [DRAFT_VALUE_SIZE] = "8x8",
            [DRAFT_VALUE_REWARD] = "clip:clip", [DRAFT_VALUE_LORA] = "0.5*other.txt"};
        if (!*o->name)
            continue;
        snprintf(flag, sizeof flag, "--%s", o->name);
        char *words[] = {flag, (char *)(uintptr_t)values[o->value]};
        Draftd__V1__JobSpec *spec = draft_spec_new();
        assert_true(from_words(spec, words, o->value == DRAFT_VALUE_NONE ? 1 : 2, &err));
        assert_true(protobuf_c_message_get_packed_size(&spec->base) > 0);
        draft_free_message(spec);
    }
}

static void test_spec__steps_and_epochs_exclude_each_other(void **state)
{
    struct draft_error err;
    (void)state;
    Draftd__V1__JobSpec *spec = draft_spec_new();
    assert_false(from_words(spec, WORDS("--steps", "3", "--epochs", "2"), &err));
    assert_non_null(strstr(err.message, "--steps and --epochs"));
    draft_free_message(spec);
}

static void test_spec__a_job_file_is_read_and_flags_win_over_it(void **state)
{
    static const char text[] = "{\"model\": \"sd\", \"dataset\": \"prompts.txt\", \"kl_coeff\": 0.25, \"seed\": "
                               "\"18446744073709551615\", \"length\": {\"epochs\": 2, \"global_batch\": 8},"
                               "\"rewards\": [{\"kind\": \"clip\", \"path\": \"clip\", \"weight\": 0}, {\"kind\": "
                               "\"jpeg\"}], \"sampling\": {\"guidance\": 5, \"steps\": 10}}";
    struct draft_error err = {0};
    char expected[256];
    (void)state;
    FILE *file = fopen("job.json", "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    Draftd__V1__JobSpec *spec = draft_spec_new();
    assert_true(chdir("/") == 0); /* relative paths are relative to the file */
    snprintf(expected, sizeof expected, "%s/job.json", folder);
    assert_true(draft_spec_from_file(spec, expected, &err));
    assert_true(chdir(folder) == 0);
    snprintf(expected, sizeof expected, "%s/sd", folder);
    assert_string_equal(spec->model, expected);
    assert_true(spec->kl_coeff == 0.25);
    assert_true(spec->seed == UINT64_MAX);
    assert_int_equal(spec->n_rewards, 2);
    assert_int_equal(spec->rewards[0]->weight_opt_case, DRAFTD__V1__REWARD__WEIGHT_OPT_WEIGHT);
    assert_int_equal(spec->rewards[1]->weight_opt_case, 0);

    assert_true(
        from_words(spec, WORDS("--steps", "7", "--reward", "jpeg", "--kl-coeff", "1", "-d", "other.txt"), &err));
    assert_int_equal(spec->length->steps, 7);
    assert_true(spec->length->epochs == 0);
    assert_int_equal(spec->length->global_batch, 8);
    assert_int_equal(spec->n_rewards, 1);
    assert_string_equal(spec->rewards[0]->kind, "jpeg");
    assert_true(spec->kl_coeff == 1);
    assert_true(spec->sampling->guidance == 5);
    snprintf(expected, sizeof expected, "%s/other.txt", folder);
    assert_string_equal(spec->dataset, expected);
    draft_free_message(spec);
}

static bool read_text(const char *text, struct draft_error *err)
{
    *err = (struct draft_error){0};
    Draftd__V1__JobSpec *spec = draft_spec_new();
    bool good = draft_spec_from_text(spec, text, strlen(text), "job.json", folder, err);
    draft_free_message(spec);
    return good;
}

static void test_spec__bad_job_files_are_refused_with_the_place_named(void **state)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"{\"modle\": \"sd\"}", "unknown key \"spec.modle\"; did you mean \"model\"?"},
        {"{\"sampling\": {\"step\": 3}}", "unknown key \"spec.sampling.step\"; did you mean \"steps\"?"},
        {"{\"rewards\": [{\"kind\": \"clip\", \"wieght\": 3}]}", "did you mean \"weight\"?"},
        {"{\"kl_coeff\": \"much\"}", "spec.kl_coeff: expected a number, found a string"},
        {"{\"length\": {\"steps\": 1.5}}", "spec.length.steps: expected a whole number, found a number"},
        {"{\"lora\": {\"rank\": 99999999999}}", "spec.lora.rank: 99999999999 is outside"},
        {"{\"recompute\": 1}", "spec.recompute: expected true or false, found a number"},
        {"{\"rewards\": {}}", "spec.rewards: expected a list, found an object"},
        {"{\"rewards\": [3]}", "spec.rewards[0]: expected an object, found a number"},
        {"{\"evaluation\": {\"prompts\": [\"a\", null]}}", "spec.evaluation.prompts[1]: expected a string, found null"},
        {"{\"seed\": -1}", "spec.seed: expected a whole number, 0 or more"},
        {"{\"display_name\": \"a\\u0000b\"}", "NUL"},
        {"{\"threads\": 1, \"threads\": 2}", "line 1"},
        {"[1]", "expected an object"},
        {"{", "line 1"},
        {"", "line"},
    };
    struct draft_error err;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(read_text(bad[i].text, &err));
        assert_non_null(strstr(err.message, "job.json: "));
        if (!strstr(err.message, bad[i].says))
            fail_msg("%s: %s", bad[i].text, err.message);
    }
    char deep[100001];
    memset(deep, '[', 100000);
    deep[100000] = '\0';
    assert_false(read_text(deep, &err));
    assert_non_null(strstr(err.message, "maximum parsing depth reached"));
}

static void test_spec__a_file_that_is_not_there_is_named(void **state)
{
    struct draft_error err;
    (void)state;
    Draftd__V1__JobSpec *spec = draft_spec_new();
    assert_false(from_words(spec, WORDS("--model", "nowhere"), &err));
    assert_int_equal(err.code, DRAFT_NOT_FOUND);
    assert_string_equal(err.field, "spec.model");
    draft_free_message(spec);
}

static void test_spec__a_tilde_that_the_shell_left_is_the_home_folder(void **state)
{
    struct draft_error err;
    char expected[256];
    (void)state;
    Draftd__V1__JobSpec *spec = draft_spec_new();
    assert_int_equal(setenv("HOME", folder, 1), 0);
    assert_true(
        from_words(spec, WORDS("-m", "~/sd", "-d", "prompts.txt", "--reward", "clip:~/sd", "--steps", "3"), &err));
    snprintf(expected, sizeof expected, "%s/sd", folder);
    assert_string_equal(spec->model, expected);
    assert_string_equal(spec->rewards[0]->path, expected);
    draft_free_message(spec);
}

static void test_spec__base_loras_have_weights_and_absolute_paths(void **state)
{
    struct draft_error err;
    char expected[256];
    (void)state;
    Draftd__V1__JobSpec *spec = draft_spec_new();
    assert_true(from_words(spec,
                           WORDS("-m", "sd", "-d", "prompts.txt", "--reward", "jpeg", "--steps", "3", "--base-lora",
                                 "-0.5*other.txt", "--base-lora", "prompts.txt", "--continue-from", "other.txt"),
                           &err));
    assert_int_equal(spec->n_base_loras, 2);
    snprintf(expected, sizeof expected, "%s/other.txt", folder);
    assert_string_equal(spec->base_loras[0]->path, expected);
    assert_string_equal(spec->lora->continue_from, expected);
    assert_true(spec->base_loras[0]->weight == -0.5);
    assert_int_equal(spec->base_loras[1]->weight_opt_case, 0);
    assert_false(from_words(spec, WORDS("--base-lora", "2*"), &err));
    assert_string_equal(err.field, "spec.base_loras");
    assert_false(from_words(spec, WORDS("--base-lora", "2*missing.safetensors"), &err));
    assert_string_equal(err.field, "spec.base_loras[0].path");
    draft_free_message(spec);
}

static void test_spec__rewards_may_have_commas_in_their_paths(void **state)
{
    struct draft_error err = {0};
    (void)state;
    Draftd__V1__Reward *r = (Draftd__V1__Reward *)draft_message_new(&draftd__v1__reward__descriptor);
    assert_true(draft_spec_parse_reward("clip:a,b/c,scale=100", r, &err));
    assert_string_equal(r->path, "a,b/c");
    assert_string_equal(r->options, "scale=100");
    assert_int_equal(r->weight_opt_case, 0);
    assert_true(draft_spec_parse_reward("jpeg:quality=50,mode=compressibility", r, &err));
    assert_string_equal(r->options, "quality=50,mode=compressibility");
    static const char *const bad[] = {"", ":x", "2*", "x*clip:y"};
    for (int i = 0; i < 3; i++)
        assert_false(draft_spec_parse_reward(bad[i], r, &err));
    draft_free_message(r);
}

static void test_spec__fields_lead_back_to_flags(void **state)
{
    (void)state;
    assert_string_equal(draft_spec_flag_of("spec.length.steps"), "--steps");
    assert_string_equal(draft_spec_flag_of("spec.sampling.steps"), "--sampling-steps");
    assert_string_equal(draft_spec_flag_of("spec.sampling.height"), "--size");
    assert_string_equal(draft_spec_flag_of("spec.rewards[1].path"), "--reward");
    assert_null(draft_spec_flag_of("spec.nothing"));
    assert_null(draft_spec_flag_of("job_id"));
    char message[64] = "spec.model: nothing is there";
    draft_spec_name_flag("spec.model", message, sizeof message);
    assert_string_equal(message, "spec.model: nothing is there (--model)");
    draft_spec_name_flag("spec.model", message, sizeof message); /* once */
    assert_string_equal(message, "spec.model: nothing is there (--model)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spec__flags_set_the_fields_they_name),
        cmocka_unit_test(test_spec__every_option_reaches_a_field),
        cmocka_unit_test(test_spec__steps_and_epochs_exclude_each_other),
        cmocka_unit_test(test_spec__a_job_file_is_read_and_flags_win_over_it),
        cmocka_unit_test(test_spec__bad_job_files_are_refused_with_the_place_named),
        cmocka_unit_test(test_spec__a_file_that_is_not_there_is_named),
        cmocka_unit_test(test_spec__rewards_may_have_commas_in_their_paths),
        cmocka_unit_test(test_spec__a_tilde_that_the_shell_left_is_the_home_folder),
        cmocka_unit_test(test_spec__base_loras_have_weights_and_absolute_paths),
        cmocka_unit_test(test_spec__fields_lead_back_to_flags),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
