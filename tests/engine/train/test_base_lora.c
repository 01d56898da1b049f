/* LoRA files that a job begins with: merged into the base, or continued as the adapter. */
#include "demo_job.h"

#include <math.h>

#include "state.h"
#include "tensor/safetensors.h"
#include "tensor/weight_source.h"
#include "train/base_lora.h"

#define KOHYA_Q "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"

static char exported[2][256]; /* kohya, diffusers; F32 */
static float *tuned;          /* the job's picture */
static size_t numbers;

static float *picture(const struct draft_job_config *config, double lora_scale, size_t *count)
{
    struct draft_engine *engine = open_demo(config, NULL);
    struct draft_sample_request request = {.prompt = "a lion", .seed = 5, .guidance = -1, .lora_scale = lora_scale};
    struct draft_picture p;
    struct draft_error err = {0};
    if (!draft_engine_sample(engine, &request, &p, &err))
        fail_msg("%s", err.message);
    *count = (size_t)p.height * (size_t)p.width * 3;
    draft_engine_close(engine);
    return p.rgb;
}

static int setup(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_job_config config = demo_job();
    config.learning_rate = 0.02;
    config.lora_alpha = 2; /* scale alpha / rank = 0.5 */
    struct draft_engine *engine = open_demo(&config, NULL);
    train(engine, 2);
    const char *checkpoint = save(engine, "checkpoint");
    for (int i = 0; i < 2; i++) {
        snprintf(exported[i], sizeof exported[i], "%s", in_folder(i ? "diffusers.safetensors" : "kohya.safetensors"));
        struct draft_export_options options = {.format = i ? DRAFT_EXPORT_DIFFUSERS : DRAFT_EXPORT_KOHYA, .f32 = true};
        if (!draft_export_lora(checkpoint, exported[i], &options, &err))
            fail_msg("%s", err.message);
    }
    struct draft_sample_request request = {.prompt = "a lion", .seed = 5, .guidance = -1, .lora_scale = 1};
    struct draft_picture p;
    assert_true(draft_engine_sample(engine, &request, &p, &err));
    tuned = p.rgb;
    numbers = (size_t)p.height * (size_t)p.width * 3;
    draft_engine_close(engine);
    return 0;
}

static int teardown(void **state)
{
    free(tuned);
    return remove_folder(state);
}

static double farthest(const float *a, const float *b, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)a[i] - b[i]));
    return most;
}

static void test_base_lora__merged_export_draws_the_jobs_picture(void **state)
{
    (void)state;
    size_t n;
    struct draft_job_config config = demo_job();
    float *base = picture(&config, 1, &n);
    assert_int_equal(n, numbers);
    assert_true(farthest(base, tuned, n) > 0.02); /* the LoRA does something */
    free(base);
    for (int i = 0; i < 2; i++) {
        config.base_lora[0].path = exported[i];
        config.base_lora[0].weight = 1;
        config.base_lora_count = 1;
        float *merged = picture(&config, 1, &n);
        if (farthest(merged, tuned, n) > 2e-4)
            fail_msg("format %d: %g", i, farthest(merged, tuned, n));
        free(merged);
    }
}

static void test_base_lora__weights_add_up(void **state)
{
    (void)state;
    size_t n;
    struct draft_job_config config = demo_job();
    for (int i = 0; i < 2; i++) {
        config.base_lora[i].path = exported[i];
        config.base_lora[i].weight = i ? 1.25 : -0.25;
    }
    config.base_lora_count = 2;
    float *merged = picture(&config, 1, &n);
    assert_true(farthest(merged, tuned, n) < 2e-4);
    free(merged);
}

static void test_base_lora__continued_adapter_begins_where_the_job_ended(void **state)
{
    (void)state;
    size_t n;
    struct draft_job_config config = demo_job();
    for (int i = 0; i < 2; i++) {
        config.continue_from = exported[i];
        config.lora_alpha = i ? 2 : 8; /* whatever the scale */
        float *continued = picture(&config, 1, &n);
        assert_true(farthest(continued, tuned, n) < 2e-4);
        free(continued);
        float *off = picture(&config, 0, &n);
        assert_true(farthest(off, tuned, n) > 0.02);
        free(off);
    }
}

/* A picture with the adapter at a strength is the one of weights that hold so much of it. */
static void test_base_lora__a_scale_of_the_adapter_is_a_weight_of_the_merge(void **state)
{
    (void)state;
    static const double scales[] = {0.5, -0.75, 1.25};
    size_t n;
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        struct draft_job_config merged = demo_job(), continued = demo_job();
        merged.base_lora[0].path = exported[0];
        merged.base_lora[0].weight = scales[i];
        merged.base_lora_count = 1;
        continued.continue_from = exported[0];
        float *by_weight = picture(&merged, 1, &n), *by_scale = picture(&continued, scales[i], &n);
        if (farthest(by_weight, by_scale, n) > 2e-4)
            fail_msg("scale %g: %g", scales[i], farthest(by_weight, by_scale, n));
        assert_true(farthest(by_scale, tuned, n) > 0.01);
        free(by_weight);
        free(by_scale);
    }
}

static void test_base_lora__fingerprint_and_settings_hold_the_files(void **state)
{
    (void)state;
    struct draft_job_config config = demo_job();
    struct draft_engine *plain = open_demo(&config, NULL);
    config.base_lora[0].path = exported[0];
    config.base_lora[0].weight = 1;
    config.base_lora_count = 1;
    struct draft_engine *with = open_demo(&config, NULL);
    config.base_lora[0].weight = 0.5;
    struct draft_engine *half = open_demo(&config, NULL);
    assert_string_not_equal(plain->fingerprint, with->fingerprint);
    assert_string_equal(half->fingerprint, with->fingerprint);
    assert_string_not_equal(half->config_digest, with->config_digest);
    draft_engine_close(plain);
    draft_engine_close(with);
    draft_engine_close(half);
}

/* --- Files of other tools, made here ------------------------------------------------------------------------------ */

struct made {
    struct draft_safetensors_item item[8];
    int count;
    const char *name; /* NULL: made.safetensors */
    const char *const *metadata;
};

/* values 0.01 * (i % 7 - 3) */
static void put(struct made *m, const char *name, int rank, int64_t a, int64_t b, int64_t c, int64_t d)
{
    size_t n = (size_t)(a * b * c * d);
    float *values = malloc((n + 1) * sizeof *values);
    for (size_t i = 0; i < n; i++)
        values[i] = 0.01f * (float)((int)(i % 7) - 3);
    m->item[m->count++] =
        (struct draft_safetensors_item){.name = name, .rank = rank, .dim = {a, b, c, d}, .data = values};
}

static void put_number(struct made *m, const char *name, float value)
{
    put(m, name, 0, 1, 1, 1, 1);
    *(float *)(uintptr_t)m->item[m->count - 1].data = value;
}

static const char *write_made(struct made *m)
{
    struct draft_error err = {0};
    const char *path = in_folder(m->name ? m->name : "made.safetensors");
    if (!draft_safetensors_write(path, m->item, m->count, m->metadata, &err))
        fail_msg("%s", err.message);
    for (int i = 0; i < m->count; i++)
        free((void *)(uintptr_t)m->item[i].data);
    return path;
}

static void write_text(const char *name, const char *text)
{
    FILE *file = fopen(in_folder(name), "w");
    fputs(text, file);
    fclose(file);
}

struct wanted {
    const char *name;
    struct draft_tensor *found;
};

static void look(void *context, struct draft_tensor *weight)
{
    struct wanted *w = context;
    if (strcmp(weight->name, w->name) == 0)
        w->found = weight;
}

static struct draft_pipeline pipeline;
static struct draft_arena *arena;

static struct draft_tensor *weight_of(const char *name, bool text)
{
    struct wanted w = {.name = name};
    if (text)
        draft_clip_text_each_weight(pipeline.text, look, &w);
    else
        draft_unet_each_weight(pipeline.unet, look, &w);
    assert_non_null(w.found);
    assert_true(draft_weight_materialize(w.found, NULL)); /* to look at, if nothing has changed it */
    return w.found;
}

static int open_pipeline(void **state)
{
    (void)state;
    arena = draft_arena_create("engine", (size_t)1 << 30, NULL);
    return !draft_pipeline_open(&pipeline, DEMO "/emoji-sd", arena, NULL, NULL);
}

static int close_pipeline(void **state)
{
    (void)state;
    draft_pipeline_close(&pipeline);
    draft_arena_destroy(arena);
    return 0;
}

/* Merges a made file with weight 0.5 and compares one weight, [out, kh, kw, in], with W + 0.5 * scale * up x down. */
static void merges(struct made *m, const char *name, bool text, double scale)
{
    struct draft_tensor *w = weight_of(name, text);
    int64_t n = draft_tensor_count(w), out = w->dim[0], taps = w->rank == 4 ? w->dim[1] * w->dim[2] : 1,
            in = n / out / taps, rank = m->item[0].dim[0];
    float *before = memcpy(malloc((size_t)n * sizeof(float)), w->data, (size_t)n * sizeof(float));
    struct draft_error err = {0};
    if (!draft_lora_merge(write_made(m), 0.5, pipeline.unet, pipeline.text, &err))
        fail_msg("%s", err.message);
    for (int64_t o = 0; o < out; o++)
        for (int64_t tap = 0; tap < taps; tap++)
            for (int64_t i = 0; i < in; i++) {
                double sum = 0;
                for (int64_t r = 0; r < rank; r++)
                    sum +=
                        0.01 * (double)((o * rank + r) % 7 - 3) * 0.01 * (double)(((r * in + i) * taps + tap) % 7 - 3);
                int64_t place = (o * taps + tap) * in + i;
                double wanted = before[place] + 0.5 * scale * sum;
                assert_true(fabs(draft_f32(w)[place] - wanted) < 1e-6);
            }
    free(before);
}

static void test_base_lora__convolutions_with_kohyas_alpha(void **state)
{
    (void)state;
    const struct draft_tensor *w = weight_of("down_blocks.0.resnets.0.conv1.weight", false);
    struct made m = {0};
    put(&m, "lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight", 4, 4, w->dim[3], 3, 3);
    put(&m, "lora_unet_down_blocks_0_resnets_0_conv1.lora_up.weight", 4, w->dim[0], 4, 1, 1);
    put_number(&m, "lora_unet_down_blocks_0_resnets_0_conv1.alpha", 2);
    merges(&m, "down_blocks.0.resnets.0.conv1.weight", false, 0.5);
}

static void test_base_lora__names_of_every_tool(void **state)
{
    (void)state;
    static const char *const names[][2] = {
        {"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_A.weight",
         "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_B.weight"},
        {"base_model.model.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_A.weight",
         "base_model.model.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_B.weight"},
        {"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.lora.down.weight",
         "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.lora.up.weight"},
        {"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.down.weight",
         "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight"},
        {"down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.down.weight",
         "down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight"},
    };
    const char *layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.weight";
    const struct draft_tensor *w = weight_of(layer, false);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct made m = {0};
        put(&m, names[i][0], 2, 3, w->dim[1], 1, 1);
        put(&m, names[i][1], 2, w->dim[0], 3, 1, 1);
        merges(&m, layer, false, 1);
    }
}

static void test_base_lora__text_encoder(void **state)
{
    (void)state;
    const char *layer = "text_model.encoder.layers.0.mlp.fc1.weight";
    const struct draft_tensor *w = weight_of(layer, true);
    struct made m = {0};
    put(&m, "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", 2, 2, w->dim[1], 1, 1);
    put(&m, "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", 2, w->dim[0], 2, 1, 1);
    put_number(&m, "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha", 6);
    merges(&m, layer, true, 3);
}

/* PEFT keeps alpha beside the file, diffusers in its metadata. */
static void test_base_lora__alphas_that_are_in_no_tensor(void **state)
{
    (void)state;
    const char *layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q";
    char weight[128], down[128], up[128];
    snprintf(weight, sizeof weight, "%s.weight", layer);
    snprintf(down, sizeof down, "unet.%s.lora_A.weight", layer);
    snprintf(up, sizeof up, "unet.%s.lora_B.weight", layer);
    const struct draft_tensor *w = weight_of(weight, false);
    struct made m = {0};
    put(&m, down, 2, 2, w->dim[1], 1, 1);
    put(&m, up, 2, w->dim[0], 2, 1, 1);
    m.metadata = (const char *const[]){"lora_adapter_metadata", "{\"unet.r\": 2, \"unet.lora_alpha\": 6}", NULL};
    merges(&m, weight, false, 3);

    snprintf(down, sizeof down, "base_model.model.%s.lora_A.weight", layer);
    snprintf(up, sizeof up, "base_model.model.%s.lora_B.weight", layer);
    m = (struct made){.name = "adapter_model.safetensors"};
    put(&m, down, 2, 2, w->dim[1], 1, 1);
    put(&m, up, 2, w->dim[0], 2, 1, 1);
    write_text("adapter_config.json", "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 1}");
    merges(&m, weight, false, 0.5);
}

/* --- Refusals ----------------------------------------------------------------------------------------------------- */

static void refused(const char *path, const char *words)
{
    struct draft_error err = {0};
    if (draft_lora_merge(path, 1, pipeline.unet, pipeline.text, &err))
        fail_msg("it was accepted; expected \"%s\"", words);
    if (!strstr(err.message, words))
        fail_msg("the refusal says\n    %s\nwithout \"%s\"", err.message, words);
}

static void test_base_lora__broken_files_are_refused_each_in_its_words(void **state)
{
    (void)state;
    const struct draft_tensor *w =
        weight_of("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight", false);
    int64_t in = w->dim[1], out = w->dim[0];
    struct made m = {0};
    put(&m, KOHYA_Q ".lora_down.weight", 2, 2, in, 1, 1);
    refused(write_made(&m), "has no up matrix");
    m = (struct made){0};
    put(&m, KOHYA_Q ".alpha", 0, 1, 1, 1, 1);
    refused(write_made(&m), "has no down matrix");
    m = (struct made){0};
    put(&m, KOHYA_Q ".lora_down.weight", 2, 2, in, 1, 1);
    put(&m, KOHYA_Q ".lora_up.weight", 2, out, 3, 1, 1);
    refused(write_made(&m), "are no down and up matrix of one rank");
    m = (struct made){0};
    put(&m, KOHYA_Q ".lora_down.weight", 2, 2, in + 1, 1, 1);
    put(&m, KOHYA_Q ".lora_up.weight", 2, out, 2, 1, 1);
    refused(write_made(&m), "do not fit the layer's weight");
    m = (struct made){0};
    put(&m, KOHYA_Q ".lora_down.weight", 4, 2, in, 3, 3);
    put(&m, KOHYA_Q ".lora_up.weight", 4, out, 2, 1, 1);
    refused(write_made(&m), "do not fit the layer's weight");
    m = (struct made){0};
    put(&m, "lora_unet_down_blocks_9_to_q.lora_down.weight", 2, 2, in, 1, 1);
    put(&m, "lora_unet_down_blocks_9_to_q.lora_up.weight", 2, out, 2, 1, 1);
    refused(write_made(&m), "is of a layer that the model's UNet does not have; the LoRA is of another model");
    m = (struct made){0};
    put(&m, KOHYA_Q ".lora_down.weight", 2, 2, in, 1, 1);
    put(&m, KOHYA_Q ".lora_up.weight", 2, out, 2, 1, 1);
    ((float *)(uintptr_t)m.item[1].data)[3] = NAN;
    refused(write_made(&m), "holds a value that is not finite");
    m = (struct made){0};
    put(&m, KOHYA_Q ".lora_down.weight", 2, 2, in, 1, 1);
    put(&m, KOHYA_Q ".lora_up.weight", 2, out, 2, 1, 1);
    put_number(&m, KOHYA_Q ".alpha", INFINITY);
    refused(write_made(&m), "is not a finite number");
    m = (struct made){0};
    put(&m, KOHYA_Q ".lora_down.weight", 2, 2, in, 1, 1);
    put(&m, "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight", 2, 2, in, 1, 1);
    refused(write_made(&m), "are of the same layer");
    for (int i = 0; i < 2; i++) {
        m = (struct made){0};
        put(&m, KOHYA_Q ".lora_down.weight", 2, 2, in, 1, 1);
        put(&m, KOHYA_Q ".lora_up.weight", 2, out, 2, 1, 1);
        put_number(&m, KOHYA_Q ".alpha", i == 0 ? 0 : 3e38f);
        ((float *)(uintptr_t)m.item[0].data)[0] = 1e4f;
        ((float *)(uintptr_t)m.item[1].data)[0] = 1e4f;
        refused(write_made(&m), i == 0 ? "is 0: some tools take that for no effect, others for the rank (2)"
                                       : "would hold numbers too large for 32-bit floats");
    }
    m = (struct made){0};
    put(&m, KOHYA_Q ".lora_down.weight", 2, 2, in, 1, 1);
    put(&m, KOHYA_Q ".lora_up.weight", 2, out, 2, 1, 1);
    put(&m, KOHYA_Q ".alpha", 1, 2, 1, 1, 1);
    refused(write_made(&m), "is no single number");
    m = (struct made){0};
    put(&m, "lora_te1_text_model_x.lora_down.weight", 2, 2, in, 1, 1);
    refused(write_made(&m), "is a LoRA for SDXL");
    m = (struct made){0};
    put(&m, "anything", 2, 2, in, 1, 1);
    refused(write_made(&m), "is no name of a LoRA as kohya, diffusers or PEFT write it");
    refused("/tmp/style.pt", "is a pickle");
}

static void test_base_lora__other_methods_are_refused_by_name(void **state)
{
    (void)state;
    static const char *const endings[] = {
        ".hada_w1_a", ".lokr_w1",   ".dora_scale", ".lora_mid.weight",      ".oft_diag", ".oft_blocks", ".diff",
        ".diff_b",    ".a1.weight", ".on_input",   ".lora_magnitude_vector"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        char name[128];
        struct made m = {0};
        put(&m, KOHYA_Q ".lora_down.weight", 2, 2, 4, 1, 1);
        put(&m, KOHYA_Q ".lora_up.weight", 2, 4, 2, 1, 1);
        snprintf(name, sizeof name, KOHYA_Q "%s", endings[i]);
        put(&m, name, 2, 2, 4, 1, 1);
        refused(write_made(&m), i < 8 || i == 10 ? "is of LoHa, LoKr, DoRA, OFT or another method"
                                                 : "is no name of a LoRA as kohya, diffusers or PEFT write it");
    }
    static const struct {
        const char *config, *words;
    } rows[] = {{"{\"use_rslora\": true}", "\"use_rslora\" is true"},
                {"{\"use_dora\": true}", "\"use_dora\" is true"},
                {"{\"peft_type\": \"LOHA\"}", "\"peft_type\" is \"LOHA\""},
                {"{\"alpha_pattern\": {\"to_q\": 3}}", "\"alpha_pattern\" is"},
                {"{\"rank_pattern\": {\"to_q\": 3}}", "\"rank_pattern\" is"},
                {"{\"lora_alpha\": 0}", "is 0: some tools"},
                {"{\"lora_alpha\": \"8\"}", "expected a number"},
                {"{", "is not JSON"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct made m = {.name = "adapter_model.safetensors"};
        put(&m, "unet.down_blocks.1.x.lora_A.weight", 2, 2, 4, 1, 1);
        put(&m, "unet.down_blocks.1.x.lora_B.weight", 2, 4, 2, 1, 1);
        write_text("adapter_config.json", rows[i].config);
        refused(write_made(&m), rows[i].words);
    }
}

static void test_base_lora__continuing_needs_the_same_rank_and_layers(void **state)
{
    (void)state;
    struct draft_error err = {0};
    struct draft_job_config config = demo_job();
    config.lora_rank = 8;
    config.continue_from = exported[0];
    assert_null(draft_engine_open(&config, NULL, &err));
    assert_non_null(strstr(err.message, "has rank 4 where the job's is 8"));
    assert_string_equal(err.field, "spec.lora.continue_from");
    struct made m = {0};
    put(&m, KOHYA_Q ".lora_down.weight", 2, 8, 32, 1, 1);
    put(&m, KOHYA_Q ".lora_up.weight", 2, 32, 8, 1, 1);
    config.continue_from = write_made(&m);
    err = (struct draft_error){0};
    assert_null(draft_engine_open(&config, NULL, &err));
    assert_non_null(strstr(err.message, "changes 1 layers where this job trains"));
    config.continue_from = NULL;
    config.base_lora[0].path = "/nonexistent.safetensors";
    config.base_lora_count = 1;
    err = (struct draft_error){0};
    assert_null(draft_engine_open(&config, NULL, &err));
    assert_string_equal(err.field, "spec.base_loras[0].path");
}

int main(void)
{
#define MERGE(name) cmocka_unit_test_setup_teardown(name, open_pipeline, close_pipeline)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_base_lora__merged_export_draws_the_jobs_picture),
        cmocka_unit_test(test_base_lora__weights_add_up),
        cmocka_unit_test(test_base_lora__continued_adapter_begins_where_the_job_ended),
        cmocka_unit_test(test_base_lora__a_scale_of_the_adapter_is_a_weight_of_the_merge),
        cmocka_unit_test(test_base_lora__fingerprint_and_settings_hold_the_files),
        MERGE(test_base_lora__convolutions_with_kohyas_alpha),
        MERGE(test_base_lora__names_of_every_tool),
        MERGE(test_base_lora__text_encoder),
        MERGE(test_base_lora__alphas_that_are_in_no_tensor),
        MERGE(test_base_lora__broken_files_are_refused_each_in_its_words),
        MERGE(test_base_lora__other_methods_are_refused_by_name),
        cmocka_unit_test(test_base_lora__continuing_needs_the_same_rank_and_layers),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
