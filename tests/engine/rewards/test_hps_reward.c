#include "reward_golden.h"
#include "engine/backend/cuda/fake_counts.h"

#define CASE FIXTURES "/rewards/hps/case.safetensors"

static void test_hps_reward__equals_open_clip_in_value_and_gradient(void **state)
{
    (void)state;
    golden_check_sizes("hps:" FIXTURES "/rewards/hps", CASE);
}

static void test_hps_reward__of_a_conversion_to_transformers_is_the_same(void **state)
{
    (void)state;
    golden_check_sizes("hps:" FIXTURES "/rewards/hps_converted", CASE);
}

static const char *const FILES[] = {"vocab.json",
                                    "merges.txt",
                                    "tokenizer_config.json",
                                    "open_clip_config.json",
                                    "open_clip_model.safetensors",
                                    "HPS_v2.1_compressed.safetensors",
                                    "HPS_v2.1_compressed.pt",
                                    NULL};

static void lay_out(void)
{
    golden_set_up(NULL);
    for (int i = 0; i < 3; i++)
        golden_link("hps", FILES[i], FILES[i]);
}

static void check(const char *name)
{
    struct reward_case c;
    char spec[100];
    snprintf(spec, sizeof spec, "hps:%s", golden_folder);
    reward_open(&c, spec);
    golden_check(&c, CASE, name);
    reward_close(&c);
}

static void test_hps_reward__counts_heads_as_open_clip_does_and_reads_its_activation(void **state)
{
    (void)state;
    static const char quick[] =
        "{\"model_cfg\": {\"embed_dim\": 48, \"quick_gelu\": true, \"vision_cfg\": {\"image_size\": 32, \"layers\": 2, "
        "\"width\": 64, \"head_width\": 16, \"patch_size\": 8}, \"text_cfg\": {\"heads\": 2, \"width\": 64}}}";
    lay_out();
    golden_link("hps", "open_clip_model.safetensors", "HPS_v2.1_compressed.safetensors");
    check("plain/odd"); /* no configuration: heads of 64 */
    golden_write("open_clip_config.json", quick, sizeof quick - 1);
    check("quick/odd");
    golden_remove(FILES);
}

static void test_hps_reward__refuses_what_is_no_open_clip(void **state)
{
    (void)state;
    static const struct {
        enum golden_damage damage;
        const char *tensor, *words;
    } rows[] = {
        {GOLDEN_DROP, "visual.conv1.weight",
         "no tensor visual.conv1.weight, expected one of shape [width, 3, patch, patch]"},
        {GOLDEN_DROP, "visual.proj", "no tensor visual.proj"},
        {GOLDEN_DROP, "logit_scale", "no tensor logit_scale"},
        {GOLDEN_DROP, "transformer.resblocks.1.attn.in_proj_weight",
         "resblocks.1.attn.in_proj_weight, expected one of shape [192, 64]"},
        {GOLDEN_DROP, "visual.transformer.resblocks.0.mlp.c_fc.weight",
         "no tensor visual.transformer.resblocks.0.mlp.c_fc.weight"},
        {GOLDEN_DROP, "transformer.resblocks.0.ln_1.weight", "\"layers\" is 2, the tensors' is 0"},
        {GOLDEN_RESHAPE, "visual.positional_embedding",
         "visual.positional_embedding is [1, 1, 1088], expected [1 + patches, width]"},
        {GOLDEN_RESHAPE, "text_projection", "text_projection is [1, 1, 3072], expected [64, 48]"},
        {GOLDEN_RESHAPE, "visual.transformer.resblocks.1.attn.in_proj_bias", "is [1, 1, 192], expected [192]"},
        {GOLDEN_ADD, "visual.attn_pool.query", "is not part of this model"},
        {GOLDEN_NAN, "ln_final.weight", "holds NaN"},
        {GOLDEN_KEEP, "", NULL},
    };
    lay_out();
    golden_opens("hps", "", "has no open_clip_model.safetensors or HPS_v2.1_compressed.safetensors or");
    golden_write("HPS_v2.1_compressed.pt", "PK\3\4", 4);
    golden_opens("hps", "",
                 "HPS_v2.1_compressed.pt is a pickle, which is not read because it can run code; convert it");
    golden_link("hps", "open_clip_config.json", "open_clip_config.json");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        golden_damage("hps", "open_clip_model.safetensors", rows[i].damage, rows[i].tensor);
        golden_opens("hps", "", rows[i].words);
    }
    golden_opens("hps", "x=1", "takes no options");
    unlink(golden_path("vocab.json"));
    golden_opens("hps", "", "vocab.json");
    golden_remove(FILES);
}

static void test_hps_reward__refuses_a_configuration_that_is_not_the_weights(void **state)
{
    (void)state;
#define TEXT "\"text_cfg\": {\"heads\": 2}"
    static const struct {
        const char *json, *words;
    } rows[] = {
        {"{}", "open_clip_config.json: no \"model_cfg\""},
        {"[]", "does not hold a JSON object"},
        {"{\"model_cfg\": {\"vision_cfg\": {}}}", "no \"vision_cfg\" and \"text_cfg\""},
        {"{\"model_cfg\": {\"vision_cfg\": {\"width\": 128}, " TEXT "}}", "\"width\" is 128, the tensors' is 64"},
        {"{\"model_cfg\": {\"vision_cfg\": {\"image_size\": 224}, " TEXT "}}",
         "\"image_size\" is 224, the tensors' is 32"},
        {"{\"model_cfg\": {\"vision_cfg\": {\"head_width\": 24}, " TEXT "}}", "image tower's width 64 does not divide"},
        {"{\"model_cfg\": {\"vision_cfg\": {\"head_width\": 0}, " TEXT "}}", "\"head_width\" is 0"},
        {"{\"model_cfg\": {\"vision_cfg\": {}, \"text_cfg\": {\"heads\": 5}}}",
         "text tower's width 64 does not divide"},
        {"{\"model_cfg\": {\"vision_cfg\": {\"attentional_pool\": true}, " TEXT "}}", "\"attentional_pool\""},
        {"{\"model_cfg\": {\"vision_cfg\": {\"timm_model_name\": \"x\"}, " TEXT "}}", "\"timm_model_name\""},
        {"{\"model_cfg\": {\"embed_dim\": 12, \"vision_cfg\": {}, " TEXT "}}",
         "\"embed_dim\" is 12, the tensors' is 48"},
        {"{\"model_cfg\": {\"vision_cfg\": {}, " TEXT "}, \"preprocess_cfg\": {\"mean\": [0.5]}}", NULL},
    };
    lay_out();
    golden_link("hps", "open_clip_model.safetensors", "open_clip_model.safetensors");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        golden_write("open_clip_config.json", rows[i].json, strlen(rows[i].json));
        golden_opens("hps", "", rows[i].words);
    }
    golden_remove(FILES);
}

/* What is sent for one prompt makes room for the next. */
static void test_hps_reward__fresh_prompts_allocate_nothing_on_a_device(void **state)
{
    (void)state;
    if (getenv("TEST_DEVICE") == NULL)
        skip();
    static const char *const prompts[] = {"a", "a cat", "two cats on a sofa", "a dog runs", "the sea"};
    struct reward_case c;
    reward_open(&c, "hps:" FIXTURES "/rewards/hps");
    int64_t allocations = 0;
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
        assert_non_null(c.reward->kind->read(c.reward, &c.g, &prompts[i], 1));
        draft_graph_reset(&c.g, NULL);
        if (i == 0)
            allocations = fake_counts()->allocations;
        assert_int_equal(fake_counts()->allocations, allocations);
    }
    reward_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hps_reward__equals_open_clip_in_value_and_gradient),
        cmocka_unit_test(test_hps_reward__of_a_conversion_to_transformers_is_the_same),
        cmocka_unit_test(test_hps_reward__counts_heads_as_open_clip_does_and_reads_its_activation),
        cmocka_unit_test(test_hps_reward__refuses_what_is_no_open_clip),
        cmocka_unit_test(test_hps_reward__refuses_a_configuration_that_is_not_the_weights),
        cmocka_unit_test(test_hps_reward__fresh_prompts_allocate_nothing_on_a_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
