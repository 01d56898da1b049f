#include "reward_golden.h"

static void test_aesthetic_reward__equals_pytorch_in_value_and_gradient(void **state)
{
    (void)state;
    golden_check_sizes("aesthetic:" FIXTURES "/rewards/aesthetic", FIXTURES "/rewards/aesthetic/case.safetensors");
}

static void lay_out(void)
{
    golden_set_up(NULL);
    golden_link("aesthetic", "config.json", "config.json");
    golden_link("aesthetic", "model.safetensors", "model.safetensors");
}

static const char *const FILES[] = {"config.json",
                                    "model.safetensors",
                                    "aesthetic.safetensors",
                                    "aesthetic.pth",
                                    "sac+logos+ava1-l14-linearMSE.safetensors",
                                    "sac+logos+ava1-l14-linearMSE.pth",
                                    "mine.safetensors",
                                    NULL};

static void test_aesthetic_reward__finds_its_layers_under_the_names_in_which_they_are_shared(void **state)
{
    (void)state;
    lay_out();
    golden_opens("aesthetic", "", "has no aesthetic.safetensors or sac+logos+ava1-l14-linearMSE.safetensors");
    golden_write("sac+logos+ava1-l14-linearMSE.pth", "PK\3\4", 4);
    golden_opens("aesthetic", "", "is a pickle, which is not read because it can run code; convert it to safetensors");
    golden_link("aesthetic", "aesthetic.safetensors", "sac+logos+ava1-l14-linearMSE.safetensors");
    golden_opens("aesthetic", "", NULL);
    golden_opens("aesthetic", "head=mine", "has no mine.safetensors");
    golden_link("aesthetic", "aesthetic.safetensors", "mine.safetensors");
    golden_opens("aesthetic", "head=mine", NULL);
    golden_remove(FILES);
}

static void test_aesthetic_reward__refuses_options_and_layers_that_do_not_fit(void **state)
{
    (void)state;
    static const struct {
        enum golden_damage damage;
        const char *tensor, *words;
    } rows[] = {
        {GOLDEN_DROP, "layers.4.weight", "no tensor layers.4.weight"},
        {GOLDEN_DROP, "layers.0.bias", "no tensor layers.0.bias, expected one of shape [40]"},
        {GOLDEN_RESHAPE, "layers.0.weight", "layers.0.weight is [1, 1, 2240], expected [1, 56]"},
        {GOLDEN_RESHAPE, "layers.7.weight", "layers.7.weight is [1, 1, 6], expected [1, 6]"},
        {GOLDEN_ADD, "layers.9.weight", "layers.9.weight [3] is not part of this model"},
        {GOLDEN_NAN, "layers.2.weight", "holds NaN"},
        {GOLDEN_ZERO, "layers.6.weight", "multiplied are 0"},
        {GOLDEN_KEEP, "", NULL},
    };
    lay_out();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        golden_damage("aesthetic", "aesthetic.safetensors", rows[i].damage, rows[i].tensor);
        golden_opens("aesthetic", "", rows[i].words);
    }
    golden_opens("aesthetic", "tail=x", "tail=x is not understood; the option is head=NAME");
    golden_opens("aesthetic", "head=../x", "head is \"../x\", expected the name of a file");
    golden_opens("aesthetic", "head=", "head is \"\"");
    golden_damage("aesthetic", "model.safetensors", GOLDEN_DROP, "visual_projection.weight");
    golden_opens("aesthetic", "", "no tensor visual_projection.weight");
    golden_damage("aesthetic", "model.safetensors", GOLDEN_DROP, "text_projection.weight");
    golden_opens("aesthetic", "", NULL); /* the text's side is not looked at */
    golden_remove(FILES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_aesthetic_reward__equals_pytorch_in_value_and_gradient),
        cmocka_unit_test(test_aesthetic_reward__finds_its_layers_under_the_names_in_which_they_are_shared),
        cmocka_unit_test(test_aesthetic_reward__refuses_options_and_layers_that_do_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
