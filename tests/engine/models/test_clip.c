#include "model_case.h"

#include "models/clip.h"
#include "models/clip_parts.h"

static const char CLIP[] = FIXTURES "/era15/clip", TEXT[] = FIXTURES "/era15/text_encoder";
static const char NEW_CLIP[] = FIXTURES "/golden/clip_h";

static bool open_clip(const char *folder, struct draft_arena *arena, struct draft_error *err)
{
    return draft_clip_open(folder, arena, err) != NULL;
}

static bool open_text(const char *folder, struct draft_arena *arena, struct draft_error *err)
{
    return draft_clip_text_open(folder, arena, err) != NULL;
}

static const struct model_case WHOLE = {.source = CLIP, .stem = "model", .open = open_clip};
static const struct model_case NEW_WHOLE = {.source = NEW_CLIP, .stem = "model", .open = open_clip};
static const struct model_case ENCODER = {.source = TEXT, .stem = "model", .open = open_text};

static void read_whole(const char *folder, struct clip_config *c)
{
    char path[512];
    struct draft_error err = {0};
    snprintf(path, sizeof path, "%s/config.json", folder);
    if (!draft_clip_config_read(c, path, &err))
        fail_msg("%s", err.message);
}

static void test_clip__text_config_dict_and_the_defaults_override_text_config(void **state)
{
    (void)state;
    struct clip_config c;
    read_whole(CLIP, &c);
    assert_int_equal(c.text.tower.layers, 2);   /* text_config says 5 */
    assert_int_equal(c.text.end_token, 49407);  /* text_config says 2 */
    assert_int_equal(c.vision.tower.layers, 2); /* vision_config_dict is null */
    assert_int_equal(c.projection, 16);
}

static void test_clip__absent_keys_take_the_class_defaults(void **state)
{
    (void)state;
    char folder[] = "/tmp/draft-model-XXXXXX", path[512];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/config.json", folder);
    FILE *file = fopen(path, "w");
    assert_true(fputs("{\"text_config\": {}, \"vision_config\": {}}", file) >= 0 && fclose(file) == 0);
    struct clip_config c;
    read_whole(folder, &c);
    unlink(path);
    rmdir(folder);
    assert_int_equal(c.projection, 512);
    assert_true(c.text.tower.width == 512 && c.text.tower.wide == 2048);
    assert_true(c.text.tower.layers == 12 && c.text.tower.heads == 8);
    assert_true(c.text.vocabulary == 49408 && c.text.positions == 77 && c.text.end_token == 49407);
    assert_int_equal(c.text.tower.activation, DRAFT_QUICK_GELU);
    assert_true(c.text.tower.eps == 1e-5f);
    assert_true(c.vision.tower.width == 768 && c.vision.tower.wide == 3072);
    assert_true(c.vision.tower.layers == 12 && c.vision.tower.heads == 12);
    assert_true(c.vision.size == 224 && c.vision.patch == 32 && c.vision.channels == 3);
}

static void test_clip__refuses_what_it_does_not_implement_naming_key_and_values(void **state)
{
    (void)state;
    static const struct {
        const struct model_case *of;
        const char *key, *value, *words[MODEL_WORDS];
    } CASES[] = {
        {&NEW_WHOLE,
         "text_config.hidden_act",
         "\"gelu_new\"",
         {"config.json", "text_config", "gelu_new", "quick_gelu"}},
        {&NEW_WHOLE, "vision_config.hidden_act", "\"relu\"", {"vision_config", "relu"}},
        {&NEW_WHOLE, "text_config.attention_dropout", "0.1", {"text_config", "attention_dropout", "0.1", "0.0"}},
        {&NEW_WHOLE, "text_config.num_attention_heads", "5", {"text_config", "hidden_size", "num_attention_heads (5)"}},
        {&NEW_WHOLE, "text_config.eos_token_id", "[199, 198]", {"eos_token_id", "integer"}},
        {&NEW_WHOLE, "vision_config.image_size", "[56, 56]", {"image_size", "integer"}},
        {&NEW_WHOLE, "vision_config.patch_size", "57", {"patch_size", "57", "image_size (56)"}},
        {&NEW_WHOLE, "text_config.pruned_heads", "{\"0\": [1]}", {"pruned_heads"}},
        {&NEW_WHOLE, "text_config.a_later_invention", "1", {"text_config", "a_later_invention", "not understood"}},
        {&NEW_WHOLE, "a_later_invention", "1", {"config.json", "a_later_invention", "not understood"}},
        {&NEW_WHOLE, "vision_config", NULL, {"vision_config"}},
        {&NEW_WHOLE, "vision_config", "7", {"vision_config", "object"}},
        {&NEW_WHOLE, "model_type", "\"siglip\"", {"model_type", "siglip", "clip"}},
        {&ENCODER, "hidden_act", "\"swish\"", {"config.json", "hidden_act", "swish"}},
        {&ENCODER, "dropout", "0.5", {"dropout", "0.5"}},
        {&ENCODER, "model_type", "\"t5\"", {"model_type", "t5", "clip_text_model"}},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        model_refuses_config(CASES[i].of, CASES[i].key, CASES[i].value, CASES[i].words);
}

static void test_clip__refuses_weights_that_do_not_fit(void **state)
{
    (void)state;
    static const char KEY[] = "text_model.final_layer_norm.weight";
    model_refuses_weights(&ENCODER, MODEL_DROP, KEY, WORDS("model.safetensors", KEY, "[24]"));
    model_refuses_weights(&ENCODER, MODEL_RESHAPE, KEY, WORDS(KEY, "[1, 24]", "[24]"));
    model_refuses_weights(&ENCODER, MODEL_NAN, KEY, WORDS(KEY, "NaN"));
    model_refuses_weights(&ENCODER, MODEL_ADD, "text_projection.weight", WORDS("text_projection.weight", "not part"));
    model_refuses_weights(&WHOLE, MODEL_DROP, "vision_model.pre_layrnorm.weight", WORDS("vision_model.pre_layrnorm"));
    model_refuses_weights(&WHOLE, MODEL_DROP, "logit_scale", WORDS("logit_scale"));
    model_refuses_config(&NEW_WHOLE, "projection_dim", "32", WORDS("text_projection.weight", "[24, 32]", "[32, 32]"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clip__text_config_dict_and_the_defaults_override_text_config),
        cmocka_unit_test(test_clip__absent_keys_take_the_class_defaults),
        cmocka_unit_test(test_clip__refuses_what_it_does_not_implement_naming_key_and_values),
        cmocka_unit_test(test_clip__refuses_weights_that_do_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
