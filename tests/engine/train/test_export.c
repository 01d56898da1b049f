/* LoRA files as other tools read them; tests/peers/check_lora.py loads them in diffusers itself. */
#include "demo_job.h"

#include <math.h>

#include "state.h"
#include "tensor/safetensors.h"

#define MODULE "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0"
#define KOHYA  "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_out_0"

struct trained {
    struct draft_engine *engine;
    char checkpoint[256];
    const struct draft_lora *lora; /* of MODULE */
};

static int setup(void **state)
{
    static struct trained t;
    struct draft_job_config config = demo_job();
    config.lora_alpha = 2; /* scale alpha / rank = 0.5 */
    config.ema_decay = 0.5;
    t.engine = open_demo(&config, NULL);
    train(t.engine, 2);
    snprintf(t.checkpoint, sizeof t.checkpoint, "%s", save(t.engine, "checkpoint"));
    for (int i = 0; i < t.engine->adapter->count; i++)
        if (strcmp(t.engine->adapter->entry[i].module, MODULE) == 0)
            t.lora = &t.engine->adapter->entry[i].lora;
    assert_non_null(t.lora);
    *state = &t;
    return 0;
}

static int teardown(void **state)
{
    draft_engine_close(((struct trained *)*state)->engine);
    return remove_folder(state);
}

static struct draft_safetensors *export(const struct trained *t, const char *name, struct draft_export_options options)
{
    struct draft_error err = {0};
    const char *path = in_folder(name);
    options.job = "job-7";
    options.reward = "clip:emoji-clip";
    options.kl_coeff = 0.25;
    if (!draft_export_lora(t->checkpoint, path, &options, &err))
        fail_msg("%s", err.message);
    struct draft_safetensors *file = draft_safetensors_open(path, &err);
    assert_non_null(file);
    return file;
}

static void assert_tensor(const struct draft_safetensors *file, const char *name, enum draft_dtype dtype,
                          const struct draft_tensor *ours, double scale)
{
    struct draft_error err = {0};
    const struct draft_safetensors_entry *e = draft_safetensors_find(file, name);
    if (!e)
        fail_msg("%s is missing", name);
    assert_int_equal(e->dtype, dtype);
    assert_int_equal(e->rank, 2);
    assert_int_equal(e->dim[0], ours->dim[0]);
    assert_int_equal(e->dim[1], ours->dim[1]);
    int64_t n = draft_tensor_count(ours);
    float *values = malloc((size_t)n * sizeof *values);
    assert_true(draft_safetensors_to_f32(e, values, &err));
    for (int64_t i = 0; i < n; i++) {
        double wanted = scale * draft_f32(ours)[i];
        assert_true(fabs(values[i] - wanted) <= (dtype == DRAFT_F16 ? 5e-4 * fabs(wanted) + 6e-8 : 1e-9));
    }
    free(values);
}

static void test_export__kohya_names_alpha_and_metadata(void **state)
{
    const struct trained *t = *state;
    struct draft_safetensors *file = export(t, "kohya", (struct draft_export_options){0});
    assert_int_equal(draft_safetensors_count(file), 3 * t->engine->adapter->count);
    assert_tensor(file, KOHYA ".lora_down.weight", DRAFT_F16, t->lora->down, 1);
    assert_tensor(file, KOHYA ".lora_up.weight", DRAFT_F16, t->lora->up, 1);
    const struct draft_safetensors_entry *alpha = draft_safetensors_find(file, KOHYA ".alpha");
    assert_non_null(alpha);
    assert_int_equal(alpha->rank, 0);
    float value;
    struct draft_error err = {0};
    assert_true(draft_safetensors_to_f32(alpha, &value, &err));
    assert_true(value == 2);
    static const char *const wanted[][2] = {
        {"ss_v2", "False"},
        {"ss_base_model_version", "sd_v1"},
        {"ss_network_module", "networks.lora"},
        {"ss_network_dim", "4"},
        {"ss_network_alpha", "2"},
        {"modelspec.architecture", "stable-diffusion-v1/lora"},
        {"draftd.job", "job-7"},
        {"draftd.reward", "clip:emoji-clip"},
        {"draftd.kl_coeff", "0.25"},
        {"draftd.step", "2"},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        const char *found = draft_safetensors_metadata(file, wanted[i][0]);
        assert_non_null(found);
        assert_string_equal(found, wanted[i][1]);
    }
    draft_safetensors_close(file);
}

static void test_export__diffusers_names_carry_the_scale_in_up(void **state)
{
    const struct trained *t = *state;
    struct draft_export_options options = {.format = DRAFT_EXPORT_DIFFUSERS, .f32 = true};
    struct draft_safetensors *file = export(t, "diffusers", options);
    assert_int_equal(draft_safetensors_count(file), 2 * t->engine->adapter->count);
    assert_tensor(file, "unet." MODULE ".lora.down.weight", DRAFT_F32, t->lora->down, 1);
    assert_tensor(file, "unet." MODULE ".lora.up.weight", DRAFT_F32, t->lora->up, 0.5);
    draft_safetensors_close(file);
}

static void test_export__the_average_in_place_of_the_last(void **state)
{
    const struct trained *t = *state;
    struct draft_export_options options = {.f32 = true, .ema = true};
    struct draft_safetensors *file = export(t, "average", options);
    for (int i = 0; i < t->engine->trained.count; i++) {
        const struct draft_tensor *last = t->engine->trained.tensor[i];
        if (last != t->lora->down && last != t->lora->up)
            continue;
        struct draft_tensor average = *last;
        average.data = t->engine->ema->average[i];
        assert_memory_not_equal(average.data, last->data, (size_t)draft_tensor_count(last) * sizeof(float));
        assert_tensor(file, last == t->lora->up ? KOHYA ".lora_up.weight" : KOHYA ".lora_down.weight", DRAFT_F32,
                      &average, 1);
    }
    draft_safetensors_close(file);
}

static void test_export__equal_checkpoints_give_equal_bytes(void **state)
{
    const struct trained *t = *state;
    draft_safetensors_close(export(t, "first", (struct draft_export_options){0}));
    draft_safetensors_close(export(t, "second", (struct draft_export_options){0}));
    assert_same_files(in_folder("first"), in_folder("second"));
}

static void test_export__refuses_what_is_no_checkpoint(void **state)
{
    (void)state;
    struct draft_export_options options = {0};
    struct draft_error err = {0};
    assert_false(draft_export_lora(in_folder("absent"), in_folder("out"), &options, &err));
    assert_int_equal(err.code, DRAFT_NOT_FOUND);
    err = (struct draft_error){0};
    assert_false(draft_export_lora(FIXTURES "/golden/lpips.safetensors", in_folder("out"), &options, &err));
    assert_int_equal(err.code, DRAFT_INVALID_ARGUMENT);
    assert_int_equal(access(in_folder("out"), F_OK), -1);
}

static void test_export__says_when_f16_is_too_small(void **state)
{
    const struct trained *t = *state;
    struct draft_export_options options = {0};
    struct draft_error err = {0};
    float *value = &draft_f32(t->lora->up)[0], before = *value;
    *value = 1e6f;
    const char *checkpoint = save(t->engine, "large");
    *value = before;
    assert_false(draft_export_lora(checkpoint, in_folder("large16"), &options, &err));
    assert_non_null(strstr(err.message, "16-bit"));
    options.f32 = true;
    err = (struct draft_error){0};
    assert_true(draft_export_lora(checkpoint, in_folder("large32"), &options, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_export__kohya_names_alpha_and_metadata),
        cmocka_unit_test(test_export__diffusers_names_carry_the_scale_in_up),
        cmocka_unit_test(test_export__the_average_in_place_of_the_last),
        cmocka_unit_test(test_export__equal_checkpoints_give_equal_bytes),
        cmocka_unit_test(test_export__refuses_what_is_no_checkpoint),
        cmocka_unit_test(test_export__says_when_f16_is_too_small),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
