#include "model_case.h"

#include "backend/backend.h"
#include "models/unet.h"
#include "models/unet_parts.h"

static const char UNET[] = FIXTURES "/era15/unet";

static bool open_unet(const char *folder, struct draft_arena *arena, struct draft_error *err)
{
    return draft_unet_open(folder, arena, NULL, err) != NULL;
}

static const struct model_case ERA = {.source = UNET, .stem = "diffusion_pytorch_model", .open = open_unet};

struct bench {
    struct draft_backend *backend;
    struct draft_arena *weights, *step;
    struct draft_graph g;
    struct draft_error err;
};

static void bench_open(struct bench *b)
{
    *b = (struct bench){0};
    struct draft_backend_options options = {.threads = 1};
    b->backend = draft_backend_create_cpu(&options, &b->err);
    b->weights = draft_arena_create("weights", (size_t)1 << 30, &b->err);
    b->step = draft_arena_create("step", (size_t)1 << 30, &b->err);
    assert_true(b->backend != NULL && b->weights != NULL && b->step != NULL);
    assert_true(draft_graph_init(&b->g, b->backend, b->step, &b->err));
}

static void bench_close(struct bench *b)
{
    draft_graph_finish(&b->g);
    draft_arena_destroy(b->step);
    draft_arena_destroy(b->weights);
    draft_backend_destroy(b->backend);
}

/* Numbers that are neither tidy nor random. */
static struct draft_tensor *waves(struct draft_graph *g, int rank, const int64_t *dim, double phase)
{
    struct draft_tensor *x = draft_new(g, DRAFT_F32, rank, dim);
    assert_non_null(x);
    for (int64_t i = 0; i < draft_tensor_count(x); i++)
        draft_f32(x)[i] = (float)sin(0.37 * (double)i + phase);
    return x;
}

/* The output for fixed inputs, copied to `out`; a context of its own cache when asked. */
static size_t run_unet(struct bench *b, const struct draft_unet *unet, bool recording, float *out, size_t capacity)
{
    struct draft_graph *g = &b->g;
    draft_graph_reset(g, NULL);
    g->recording = recording;
    struct draft_tensor *x = waves(g, 4, (const int64_t[]){1, 8, 8, 4}, 0.1);
    struct draft_unet_call call = {.t = draft_scalar(g, 100), .context = waves(g, 3, (const int64_t[]){1, 5, 24}, 0.7)};
    struct draft_tensor *y = draft_unet_forward(g, unet, x, &call);
    if (y == NULL)
        fail_msg("%s", g->error.message);
    size_t n = (size_t)draft_tensor_count(y);
    assert_true(n <= capacity);
    memcpy(out, y->data, n * sizeof *out);
    return n;
}

/* --- config.json ------------------------------------------------------------------------------------------------- */

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0 && fclose(file) == 0);
}

static void test_unet__absent_keys_take_the_class_defaults(void **state)
{
    (void)state;
    static const int64_t CHANNELS[] = {320, 640, 1280, 1280};
    char path[] = "/tmp/draft-config-XXXXXX";
    close(mkstemp(path));
    write_text(path, "{}");
    struct unet_config c;
    struct draft_error err = {0};
    if (!draft_unet_config_read(&c, path, &err))
        fail_msg("%s", err.message);
    unlink(path);
    assert_int_equal(c.levels, 4);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(c.channels[i], CHANNELS[i]);
        assert_int_equal(c.layers[i], 2);
        assert_int_equal(c.heads[i], 8);
        assert_int_equal(c.transformer_layers[i], 1);
        assert_int_equal(c.down_attends[i], i < 3);
        assert_int_equal(c.up_attends[i], i < 3);
    }
    assert_int_equal(c.in_channels, 4);
    assert_int_equal(c.out_channels, 4);
    assert_int_equal(c.context_width, 1280);
    assert_int_equal(c.time_width, 1280);
    assert_int_equal(c.groups, 32);
    assert_true(c.eps == 1e-5f && c.freq_shift == 0 && c.flip_sin_to_cos && !c.linear_projection);
    assert_true(c.has_middle && c.middle_attends);
    assert_int_equal(c.conv_in_kernel, 3);
    assert_int_equal(c.conv_out_kernel, 3);
}

static void test_unet__refuses_what_it_does_not_implement_naming_key_and_values(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value, *words[MODEL_WORDS];
    } CASES[] = {
        {"act_fn", "\"gelu\"", {"config.json", "act_fn", "\"gelu\"", "\"silu\""}},
        {"dropout", "0.1", {"config.json", "dropout", "0.1", "0.0"}},
        {"num_class_embeds", "1000", {"num_class_embeds", "1000", "null"}},
        {"class_embed_type", "\"timestep\"", {"class_embed_type", "timestep"}},
        {"addition_embed_type", "\"text_time\"", {"addition_embed_type", "text_time"}},
        {"only_cross_attention", "true", {"only_cross_attention", "true", "false"}},
        {"only_cross_attention", "[true, false]", {"only_cross_attention"}},
        {"center_input_sample", "true", {"center_input_sample"}},
        {"downsample_padding", "0", {"downsample_padding", "0", "1"}},
        {"mid_block_scale_factor", "2", {"mid_block_scale_factor"}},
        {"resnet_time_scale_shift", "\"scale_shift\"", {"resnet_time_scale_shift", "scale_shift", "default"}},
        {"time_embedding_type", "\"fourier\"", {"time_embedding_type", "fourier", "positional"}},
        {"encoder_hid_dim", "768", {"encoder_hid_dim"}},
        {"dual_cross_attention", "true", {"dual_cross_attention"}},
        {"num_attention_heads", "8", {"num_attention_heads"}},
        {"mid_block_type", "\"UNetMidBlock2DSimpleCrossAttn\"", {"mid_block_type", "SimpleCrossAttn", "or null"}},
        {"down_block_types",
         "[\"DownBlock2D\", \"AttnDownBlock2D\", \"DownBlock2D\", \"DownBlock2D\"]",
         {"down_block_types", "AttnDownBlock2D", "CrossAttnDownBlock2D"}},
        {"down_block_types", "[\"DownBlock2D\"]", {"down_block_types", "1 entries", "expected 4"}},
        {"attention_head_dim", "[8, 8]", {"attention_head_dim", "2 entries", "expected 4"}},
        {"attention_head_dim", "0", {"attention_head_dim", "0"}},
        {"attention_head_dim", "64", {"attention_head_dim", "64", "16 channels"}},
        {"attention_head_dim", "\"8\"", {"attention_head_dim", "integer"}},
        {"transformer_layers_per_block", "[[1], [1], [1], [1]]", {"transformer_layers_per_block"}},
        {"cross_attention_dim", "[24, 24, 24, 32]", {"cross_attention_dim", "24", "32"}},
        {"norm_num_groups", "null", {"norm_num_groups", "null"}},
        {"norm_num_groups", "5", {"block_out_channels", "16", "norm_num_groups (5)"}},
        {"block_out_channels", "16", {"block_out_channels", "a list"}},
        {"block_out_channels", "[16, 32, 32, 1e9]", {"block_out_channels"}},
        {"sample_size", "[16]", {"sample_size", "one entry"}},
        {"conv_in_kernel", "4", {"conv_in_kernel", "4", "odd"}},
        {"_class_name", "\"UNet2DModel\"", {"_class_name", "UNet2DModel", "UNet2DConditionModel"}},
        {"a_later_invention", "true", {"config.json", "a_later_invention", "not understood"}},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        model_refuses_config(&ERA, CASES[i].key, CASES[i].value, CASES[i].words);
}

static void test_unet__refuses_weights_that_do_not_fit(void **state)
{
    (void)state;
    static const char KEY[] = "down_blocks.1.resnets.0.conv1.weight";
    static const char FILE_NAME[] = "diffusion_pytorch_model.safetensors";
    model_refuses_weights(&ERA, MODEL_DROP, KEY, WORDS(FILE_NAME, KEY, "[16, 16, 3, 3]"));
    model_refuses_weights(&ERA, MODEL_RESHAPE, KEY, WORDS(FILE_NAME, KEY, "[1, 2304]", "[16, 16, 3, 3]"));
    model_refuses_weights(&ERA, MODEL_ADD, "class_embedding.weight", WORDS(FILE_NAME, "class_embedding.weight", "[3]"));
    model_refuses_weights(&ERA, MODEL_NAN, KEY, WORDS(FILE_NAME, KEY, "NaN"));
    /* A config that asks for other shapes than the file has */
    model_refuses_config(&ERA, "cross_attention_dim", "32",
                         WORDS(FILE_NAME, "attn2.to_k.weight", "[16, 24]", "[16, 32]"));
    model_refuses_config(&ERA, "use_linear_projection", "true",
                         WORDS(FILE_NAME, "proj_in", "[16, 16, 1, 1]", "[16, 16]"));
    model_refuses_config(&ERA, "layers_per_block", "2", WORDS(FILE_NAME, "no tensor", "resnets.1.norm1"));
    model_refuses_config(&ERA, "mid_block_type", "null", WORDS(FILE_NAME, "mid_block", "not part of this model"));
}

/* --- The network ---------------------------------------------------------------------------------------------------
 */

static void test_unet__adapter_has_ten_linears_a_block_in_load_order_and_starts_as_nothing(void **state)
{
    (void)state;
    enum { MAX = 8 * 8 * 4 };
    static const char *const NAMES[] = {"attn1.to_q", "attn1.to_k", "attn1.to_v",     "attn1.to_out.0", "attn2.to_q",
                                        "attn2.to_k", "attn2.to_v", "attn2.to_out.0", "ff.net.0.proj",  "ff.net.2"};
    static float base[MAX], adapted[MAX];
    struct bench b;
    bench_open(&b);
    struct draft_unet *plain = draft_unet_open(UNET, b.weights, NULL, &b.err);
    struct draft_adapter *adapter = draft_adapter_create(b.weights, 3, 6, 7, &b.err);
    struct draft_unet *unet = draft_unet_open(UNET, b.weights, adapter, &b.err);
    assert_true(plain != NULL && unet != NULL);

    assert_int_equal(adapter->count, 100); /* 3 down, 1 middle, 3 * 2 up transformers */
    for (int i = 0; i < 10; i++) {
        char name[128];
        snprintf(name, sizeof name, "down_blocks.0.attentions.0.transformer_blocks.0.%s", NAMES[i]);
        assert_string_equal(adapter->entry[i].module, name);
        snprintf(name, sizeof name, "mid_block.attentions.0.transformer_blocks.0.%s", NAMES[i]);
        assert_string_equal(adapter->entry[30 + i].module, name);
    }
    assert_int_equal(adapter->entry[5].in, 24);   /* attn2.to_k reads the context */
    assert_int_equal(adapter->entry[8].out, 128); /* ff.net.0.proj gives GEGLU's two halves */

    size_t n = run_unet(&b, plain, false, base, MAX);
    assert_int_equal(run_unet(&b, unet, false, adapted, MAX), n);
    assert_memory_equal(base, adapted, n * sizeof *base);

    struct draft_tensor *up = adapter->entry[0].lora.up;
    for (int64_t i = 0; i < draft_tensor_count(up); i++)
        draft_f32(up)[i] = 0.5f;
    run_unet(&b, unet, false, adapted, MAX);
    assert_memory_not_equal(base, adapted, n * sizeof *base);
    adapter->on = false;
    run_unet(&b, unet, false, adapted, MAX);
    assert_memory_equal(base, adapted, n * sizeof *base);
    adapter->on = true;
    draft_adapter_set_strength(adapter, 0);
    run_unet(&b, unet, false, adapted, MAX);
    for (size_t i = 0; i < n; i++)
        assert_true(fabsf(base[i] - adapted[i]) <= 1e-6f * (1 + fabsf(base[i])));
    bench_close(&b);
}

static void test_unet__without_gradient_needs_little_memory(void **state)
{
    (void)state;
    enum { MAX = 8 * 8 * 4 };
    static float quiet[MAX], recorded[MAX];
    struct bench b;
    bench_open(&b);
    struct draft_adapter *adapter = draft_adapter_create(b.weights, 2, 2, 1, &b.err);
    struct draft_unet *unet = draft_unet_open(UNET, b.weights, adapter, &b.err);
    assert_non_null(unet);
    size_t n = run_unet(&b, unet, false, quiet, MAX);
    size_t little = draft_arena_high_water(b.step), kept = draft_arena_live(b.step);
    run_unet(&b, unet, true, recorded, MAX);
    size_t much = draft_arena_live(b.step);
    assert_memory_equal(quiet, recorded, n * sizeof *quiet);
    assert_true(kept < 16 << 10); /* inputs and output */
    assert_true(little * 2 < much);
    bench_close(&b);
}

/* Gradients of all adapter matrices and of x for a fixed upstream gradient; returns the arena's bytes after forward. */
static size_t backward(struct bench *b, struct draft_unet *unet, const struct draft_adapter *adapter, bool recompute,
                       float *out, size_t *count)
{
    struct draft_graph *g = &b->g;
    draft_graph_reset(g, NULL);
    draft_unet_set_recompute(unet, recompute);
    struct draft_tensor *x = waves(g, 4, (const int64_t[]){1, 8, 8, 4}, 0.1);
    x->needs_grad = true;
    struct draft_unet_call call = {.t = draft_scalar(g, 100), .context = waves(g, 3, (const int64_t[]){1, 5, 24}, 0.7)};
    struct draft_tensor *seed = waves(g, 4, x->dim, 1.3), *y = draft_unet_forward(g, unet, x, &call);
    size_t bytes = draft_arena_live(b->step);
    if (!draft_graph_backward(g, y, draft_f32(seed)))
        fail_msg("%s", g->error.message);
    *count = 0;
    for (int i = -1; i < 2 * adapter->count; i++) {
        const struct draft_lora *lora = i >= 0 ? &adapter->entry[i / 2].lora : NULL;
        const struct draft_tensor *of = lora == NULL ? x : i % 2 == 0 ? lora->down : lora->up;
        size_t n = (size_t)draft_tensor_count(of);
        assert_true(of->grad != NULL && of->grad_written);
        memcpy(out + *count, of->grad, n * sizeof *out);
        *count += n;
    }
    return bytes;
}

/* With a LoRA that has an effect. */
static struct draft_unet *open_with_adapter(struct bench *b, struct draft_adapter **adapter)
{
    *adapter = draft_adapter_create(b->weights, 2, 2, 1, &b->err);
    struct draft_unet *unet = draft_unet_open(UNET, b->weights, *adapter, &b->err);
    for (int i = 0; i < (*adapter)->count; i++) {
        struct draft_tensor *up = (*adapter)->entry[i].lora.up;
        memset(up->data, 0x3c, (size_t)draft_tensor_count(up) * sizeof(float));
    }
    return unet;
}

static void test_unet__recompute_gives_the_same_gradients_bit_for_bit_in_less_memory(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b);
    struct draft_adapter *adapter;
    struct draft_unet *unet = open_with_adapter(&b, &adapter);
    size_t numbers = draft_adapter_parameters(adapter) + 8 * 8 * 4, n, again;
    float *plain = malloc(numbers * sizeof *plain), *twice = malloc(numbers * sizeof *twice);
    size_t kept = backward(&b, unet, adapter, false, plain, &n);
    size_t little = backward(&b, unet, adapter, true, twice, &again);
    assert_true(n == numbers && again == numbers);
    assert_memory_equal(plain, twice, n * sizeof *plain);
    assert_true(3 * little < kept);
    free(plain);
    free(twice);
    bench_close(&b);
}

/* A pair's one latent given once: the output, and the gradients of the adapter and of x, of x given twice. The output's
 * numbers are the same bits, for each half is computed as it was; gradients of the shared part are added before and not
 * after they are walked back. */
static void guided_pair(struct bench *b, struct draft_unet *unet, const struct draft_adapter *adapter, bool once,
                        bool recompute, float *out, size_t *count)
{
    struct draft_graph *g = &b->g;
    draft_graph_reset(g, NULL);
    draft_unet_set_recompute(unet, recompute);
    struct draft_tensor *x = waves(g, 4, (const int64_t[]){2, 8, 8, 4}, 0.1);
    x->needs_grad = true;
    struct draft_unet_call call = {.t = draft_scalar(g, 100), .context = waves(g, 3, (const int64_t[]){4, 5, 24}, 0.7)};
    struct draft_tensor *seed = waves(g, 4, (const int64_t[]){4, 8, 8, 4}, 1.3);
    struct draft_tensor *y = draft_unet_forward(g, unet, once ? x : draft_concat_batch(g, x, x), &call);
    if (y == NULL)
        fail_msg("%s", g->error.message);
    *count = (size_t)draft_tensor_count(y);
    assert_int_equal(*count, 4 * 8 * 8 * 4);
    memcpy(out, y->data, *count * sizeof *out);
    if (!draft_graph_backward(g, y, draft_f32(seed)))
        fail_msg("%s", g->error.message);
    for (int i = -1; i < adapter->count; i++) {
        const struct draft_tensor *of = i < 0 ? x : adapter->entry[i].lora.up;
        memcpy(out + *count, of->grad, (size_t)draft_tensor_count(of) * sizeof *out);
        *count += (size_t)draft_tensor_count(of);
    }
}

static void test_unet__a_guided_pair_may_begin_as_one(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b);
    struct draft_adapter *adapter;
    struct draft_unet *unet = open_with_adapter(&b, &adapter);
    const size_t outputs = 4 * 8 * 8 * 4;
    size_t numbers = draft_adapter_parameters(adapter) + outputs + 2 * 8 * 8 * 4, n, again;
    float *twice = malloc(numbers * sizeof *twice), *once = malloc(numbers * sizeof *once);
    guided_pair(&b, unet, adapter, false, false, twice, &n);
    for (int recompute = 0; recompute < 2; recompute++) {
        guided_pair(&b, unet, adapter, true, recompute, once, &again);
        assert_int_equal(n, again);
        assert_memory_equal(once, twice, outputs * sizeof *once);
        double difference = 0, norm = 0;
        for (size_t i = outputs; i < n; i++) {
            difference += ((double)once[i] - twice[i]) * ((double)once[i] - twice[i]);
            norm += (double)twice[i] * twice[i];
        }
        assert_true(norm > 0 && sqrt(difference / norm) < 1e-5);
    }
    free(twice);
    free(once);
    bench_close(&b);
}

static bool refuse(void *context)
{
    return --*(int *)context > 0;
}

static void test_unet__stops_between_blocks_when_told(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b);
    struct draft_unet *unet = draft_unet_open(UNET, b.weights, NULL, &b.err);
    int asked = 5;
    b.g.keep_going = refuse;
    b.g.context = &asked;
    draft_no_grad(&b.g);
    struct draft_tensor *x = waves(&b.g, 4, (const int64_t[]){1, 8, 8, 4}, 0);
    struct draft_unet_call call = {.t = draft_scalar(&b.g, 1),
                                   .context = waves(&b.g, 3, (const int64_t[]){1, 5, 24}, 0)};
    assert_null(draft_unet_forward(&b.g, unet, x, &call));
    assert_int_equal(b.g.error.code, DRAFT_CANCELLED);
    assert_int_equal(asked, 0);
    bench_close(&b);
}

static void test_unet__refuses_inputs_of_other_widths_in_a_sentence(void **state)
{
    (void)state;
    struct bench b;
    bench_open(&b);
    struct draft_unet *unet = draft_unet_open(UNET, b.weights, NULL, &b.err);
    struct draft_tensor *x = waves(&b.g, 4, (const int64_t[]){1, 8, 8, 4}, 0);
    struct draft_unet_call call = {.t = draft_scalar(&b.g, 1),
                                   .context = waves(&b.g, 3, (const int64_t[]){1, 5, 32}, 0)};
    assert_null(draft_unet_forward(&b.g, unet, x, &call));
    assert_non_null(strstr(b.g.error.message, "[n, s, 24]"));
    assert_non_null(strstr(b.g.error.message, "[1, 5, 32]"));
    bench_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unet__absent_keys_take_the_class_defaults),
        cmocka_unit_test(test_unet__refuses_what_it_does_not_implement_naming_key_and_values),
        cmocka_unit_test(test_unet__refuses_weights_that_do_not_fit),
        cmocka_unit_test(test_unet__adapter_has_ten_linears_a_block_in_load_order_and_starts_as_nothing),
        cmocka_unit_test(test_unet__without_gradient_needs_little_memory),
        cmocka_unit_test(test_unet__recompute_gives_the_same_gradients_bit_for_bit_in_less_memory),
        cmocka_unit_test(test_unet__a_guided_pair_may_begin_as_one),
        cmocka_unit_test(test_unet__stops_between_blocks_when_told),
        cmocka_unit_test(test_unet__refuses_inputs_of_other_widths_in_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
