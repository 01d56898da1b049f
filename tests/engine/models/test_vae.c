#include "model_case.h"

#include "models/vae.h"
#include "models/vae_parts.h"

static const char VAE[] = FIXTURES "/era15/vae";

static bool open_vae(const char *folder, struct draft_arena *arena, struct draft_error *err)
{
    return draft_vae_open(folder, arena, err) != NULL;
}

static bool open_both(const char *folder, struct draft_arena *arena, struct draft_error *err)
{
    struct draft_vae *vae = draft_vae_open(folder, arena, err);
    return vae != NULL && draft_vae_open_encoder(vae, err);
}

static const struct model_case ERA = {.source = VAE, .stem = "diffusion_pytorch_model", .open = open_vae};
static const struct model_case WITH_ENCODER = {.source = VAE, .stem = "diffusion_pytorch_model", .open = open_both};
static const struct model_case BARE = {
    .source = FIXTURES "/shapes/vae_bare", .stem = "diffusion_pytorch_model", .open = open_vae};

static void test_vae__old_config_takes_the_class_default_of_the_scaling_factor(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_arena *arena = draft_arena_create("test", (size_t)1 << 28, &err);
    struct draft_vae *vae = draft_vae_open(VAE, arena, &err);
    assert_non_null(vae);
    struct draft_vae_info info = draft_vae_info(vae);
    assert_true(info.scaling_factor == 0.18215);
    assert_int_equal(info.factor, 4);
    assert_int_equal(info.latent_channels, 4);
    draft_arena_destroy(arena);
}

static void test_vae__absent_keys_take_the_class_defaults(void **state)
{
    (void)state;
    char path[] = "/tmp/draft-config-XXXXXX";
    FILE *file = fdopen(mkstemp(path), "w");
    assert_true(fputs("{}", file) >= 0 && fclose(file) == 0);
    struct vae_config c;
    struct draft_error err = {0};
    if (!draft_vae_config_read(&c, path, &err))
        fail_msg("%s", err.message);
    unlink(path);
    assert_int_equal(c.levels, 1);
    assert_int_equal(c.channels[0], 64);
    assert_int_equal(c.layers, 1);
    assert_int_equal(c.groups, 32);
    assert_int_equal(c.latent_channels, 4);
    assert_true(c.in_channels == 3 && c.out_channels == 3);
    assert_true(c.use_quant_conv && c.use_post_quant_conv && c.middle_attends);
}

static void test_vae__refuses_what_it_does_not_implement_naming_key_and_values(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value, *words[MODEL_WORDS];
    } CASES[] = {
        {"act_fn", "\"relu\"", {"config.json", "act_fn", "relu", "silu"}},
        {"shift_factor", "0.1159", {"shift_factor", "0.1159", "null"}},
        {"latents_mean", "[0.1, 0.2, 0.3, 0.4]", {"latents_mean", "null"}},
        {"scaling_factor", "0", {"scaling_factor", "above 0"}},
        {"scaling_factor", "\"0.18215\"", {"scaling_factor", "number"}},
        {"up_block_types",
         "[\"UpDecoderBlock2D\", \"AttnUpDecoderBlock2D\", \"UpDecoderBlock2D\"]",
         {"up_block_types", "AttnUpDecoderBlock2D", "UpDecoderBlock2D"}},
        {"up_block_types", NULL, {"up_block_types", "1 entries", "expected 3"}},
        {"norm_num_groups", "3", {"block_out_channels", "norm_num_groups (3)"}},
        {"_class_name", "\"AutoencoderTiny\"", {"_class_name", "AutoencoderTiny"}},
        {"patch_size", "[2, 2]", {"patch_size", "not understood"}},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        model_refuses_config(&ERA, CASES[i].key, CASES[i].value, CASES[i].words);
}

static void test_vae__refuses_weights_that_do_not_fit(void **state)
{
    (void)state;
    static const char KEY[] = "decoder.mid_block.attentions.0.query.weight";
    /* The sentence names the key as today's diffusers does: that is the one to look for. */
    model_refuses_weights(&ERA, MODEL_DROP, KEY, WORDS("decoder.mid_block.attentions.0.to_q.weight", "[16, 16]"));
    model_refuses_weights(&ERA, MODEL_RESHAPE, KEY, WORDS(KEY, "[1, 256]", "[16, 16]"));
    model_refuses_weights(&ERA, MODEL_ADD, "decoder.extra", WORDS("decoder.extra", "not part of this model"));
    model_refuses_weights(&ERA, MODEL_NAN, "post_quant_conv.weight", WORDS("post_quant_conv.weight", "NaN"));
    model_refuses_weights(&BARE, MODEL_ADD, "quant_conv.weight", WORDS("quant_conv.weight", "not part of this model"));
}

static void test_vae__encoder_is_checked_when_it_is_asked_for(void **state)
{
    (void)state;
    static const char KEY[] = "encoder.conv_in.weight";
    model_refuses_weights(&WITH_ENCODER, MODEL_DROP, KEY, WORDS(KEY, "[8, 3, 3, 3]"));
    model_refuses_weights(&WITH_ENCODER, MODEL_RESHAPE, KEY, WORDS(KEY, "[1, 216]", "[8, 3, 3, 3]"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vae__old_config_takes_the_class_default_of_the_scaling_factor),
        cmocka_unit_test(test_vae__absent_keys_take_the_class_defaults),
        cmocka_unit_test(test_vae__refuses_what_it_does_not_implement_naming_key_and_values),
        cmocka_unit_test(test_vae__refuses_weights_that_do_not_fit),
        cmocka_unit_test(test_vae__encoder_is_checked_when_it_is_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
