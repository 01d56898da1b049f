/* The merged model, opened again, draws the job's own pictures. tests/peers/check_lora.py and check_full.py open it in
 * diffusers. */
#include "single_file.h"

#include <math.h>

#include "state.h"
#include "train/merged.h"

static float *draw(struct draft_engine *engine, size_t *count)
{
    struct draft_sample_request request = {.prompt = "a lion", .seed = 5, .guidance = -1, .lora_scale = 1};
    struct draft_picture p;
    struct draft_error err = {0};
    if (!draft_engine_sample(engine, &request, &p, &err))
        fail_msg("%s", err.message);
    *count = (size_t)p.height * (size_t)p.width * 3;
    return p.rgb;
}

static double farthest(const float *a, const float *b, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)a[i] - b[i]));
    return most;
}

/* Trains, exports, opens the export as a model of its own with a fresh adapter (which changes nothing) and compares. */
static void draws_the_same(struct draft_job_config config, bool f32, double bound)
{
    struct draft_error err = {0};
    size_t n, again;
    struct draft_engine *engine = open_demo(&config, NULL);
    float *before = draw(engine, &n);
    train(engine, 2);
    const char *checkpoint = save(engine, "checkpoint"), *folder = in_folder("merged");
    float *tuned = draw(engine, &n);
    draft_engine_close(engine);
    assert_true(farthest(before, tuned, n) > 20 * bound);

    struct draft_merged_options options = {.config = &config, .checkpoint = checkpoint, .f32 = f32};
    if (!draft_export_merged_folder(folder, &options, &err))
        fail_msg("%s", err.message);
    struct draft_job_config merged = config;
    merged.model = folder;
    merged.base_lora_count = 0;
    engine = open_demo(&merged, NULL);
    float *found = draw(engine, &again);
    draft_engine_close(engine);
    assert_int_equal(n, again);
    if (farthest(found, tuned, n) > bound)
        fail_msg("the pictures differ by %g", farthest(found, tuned, n));
    free(before);
    free(tuned);
    free(found);
}

static struct draft_job_config strong_job(void)
{
    struct draft_job_config config = demo_job();
    config.learning_rate = 0.02;
    config.lora_alpha = 2;
    return config;
}

static struct draft_job_config tiny_job(const char *preset, char model[256])
{
    snprintf(model, 256, "%s", in_folder("model.safetensors"));
    write_single(preset, model, &(struct single_change){0});
    link_vocabulary(test_folder);
    struct draft_job_config config = strong_job();
    config.model = model;
    config.height = config.width = 64;
    config.sampling_steps = 2;
    snprintf(config.reward[0].kind, sizeof config.reward[0].kind, "jpeg");
    config.reward[0].path[0] = 0;
    return config;
}

static int clean(void **state)
{
    int failed = remove_folder(state);
    test_folder[0] = 0;
    return failed;
}

static void test_merged__folder_draws_the_jobs_pictures(void **state)
{
    (void)state;
    draws_the_same(strong_job(), true, 5e-4);
    /* whole: what a pipeline needs is there, and nothing half-made is left beside it */
    assert_int_equal(access(in_folder("merged/model_index.json"), F_OK), 0);
    assert_int_equal(access(in_folder("merged/tokenizer/vocab.json"), F_OK), 0);
    char command[300];
    snprintf(command, sizeof command, "test $(ls '%s' | wc -l) -eq 2", test_folder); /* checkpoint, merged */
    assert_int_equal(system(command), 0);
}

static void test_merged__sixteen_bits_are_close(void **state)
{
    (void)state;
    draws_the_same(strong_job(), false, 2e-2);
}

static void test_merged__base_loras_are_in_it_text_encoder_too(void **state)
{
    (void)state;
    static float down[1024], up[1024];
    const struct draft_safetensors *file;
    struct draft_error err = {0};
    file = draft_safetensors_open(DEMO "/emoji-sd/text_encoder/model.safetensors", &err);
    assert_non_null(file);
    const char *key = "text_model.encoder.layers.0.mlp.fc1.weight";
    const struct draft_safetensors_entry *e = draft_safetensors_find(file, key);
    if (!e)
        e = draft_safetensors_find(file, key + strlen("text_model."));
    assert_non_null(e);
    assert_true(2 * e->dim[1] <= 1024 && 2 * e->dim[0] <= 1024);
    for (int i = 0; i < 1024; i++)
        down[i] = sinf((float)i);
    for (int i = 0; i < 1024; i++)
        up[i] = 0.3f * cosf((float)i);
    const struct draft_safetensors_item items[] = {
        {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", DRAFT_F32, 2, {2, e->dim[1]}, down},
        {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", DRAFT_F32, 2, {e->dim[0], 2}, up},
    };
    assert_true(draft_safetensors_write(in_folder("te.safetensors"), items, 2, NULL, &err));
    draft_safetensors_close((struct draft_safetensors *)(uintptr_t)file);
    struct draft_job_config config = strong_job();
    char path[256];
    snprintf(path, sizeof path, "%s", in_folder("te.safetensors"));
    config.base_lora[0].path = path;
    config.base_lora[0].weight = 0.7;
    config.base_lora_count = 1;
    draws_the_same(config, true, 5e-4);
}

static void test_merged__of_a_single_file(void **state)
{
    (void)state;
    char model[256];
    struct draft_job_config config = tiny_job("tiny-sd1", model);
    config.learning_rate = 0.05;
    draws_the_same(config, true, 5e-4);
}

/* --- All weights trained, one file -------------------------------------------------------------------------------- */

typedef bool (*export_model)(const char *path, const struct draft_merged_options *options, struct draft_error *err);

/* Trains every weight, exports, and compares the export's pictures with those of the checkpoint: to the bit, since it
 * is the same numbers in the same kernels. The average's alike. */
static void draws_the_very_same(struct draft_job_config config, export_model export, const char *name)
{
    struct draft_error err = {0};
    size_t n, again;
    config.train = DRAFT_TRAIN_FULL;
    config.lora_rank = 0;
    config.lora_alpha = 0;
    config.learning_rate = 1e-3;
    config.ema_decay = 0.5;
    struct draft_engine *engine = open_demo(&config, NULL);
    train(engine, 2);
    const char *checkpoint = save(engine, "checkpoint");
    draft_engine_close(engine);
    config.sample_only = true;
    for (int ema = 0; ema < 2; ema++) {
        engine = open_demo(&config, NULL);
        if (!draft_engine_restore(engine, checkpoint, &err))
            fail_msg("%s", err.message);
        if (ema)
            assert_true(draft_ema_swap(engine->ema, engine->backend, NULL));
        float *trained = draw(engine, &n);
        draft_engine_close(engine);

        char path[256];
        snprintf(path, sizeof path, "%s", in_folder(name));
        path[strlen(path) - 1] += (char)ema;
        struct draft_merged_options options = {.config = &config, .checkpoint = checkpoint, .f32 = true, .ema = ema};
        if (!export(path, &options, &err))
            fail_msg("%s", err.message);
        struct draft_job_config merged = config;
        merged.model = path;
        merged.base_lora_count = 0;
        merged.ema_decay = 0;
        engine = open_demo(&merged, NULL);
        float *found = draw(engine, &again);
        draft_engine_close(engine);
        assert_int_equal(n, again);
        if (memcmp(found, trained, n * sizeof *found) != 0)
            fail_msg("%s: the pictures differ by %g", path, farthest(found, trained, n));
        free(trained);
        free(found);
    }
}

static void test_merged__a_full_job_as_a_folder(void **state)
{
    (void)state;
    struct draft_job_config config = strong_job();
    draws_the_very_same(config, draft_export_merged_folder, "merged0");
}

static void test_merged__a_full_job_as_one_file(void **state)
{
    (void)state;
    char model[256];
    draws_the_very_same(tiny_job("tiny-sd1", model), draft_export_merged_single, "merged.safetensors0");
}

static void test_merged__a_full_job_as_one_file_with_open_clips_names(void **state)
{
    (void)state;
    char model[256];
    draws_the_very_same(tiny_job("tiny-sd2", model), draft_export_merged_single, "merged.safetensors0");
}

/* Single file -> folder -> single file: the names and shapes of the first, but for what no inference uses. */
static void test_merged__one_file_of_a_folder_has_the_original_names(void **state)
{
    (void)state;
    char model[256], folder[256], file[256];
    struct draft_error err = {0};
    struct draft_job_config config = tiny_job("tiny-sd2", model);
    struct draft_engine *engine = open_demo(&config, NULL);
    const char *checkpoint = save(engine, "checkpoint"); /* before the first step: the base model */
    draft_engine_close(engine);
    snprintf(folder, sizeof folder, "%s", in_folder("folder"));
    snprintf(file, sizeof file, "%s", in_folder("again.safetensors"));
    struct draft_merged_options options = {.config = &config, .checkpoint = checkpoint};
    if (!draft_export_merged_folder(folder, &options, &err))
        fail_msg("%s", err.message);
    config.model = folder;
    if (!draft_export_merged_single(file, &options, &err))
        fail_msg("%s", err.message);
    struct draft_safetensors *first = draft_safetensors_open(model, &err), *again = draft_safetensors_open(file, &err);
    assert_non_null(first);
    assert_non_null(again);
    assert_true(draft_safetensors_count(again) > 100);
    for (int i = 0; i < draft_safetensors_count(again); i++) {
        const struct draft_safetensors_entry *b = draft_safetensors_at(again, i),
                                             *a = draft_safetensors_find(first, b->name);
        if (!a || a->rank != b->rank || memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim) != 0 ||
            a->bytes != b->bytes || memcmp(a->data, b->data, a->bytes) != 0)
            fail_msg("%s is not as in the first file", b->name);
    }
    for (int i = 0; i < draft_safetensors_count(first); i++) {
        const char *name = draft_safetensors_at(first, i)->name;
        if (strstr(name, "model.diffusion_model.") && !draft_safetensors_find(again, name))
            fail_msg("%s is missing", name);
    }
    draft_safetensors_close(first);
    draft_safetensors_close(again);
}

static void test_merged__what_a_single_file_cannot_say_is_refused(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_job_config config = strong_job();
    struct draft_engine *engine = open_demo(&config, NULL);
    const char *checkpoint = save(engine, "checkpoint");
    draft_engine_close(engine);
    struct draft_merged_options options = {.config = &config, .checkpoint = checkpoint};
    assert_false(draft_export_merged_single(in_folder("merged.safetensors"), &options, &err));
    assert_non_null(strstr(err.message, "vae/config.json has norm_num_groups 8"));
    err = (struct draft_error){0};
    options.ema = true;
    assert_false(draft_export_merged_folder(in_folder("merged"), &options, &err));
    assert_string_equal(err.field, "ema");
    char command[300];
    snprintf(command, sizeof command, "test $(ls '%s' | wc -l) -eq 1", test_folder); /* checkpoint */
    assert_int_equal(system(command), 0);
}

/* Who reads a single file takes Stable Diffusion's own noise levels. */
static void test_merged__a_single_file_is_refused_other_noise_levels(void **state)
{
    (void)state;
    char model[256], checkpoint[256];
    struct draft_error err = {0};
    struct draft_job_config config = tiny_job("tiny-sd1", model);
    FILE *json = fopen(in_folder("scheduler_config.json"), "w");
    fputs("{\"beta_start\": 0.00085, \"beta_end\": 0.013, \"beta_schedule\": \"scaled_linear\"}", json);
    fclose(json);
    struct draft_engine *engine = open_demo(&config, NULL);
    snprintf(checkpoint, sizeof checkpoint, "%s", save(engine, "checkpoint"));
    draft_engine_close(engine);
    struct draft_merged_options options = {.config = &config, .checkpoint = checkpoint};
    assert_false(draft_export_merged_single(in_folder("merged.safetensors"), &options, &err));
    assert_non_null(strstr(err.message, "has other noise levels than programs take for a single file"));
    assert_int_equal(access(in_folder("merged.safetensors"), F_OK), -1);
    unlink(in_folder("scheduler_config.json"));
    err = (struct draft_error){0};
    if (!draft_export_merged_single(in_folder("merged.safetensors"), &options, &err))
        fail_msg("%s", err.message);
}

static void test_merged__refusals_leave_nothing_behind(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_job_config config = strong_job();
    struct draft_engine *engine = open_demo(&config, NULL);
    const char *checkpoint = save(engine, "checkpoint");
    draft_engine_close(engine);
    struct draft_merged_options options = {.config = &config, .checkpoint = checkpoint};
    assert_false(draft_export_merged_folder(test_folder, &options, &err));
    assert_int_equal(err.code, DRAFT_ALREADY_EXISTS);
    static const float values[4] = {1, 2, 3, 4};
    const struct draft_safetensors_item items[] = {
        {"lora_unet_nowhere.lora_down.weight", DRAFT_F32, 2, {1, 4}, values},
        {"lora_unet_nowhere.lora_up.weight", DRAFT_F32, 2, {4, 1}, values},
    };
    assert_true(draft_safetensors_write(in_folder("x.safetensors"), items, 2, NULL, NULL));
    char path[256];
    snprintf(path, sizeof path, "%s", in_folder("x.safetensors"));
    config.base_lora[0].path = path;
    config.base_lora_count = 1;
    err = (struct draft_error){0};
    assert_false(draft_export_merged_folder(in_folder("merged"), &options, &err));
    assert_non_null(strstr(err.message, "changes nowhere, which the model"));
    char command[300];
    snprintf(command, sizeof command, "test $(ls '%s' | wc -l) -eq 2", test_folder); /* checkpoint, x.safetensors */
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_merged__folder_draws_the_jobs_pictures, clean),
        cmocka_unit_test_teardown(test_merged__sixteen_bits_are_close, clean),
        cmocka_unit_test_teardown(test_merged__base_loras_are_in_it_text_encoder_too, clean),
        cmocka_unit_test_teardown(test_merged__of_a_single_file, clean),
        cmocka_unit_test_teardown(test_merged__a_full_job_as_a_folder, clean),
        cmocka_unit_test_teardown(test_merged__a_full_job_as_one_file, clean),
        cmocka_unit_test_teardown(test_merged__a_full_job_as_one_file_with_open_clips_names, clean),
        cmocka_unit_test_teardown(test_merged__one_file_of_a_folder_has_the_original_names, clean),
        cmocka_unit_test_teardown(test_merged__what_a_single_file_cannot_say_is_refused, clean),
        cmocka_unit_test_teardown(test_merged__a_single_file_is_refused_other_noise_levels, clean),
        cmocka_unit_test_teardown(test_merged__refusals_leave_nothing_behind, clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
