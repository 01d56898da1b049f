#include "reward_golden.h"

static void test_imagereward_reward__equals_pytorch_in_value_and_gradient(void **state)
{
    (void)state;
    golden_check_sizes("imagereward:" FIXTURES "/rewards/imagereward",
                       FIXTURES "/rewards/imagereward/case.safetensors");
}

/* Prompts of other lengths beside it, and the number of pictures, change nothing. */
static void test_imagereward_reward__of_a_picture_is_its_own(void **state)
{
    (void)state;
    enum { N = 32 * 32 * 3 };
    static const char *const prompts[] = {"a cat",
                                          "the lion and a very long tail of words " /* cut at 35 tokens */
                                          "that goes on and on and on and on and on and on and on",
                                          "", "a cat"};
    float *pixels = malloc(4 * N * sizeof *pixels), together[4], alone;
    for (int i = 0; i < 4 * N; i++)
        pixels[i] = 0.5f + 0.4f * sinf(0.37f * (float)i);
    memcpy(pixels + 3 * N, pixels, N * sizeof *pixels);
    struct reward_case c;
    reward_open(&c, "imagereward:" FIXTURES "/rewards/imagereward");
    reward_score(&c, pixels, 4, 32, 32, prompts, together, NULL, NULL);
    assert_true(fabs((double)(together[0] - together[3])) <= 1e-6);
    for (int i = 0; i < 3; i++) {
        reward_score(&c, pixels + i * N, 1, 32, 32, prompts + i, &alone, NULL, NULL);
        assert_true(fabs((double)(together[i] - alone)) <= 1e-5);
    }
    assert_true(fabs((double)(together[0] - together[1])) > 1e-3);
    free(pixels);
    reward_close(&c);
}

static void test_imagereward_reward__refuses_a_prompt_that_is_not_utf8(void **state)
{
    (void)state;
    float *pixels = calloc(32 * 32 * 3, sizeof *pixels);
    struct draft_tensor images = {.dtype = DRAFT_F32, .rank = 4, .dim = {1, 32, 32, 3}, .data = pixels};
    struct reward_case c;
    reward_open(&c, "imagereward:" FIXTURES "/rewards/imagereward");
    assert_null(draft_reward_score(c.reward, &c.g, &images, (const char *const[]){"\xff"}));
    assert_non_null(strstr(c.g.error.message, "not UTF-8"));
    free(pixels);
    reward_close(&c);
}

static const char *const FILES[] = {"vocab.txt", "med_config.json", "ImageReward.safetensors", "ImageReward.pt", NULL};

static void test_imagereward_reward__refuses_files_that_are_missing_or_pickles(void **state)
{
    (void)state;
    golden_set_up(NULL);
    golden_opens("imagereward", "", "has no ImageReward.safetensors or model.safetensors");
    golden_write("ImageReward.pt", "PK\3\4", 4);
    golden_opens("imagereward", "",
                 "ImageReward.pt is a pickle, which is not read because it can run code; convert it to");
    golden_link("imagereward", "ImageReward.safetensors", "ImageReward.safetensors");
    golden_opens("imagereward", "", "med_config.json");
    golden_link("imagereward", "med_config.json", "med_config.json");
    golden_opens("imagereward", "", "vocab.txt");
    golden_write("vocab.txt", "[UNK]\n", 6);
    golden_opens("imagereward", "", "no token [CLS], expected the vocabulary of a BERT");
    golden_link("imagereward", "vocab.txt", "vocab.txt");
    golden_opens("imagereward", "", NULL);
    golden_opens("imagereward", "length=3", "takes no options");
    golden_remove(FILES);
}

static void test_imagereward_reward__refuses_tensors_that_do_not_fit(void **state)
{
    (void)state;
#define VIT  "blip.visual_encoder."
#define BERT "blip.text_encoder."
    static const struct {
        enum golden_damage damage;
        const char *tensor, *words;
    } rows[] = {
        {GOLDEN_DROP, VIT "cls_token", "no tensor " VIT "cls_token, expected one of shape [1, 1, 128]"},
        {GOLDEN_DROP, VIT "pos_embed", "no tensor " VIT "pos_embed, expected one of shape [1, 1 + patches, width]"},
        {GOLDEN_DROP, VIT "blocks.1.attn.qkv.bias", "attn.qkv.bias, expected one of shape [384]"},
        {GOLDEN_DROP, VIT "blocks.1.norm1.weight", "is not part of this model"},
        {GOLDEN_DROP, BERT "encoder.layer.1.crossattention.self.key.weight", "expected one of shape [48, 128]"},
        {GOLDEN_DROP, "mlp.layers.7.bias", "no tensor mlp.layers.7.bias"},
        {GOLDEN_RESHAPE, VIT "patch_embed.proj.weight", "expected [width, 3, patch, patch]"},
        {GOLDEN_RESHAPE, VIT "pos_embed", "expected 1 and those of a square picture"},
        {GOLDEN_RESHAPE, BERT "embeddings.word_embeddings.weight", "is [1, 1, 13776], expected [287, 48]"},
        {GOLDEN_NAN, BERT "embeddings.LayerNorm.weight", "holds NaN"},
        {GOLDEN_ADD, BERT "pooler.dense.weight", "is not part of this model"},
        {GOLDEN_KEEP, "", NULL},
    };
    golden_set_up(NULL);
    golden_link("imagereward", "med_config.json", "med_config.json");
    golden_link("imagereward", "vocab.txt", "vocab.txt");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        golden_damage("imagereward", "ImageReward.safetensors", rows[i].damage, rows[i].tensor);
        golden_opens("imagereward", "", rows[i].words);
    }
    golden_remove(FILES);
}

static void test_imagereward_reward__refuses_a_configuration_that_is_another(void **state)
{
    (void)state;
#define REST                                                                                                           \
    ", \"intermediate_size\": 96, \"max_position_embeddings\": 40, \"num_hidden_layers\": 2, \"vocab_size\": 287}"
    static const struct {
        const char *json, *words;
    } rows[] = {
        {"[]", "does not hold a JSON object"},
        {"{\"hidden_size\": 48, \"num_attention_heads\": 3" REST, NULL},
        {"{\"hidden_size\": 48, \"num_attention_heads\": 5" REST, "expected a multiple of num_attention_heads (5)"},
        {"{\"hidden_size\": 0" REST, "\"hidden_size\" is 0"},
        {"{\"hidden_size\": 64, \"num_attention_heads\": 4" REST, "is [287, 48], expected [287, 64]"},
        {"{\"hidden_size\": 48, \"hidden_act\": \"relu\"" REST, "\"hidden_act\" is \"relu\""},
        {"{\"hidden_size\": 48, \"model_type\": \"clip\"" REST, "\"model_type\" is \"clip\""},
        {"{\"hidden_size\": 48, \"add_type_embeddings\": true" REST, "\"add_type_embeddings\" is true"},
        {"{\"hidden_size\": 48, \"num_attention_heads\": 3, \"experts\": 8" REST, "\"experts\" (8) is not understood"},
        {"{\"hidden_size\": 48, \"num_attention_heads\": 3, \"num_hidden_layers\": 3, \"vocab_size\": 287, "
         "\"intermediate_size\": 96, \"max_position_embeddings\": 40}",
         "encoder.layer.2.attention.self.query.weight"},
    };
    golden_set_up(NULL);
    golden_link("imagereward", "ImageReward.safetensors", "ImageReward.safetensors");
    golden_link("imagereward", "vocab.txt", "vocab.txt");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        golden_write("med_config.json", rows[i].json, strlen(rows[i].json));
        golden_opens("imagereward", "", rows[i].words);
    }
    golden_remove(FILES);
}

static void test_imagereward_reward__refuses_a_vocabulary_larger_than_the_models(void **state)
{
    (void)state;
    char text[8000];
    size_t used = (size_t)sprintf(text, "[UNK]\n[CLS]\n[SEP]\n");
    for (int i = 0; i < 283; i++) /* 286 lines and two tokens more */
        used += (size_t)sprintf(text + used, "word%d\n", i);
    golden_set_up(NULL);
    golden_link("imagereward", "ImageReward.safetensors", "ImageReward.safetensors");
    golden_link("imagereward", "med_config.json", "med_config.json");
    golden_write("vocab.txt", text, used);
    golden_opens("imagereward", "", "288 tokens with [DEC] and [ENC], the model's vocab_size is 287");
    golden_remove(FILES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_imagereward_reward__equals_pytorch_in_value_and_gradient),
        cmocka_unit_test(test_imagereward_reward__of_a_picture_is_its_own),
        cmocka_unit_test(test_imagereward_reward__refuses_a_prompt_that_is_not_utf8),
        cmocka_unit_test(test_imagereward_reward__refuses_files_that_are_missing_or_pickles),
        cmocka_unit_test(test_imagereward_reward__refuses_tensors_that_do_not_fit),
        cmocka_unit_test(test_imagereward_reward__refuses_a_configuration_that_is_another),
        cmocka_unit_test(test_imagereward_reward__refuses_a_vocabulary_larger_than_the_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
