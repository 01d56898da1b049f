#include "reward_case.h"

#include <unistd.h>

#include "tensor/safetensors.h"

static const char DEMO_CLIP[] = "clip:" DEMO "/emoji-clip", DEMO_PICKSCORE[] = "pickscore:" DEMO "/emoji-clip";

static float *load(const struct draft_safetensors *file, const char *key, int64_t *dim)
{
    struct draft_error err = {0};
    const struct draft_safetensors_entry *entry = draft_safetensors_find(file, key);
    assert_non_null(entry);
    float *values = malloc(entry->bytes);
    if (!draft_safetensors_to_f32(entry, values, &err))
        fail_msg("%s", err.message);
    if (dim != NULL)
        memcpy(dim, entry->dim, (size_t)entry->rank * sizeof *dim);
    return values;
}

static struct draft_safetensors *open_file(const char *path)
{
    struct draft_error err = {0};
    struct draft_safetensors *file = draft_safetensors_open(path, &err);
    if (file == NULL)
        fail_msg("%s", err.message);
    return file;
}

static double relative_error(const float *found, const float *expected, int64_t n)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += pow((double)found[i] - (double)expected[i], 2);
        size += pow((double)expected[i], 2);
    }
    return sqrt(difference / size);
}

/* Pictures wider, taller, as large as and half larger than the model's: CLIPImageProcessor's resize and crop. */
static void check_transformers(const char *spec)
{
    static const char *const names[] = {"wide", "tall", "same", "half"}, *const prompts[] = {
                                                                             "a lion",
                                                                             "A small Owl on a BLUE background!"};
    struct draft_safetensors *file = open_file(FIXTURES "/clip_reward.safetensors");
    struct reward_case c;
    reward_open(&c, spec);
    for (int i = 0; i < 4; i++) {
        char key[32];
        int64_t dim[4];
        snprintf(key, sizeof key, "%s/image", names[i]);
        float *image = load(file, key, dim);
        snprintf(key, sizeof key, "%s/reward", names[i]);
        float *reward = load(file, key, NULL);
        snprintf(key, sizeof key, "%s/d_image", names[i]);
        float *gradient = load(file, key, NULL);
        int64_t n = dim[0] * dim[1] * dim[2] * dim[3];
        float *found = calloc((size_t)n, sizeof *found), score[2], seed[] = {1, -2};
        reward_score(&c, image, dim[0], dim[1], dim[2], prompts, score, seed, found);
        if (!(relative_error(score, reward, 2) <= 2e-5) || !(relative_error(found, gradient, n) <= 1e-4))
            fail_msg("%s: reward %g and %g, expected %g and %g; gradient's relative error %g", names[i],
                     (double)score[0], (double)score[1], (double)reward[0], (double)reward[1],
                     relative_error(found, gradient, n));
        free(image);
        free(reward);
        free(gradient);
        free(found);
    }
    reward_close(&c);
    draft_safetensors_close(file);
}

static void test_clip_reward__equals_transformers_in_value_and_gradient(void **state)
{
    (void)state;
    check_transformers(DEMO_CLIP);
}

static void test_clip_reward__pickscore_is_the_same_formula(void **state)
{
    (void)state;
    check_transformers(DEMO_PICKSCORE);
}

/* The recorded run of DRaFT+: its first pictures, their rewards. */
static void test_clip_reward__gives_the_rewards_of_the_recorded_run(void **state)
{
    (void)state;
    static const char *const prompts[] = {"a lion", "a cat on a blue background", "a small pineapple",
                                          "an owl and a penguin"};
    enum { SIDE = 64, PIXELS = SIDE * SIDE };
    struct draft_safetensors *file = open_file(FIXTURES "/golden/draft_plus/k1.safetensors");
    struct reward_case c;
    reward_open(&c, DEMO_CLIP);
    float *decoded = load(file, "step0/decoded", NULL), *expected = load(file, "step0/rewards", NULL);
    float *pixels = malloc(4 * PIXELS * 3 * sizeof *pixels), score[4];
    for (int n = 0; n < 4; n++)
        for (int k = 0; k < PIXELS; k++)
            for (int channel = 0; channel < 3; channel++) {
                float value = decoded[(n * 3 + channel) * PIXELS + k]; /* NCHW, [-1, 1] */
                pixels[(n * PIXELS + k) * 3 + channel] = fminf(fmaxf((value + 1) / 2, 0), 1);
            }
    reward_score(&c, pixels, 4, SIDE, SIDE, prompts, score, NULL, NULL);
    assert_true(relative_error(score, expected, 4) <= 2e-5);
    free(decoded);
    free(pixels);
    free(expected);
    reward_close(&c);
    draft_safetensors_close(file);
}

static void test_clip_reward__of_a_prompt_never_depends_on_the_others(void **state)
{
    (void)state;
    enum { N = 64 * 64 * 3 };
    float *pixels = malloc(3 * N * sizeof *pixels), together[3], alone, again[3];
    for (int i = 0; i < 3 * N; i++)
        pixels[i] = 0.5f + 0.4f * sinf(0.37f * (float)i);
    static const char *const prompts[] = {"a cat", "a lion and a very long tail of words", "a cat"};
    struct reward_case c, fresh;
    reward_open(&c, DEMO_CLIP);
    reward_open(&fresh, DEMO_CLIP);
    reward_score(&c, pixels, 3, 64, 64, prompts, together, NULL, NULL);
    reward_score(&c, pixels, 3, 64, 64, prompts, again, NULL, NULL);
    assert_memory_equal(together, again, sizeof again); /* bit for bit, from memory */
    reward_score(&fresh, pixels + N, 1, 64, 64, prompts + 1, &alone, NULL, NULL);
    reward_score(&fresh, pixels, 3, 64, 64, prompts, again, NULL, NULL);
    assert_memory_equal(together, again, sizeof again);
    free(pixels);
    reward_close(&fresh);
    reward_close(&c);
}

static void test_clip_reward__gives_the_pictures_prompt_its_memory_back(void **state)
{
    (void)state;
    enum { N = 64 * 64 * 3 };
    float *pixels = calloc(N, sizeof *pixels), score;
    struct reward_case c;
    reward_open(&c, DEMO_CLIP);
    size_t first = 0;
    for (int i = 0; i < 3000; i += 300) { /* more prompts than are remembered, were each new */
        char prompt[32];
        const char *prompts[] = {prompt};
        snprintf(prompt, sizeof prompt, "prompt number %d", i);
        reward_score(&c, pixels, 1, 64, 64, prompts, &score, NULL, NULL);
        size_t high = draft_arena_high_water(c.step);
        assert_true(first == 0 || high == first);
        first = high;
        assert_int_equal(draft_arena_live(c.step), 0);
    }
    free(pixels);
    reward_close(&c);
}

static void test_clip_reward__refuses_a_prompt_that_is_not_utf8(void **state)
{
    (void)state;
    float *pixels = calloc(64 * 64 * 3, sizeof *pixels);
    struct draft_tensor images = {.dtype = DRAFT_F32, .rank = 4, .dim = {1, 64, 64, 3}, .data = pixels};
    struct reward_case c;
    reward_open(&c, DEMO_CLIP);
    assert_null(draft_reward_score(c.reward, &c.g, &images, (const char *const[]){"\xff"}));
    assert_non_null(strstr(c.g.error.message, "not UTF-8"));
    assert_true(c.g.recording);
    free(pixels);
    reward_close(&c);
}

static void link_demo(const char *folder, const char *name)
{
    char from[300], to[300];
    snprintf(from, sizeof from, "%s/emoji-clip/%s", DEMO, name);
    snprintf(to, sizeof to, "%s/%s", folder, name);
    assert_int_equal(symlink(from, to), 0);
}

static void test_clip_reward__refuses_a_preprocessing_that_is_another(void **state)
{
    (void)state;
    static const struct {
        const char *json, *words; /* NULL: taken */
    } rows[] = {
        {"{}", NULL}, /* absent keys keep the model's size */
        {"{\"size\": 64, \"crop_size\": 64, \"resample\": 3, \"do_resize\": true}", NULL},
        {"{\"size\": {\"shortest_edge\": 64}, \"crop_size\": {\"height\": 64, \"width\": 64}}", NULL},
        {"{\"size\": 72, \"crop_size\": 64}", NULL},
        {"{\"size\": 224, \"crop_size\": 224}", "cropped to 224, expected a crop of the model's image_size (64)"},
        {"{\"size\": 60}", "resized to 60"},
        {"{\"size\": {\"height\": 64, \"width\": 64}}", "\"height\" (64) is not understood"},
        {"{\"crop_size\": {\"height\": 64, \"width\": 65}}", "\"width\" is 65"},
        {"{\"resample\": 2}", "\"resample\" is 2, this engine implements only 3"},
        {"{\"do_center_crop\": false}", "\"do_center_crop\" is false"},
        {"{\"rescale_factor\": 1.0}", "\"rescale_factor\" is 1, expected 1/255"},
        {"{\"image_mean\": [0.5]}", "\"image_mean\" holds 1 numbers, expected 3"},
        {"{\"image_std\": [0.5, 0, 0.5]}", "\"image_std\" holds 0, expected numbers above 0"},
        {"{\"do_pad\": true}", "\"do_pad\" (true) is not understood"},
    };
    char folder[] = "/tmp/draft-clip-XXXXXX", path[100], spec_text[100];
    assert_non_null(mkdtemp(folder));
    static const char *const files[] = {"config.json", "model.safetensors", "vocab.json", "merges.txt",
                                        "tokenizer_config.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        link_demo(folder, files[i]);
    snprintf(path, sizeof path, "%s/preprocessor_config.json", folder);
    snprintf(spec_text, sizeof spec_text, "clip:%s", folder);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct draft_error err = {0};
        struct draft_reward_spec spec;
        struct draft_arena *arena = draft_arena_create("engine", (size_t)1 << 28, &err);
        FILE *file = fopen(path, "w");
        fputs(rows[i].json, file);
        fclose(file);
        assert_true(draft_reward_spec_parse(spec_text, &spec, &err));
        struct draft_reward *reward = draft_reward_kind_find("clip")->open(&spec, arena, &err);
        if ((rows[i].words == NULL) != (reward != NULL) ||
            (reward == NULL && strstr(err.message, rows[i].words) == NULL))
            fail_msg("row %zu: \"%s\"", i, err.message);
        if (reward != NULL)
            reward->kind->close(reward);
        draft_arena_destroy(arena);
    }
    unlink(path);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clip_reward__equals_transformers_in_value_and_gradient),
        cmocka_unit_test(test_clip_reward__pickscore_is_the_same_formula),
        cmocka_unit_test(test_clip_reward__gives_the_rewards_of_the_recorded_run),
        cmocka_unit_test(test_clip_reward__of_a_prompt_never_depends_on_the_others),
        cmocka_unit_test(test_clip_reward__gives_the_pictures_prompt_its_memory_back),
        cmocka_unit_test(test_clip_reward__refuses_a_prompt_that_is_not_utf8),
        cmocka_unit_test(test_clip_reward__refuses_a_preprocessing_that_is_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
