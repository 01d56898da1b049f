/* Single-file checkpoints with the original names, against diffusers on the same weights
 * (tests/tools/make_single_file.py). */
#include "single_file.h"

#include "backend/backend.h"
#include "models/part.h"
#include "tensor/ldm_names.h"
#include "train/pipeline.h"

#define SD1 "tiny-sd1"
#define SD2 "tiny-sd2"

struct bench {
    struct draft_backend *backend;
    struct draft_arena *weights, *step;
    struct draft_graph g;
    struct draft_error err;
};

static int setup(void **state)
{
    struct bench *b = calloc(1, sizeof *b);
    struct draft_backend_options options = {.threads = 1};
    b->backend = draft_backend_create_cpu(&options, &b->err);
    b->weights = draft_arena_create("engine", (size_t)1 << 30, &b->err);
    b->step = draft_arena_create("step", (size_t)1 << 30, &b->err);
    *state = b;
    return !draft_graph_init(&b->g, b->backend, b->step, &b->err);
}

static int teardown(void **state)
{
    struct bench *b = *state;
    draft_graph_finish(&b->g);
    draft_backend_destroy(b->backend);
    draft_arena_destroy(b->step);
    draft_arena_destroy(b->weights);
    free(b);
    remove_folder(NULL);
    test_folder[0] = 0;
    return 0;
}

static const char *single(const char *preset, const struct single_change *change)
{
    const char *path = in_folder("model.safetensors");
    static const struct single_change none;
    write_single(preset, path, change ? change : &none);
    return path;
}

/* A tensor of the fixture, channels last. */
static struct draft_tensor *input(struct bench *b, const struct draft_safetensors *file, const char *name)
{
    const struct draft_safetensors_entry *e = draft_safetensors_find(file, name);
    assert_non_null(e);
    float *plain = malloc(e->bytes);
    assert_true(draft_safetensors_to_f32(e, plain, &b->err));
    if (e->rank == 3) {
        struct draft_tensor *t = draft_new(&b->g, DRAFT_F32, 3, e->dim);
        memcpy(t->data, plain, e->bytes);
        free(plain);
        return t;
    }
    struct draft_tensor *t = draft_latents_from_nchw(&b->g, plain, e->dim[0], e->dim[2], e->dim[3], e->dim[1]);
    free(plain);
    return t;
}

static void assert_close(struct bench *b, const struct draft_tensor *ours, const struct draft_safetensors *file,
                         const char *name)
{
    if (!ours)
        fail_msg("%s: %s", name, b->g.error.message);
    const struct draft_tensor *wanted = input(b, file, name);
    assert_int_equal(draft_tensor_count(ours), draft_tensor_count(wanted));
    double difference = 0, size = 0;
    for (int64_t i = 0; i < draft_tensor_count(ours); i++) {
        double a = draft_f32(ours)[i], r = draft_f32(wanted)[i];
        difference += (a - r) * (a - r);
        size += r * r;
    }
    if (!(sqrt(difference / size) < 1e-5))
        fail_msg("%s: relative error %g", name, sqrt(difference / size));
}

static void gives_what_diffusers_gives(struct bench *b, const char *preset)
{
    char path[512];
    const char *model = single(preset, NULL);
    link_vocabulary(test_folder);
    snprintf(path, sizeof path, FIXTURES "/single_file/%s.safetensors", preset);
    struct draft_safetensors *file = draft_safetensors_open(path, &b->err);
    assert_non_null(file);
    struct draft_pipeline p;
    if (!draft_pipeline_open(&p, model, b->weights, NULL, &b->err))
        fail_msg("%s", b->err.message);
    b->g.recording = false;

    const struct draft_safetensors_entry *e = draft_safetensors_find(file, "ids");
    struct draft_tensor *ids = draft_new(&b->g, DRAFT_I32, 2, e->dim);
    for (int64_t i = 0; i < draft_tensor_count(ids); i++) {
        int64_t id;
        memcpy(&id, (const char *)e->data + 8 * i, 8);
        ((int32_t *)ids->data)[i] = (int32_t)id;
    }
    struct draft_tensor *hidden = draft_clip_text_forward(&b->g, p.text, ids);
    assert_close(b, hidden, file, "text_hidden");
    struct draft_unet_call call = {.t = draft_scalar(&b->g, 411), .context = draft_slice_batch(&b->g, hidden, 0, 1)};
    assert_close(b, draft_unet_forward(&b->g, p.unet, input(b, file, "sample"), &call), file, "output");
    assert_close(b, draft_vae_decode(&b->g, p.vae, input(b, file, "latent")), file, "decoded");
    draft_pipeline_close(&p);
    draft_safetensors_close(file);
}

static void test_single_file__sd1_gives_what_diffusers_gives(void **state)
{
    gives_what_diffusers_gives(*state, SD1);
}

static void test_single_file__sd2_gives_what_diffusers_gives(void **state)
{
    gives_what_diffusers_gives(*state, SD2);
}

static void names_go_both_ways(const char *preset, enum draft_ldm_part part, const char *prefix, const char *ours)
{
    const char *model = single(preset, NULL);
    struct draft_safetensors *file = draft_safetensors_open(model, NULL);
    struct draft_ldm_shape shape = draft_ldm_shape_of(file);
    struct draft_ldm_map *map = draft_ldm_map(part, &shape);
    json_t *list = single_listing(preset), *row;
    size_t index;
    int seen = 0;
    json_array_foreach (list, index, row) {
        const char *name = json_string_value(json_array_get(row, 0));
        const char *of = json_string_value(json_array_get(json_array_get(row, 2), 0));
        char there[DRAFT_LDM_NAME], back[DRAFT_LDM_NAME];
        if (strncmp(name, prefix, strlen(prefix)) != 0 || strncmp(of, "unused/", 7) == 0)
            continue;
        assert_true(draft_ldm_to_diffusers(map, name, there));
        if (!strstr(name, "in_proj"))
            assert_string_equal(there, of + strlen(ours));
        assert_true(draft_ldm_from_diffusers(map, there, back));
        assert_string_equal(back, name);
        seen++;
    }
    assert_true(seen > 30);
    json_decref(list);
    draft_ldm_map_free(map);
    draft_safetensors_close(file);
}

static void test_single_file__names_go_to_diffusers_and_back(void **state)
{
    (void)state;
    names_go_both_ways(SD1, DRAFT_LDM_UNET, "model.", "unet/");
    names_go_both_ways(SD1, DRAFT_LDM_VAE, "first_stage_model.", "vae/");
    names_go_both_ways(SD1, DRAFT_LDM_TEXT, "cond_stage_model.", "text_encoder/");
    names_go_both_ways(SD2, DRAFT_LDM_UNET, "model.", "unet/");
    names_go_both_ways(SD2, DRAFT_LDM_TEXT, "cond_stage_model.", "text_encoder/");
}

static void open_as(struct bench *b, struct draft_pipeline *p, const char *preset, const char *const *metadata)
{
    const char *model = single(preset, &(struct single_change){.metadata = metadata});
    link_vocabulary(test_folder);
    if (!draft_pipeline_open(p, model, b->weights, NULL, &b->err))
        fail_msg("%s", b->err.message);
}

static void test_single_file__sd1_predicts_epsilon_at_512(void **state)
{
    struct draft_pipeline p;
    open_as(*state, &p, SD1, NULL);
    assert_int_equal(p.scheduler.prediction, DRAFT_PREDICT_EPSILON);
    assert_int_equal(p.scheduler.steps_offset, 1);
    assert_int_equal(p.unet_info.sample_height, 64);
    draft_pipeline_close(&p);
}

static void test_single_file__sd2_predicts_v_at_768_unless_the_file_says_otherwise(void **state)
{
    struct draft_pipeline p;
    open_as(*state, &p, SD2, NULL);
    assert_int_equal(p.scheduler.prediction, DRAFT_PREDICT_V);
    assert_int_equal(p.unet_info.sample_height, 96);
    draft_pipeline_close(&p);
    remove_folder(NULL);
    test_folder[0] = 0;
    open_as(*state, &p, SD2, (const char *const[]){"modelspec.prediction_type", "epsilon", NULL});
    assert_int_equal(p.scheduler.prediction, DRAFT_PREDICT_EPSILON);
    assert_int_equal(p.unet_info.sample_height, 64);
    draft_pipeline_close(&p);
}

static void test_single_file__what_it_says_of_its_noise_is_followed_or_refused(void **state)
{
    struct bench *b = *state;
    struct draft_pipeline p;
    open_as(b, &p, SD1, (const char *const[]){"modelspec.prediction_type", "v", NULL});
    assert_int_equal(p.scheduler.prediction, DRAFT_PREDICT_V);
    assert_int_equal(p.unet_info.sample_height, 64);
    draft_pipeline_close(&p);
    static const char *const marks[] = {"v_pred", "ztsnr"}; /* tensors that mean something by being there */
    for (int i = 0; i < 2; i++) {
        const char *model = single(SD1, &(struct single_change){.add = marks[i]});
        assert_true(draft_pipeline_open(&p, model, b->weights, NULL, &b->err));
        assert_int_equal(p.scheduler.prediction, i == 0 ? DRAFT_PREDICT_V : DRAFT_PREDICT_EPSILON);
        assert_int_equal(p.scheduler.spacing, i == 0 ? DRAFT_SPACING_LEADING : DRAFT_SPACING_TRAILING);
        assert_int_equal(p.scheduler.alphas_cumprod[999] == 0, i);
        draft_pipeline_close(&p);
    }
    const char *const flow[] = {"modelspec.prediction_type", "flow", NULL};
    const char *model = single(SD1, &(struct single_change){.metadata = flow});
    assert_false(draft_pipeline_open(&p, model, b->weights, NULL, &b->err));
    assert_non_null(
        strstr(b->err.message, "\"prediction_type\" is \"flow\", expected epsilon, v_prediction or sample"));
}

static void test_single_file__a_scheduler_beside_it_decides(void **state)
{
    struct bench *b = *state;
    struct draft_pipeline p;
    FILE *json = fopen(in_folder("scheduler_config.json"), "w");
    fputs("{\"_class_name\": \"DDIMScheduler\", \"prediction_type\": \"epsilon\", \"steps_offset\": 0}", json);
    fclose(json);
    open_as(b, &p, SD2, NULL);
    assert_int_equal(p.scheduler.prediction, DRAFT_PREDICT_EPSILON);
    assert_int_equal(p.scheduler.steps_offset, 0);
    draft_pipeline_close(&p);
}

static void test_single_file__sd2_pads_a_bare_vocabulary_with_an_exclamation_mark(void **state)
{
    struct bench *b = *state;
    const char *model = single(SD2, NULL);
    assert_int_equal(symlink(FIXTURES "/era15/tokenizer/vocab.json", in_folder("vocab.json")), 0);
    assert_int_equal(symlink(FIXTURES "/era15/tokenizer/merges.txt", in_folder("merges.txt")), 0);
    struct draft_pipeline p;
    if (!draft_pipeline_open(&p, model, b->weights, NULL, &b->err))
        fail_msg("%s", b->err.message);
    int32_t ids[8];
    assert_true(draft_tokenize(p.tokenizer, "!", 8, ids, NULL, &b->err));
    assert_int_equal(ids[2], draft_tokenizer_end_token(p.tokenizer));
    assert_int_equal(ids[3], 0); /* "!" is the first token of every CLIP vocabulary */
    assert_int_equal(ids[7], 0);
    draft_pipeline_close(&p);
}

/* --- Refusals ----------------------------------------------------------------------------------------------------- */

static void refused(struct bench *b, const char *model, const char *words)
{
    struct draft_pipeline p;
    b->err = (struct draft_error){0};
    if (draft_pipeline_open(&p, model, b->weights, NULL, &b->err))
        fail_msg("it was accepted; expected \"%s\"", words);
    if (!strstr(b->err.message, words))
        fail_msg("the refusal says\n    %s\nwithout \"%s\"", b->err.message, words);
    b->err = (struct draft_error){0};
}

static void test_single_file__without_a_vocabulary_says_where_to_get_one(void **state)
{
    refused(*state, single(SD1, NULL),
            "needs CLIP's vocabulary, which no single file holds: put the folder tokenizer/");
}

static void test_single_file__pickles_are_refused_with_how_to_convert(void **state)
{
    FILE *file = fopen(in_folder("model.ckpt"), "w");
    fclose(file);
    refused(*state, in_folder("model.ckpt"), "is a pickle, which is not read because it can run code; convert it");
    file = fopen(in_folder("renamed.safetensors"), "w");
    fwrite("PK\3\4archive/data.pkl", 1, 20, file);
    fclose(file);
    refused(*state, in_folder("renamed.safetensors"), "s.save_file(");
}

static void test_single_file__a_folder_with_only_a_pickle_is_refused_with_how_to_convert(void **state)
{
    char command[1024];
    snprintf(command, sizeof command,
             "cp -r '" FIXTURES "/era15' '%s' && cd '%s/unet' && rm -f *.safetensors && "
             ": > diffusion_pytorch_model.bin",
             in_folder("pickled"), in_folder("pickled"));
    assert_int_equal(system(command), 0);
    refused(*state, in_folder("pickled"),
            "diffusion_pytorch_model.bin is a pickle, which is not read because it can run code; convert the model");
}

static void test_single_file__what_is_no_whole_model_is_named(void **state)
{
    static const struct {
        const char *tensor, *words;
    } cases[] = {
        {"conditioner.embedders.0.x", "is an SDXL checkpoint"},
        {"control_model.x", "is a ControlNet"},
        {"lora_unet_mid_block_x.lora_down.weight", "is a LoRA, not a model"},
        {"down_blocks.0.resnets.0.x", "is the UNet of a diffusers folder"},
        {"something", "is no Stable Diffusion checkpoint"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float values[3] = {0};
        struct draft_safetensors_item item = {.name = cases[i].tensor, .rank = 1, .dim = {3}, .data = values};
        assert_true(draft_safetensors_write(in_folder("x.safetensors"), &item, 1, NULL, NULL));
        refused(*state, in_folder("x.safetensors"), cases[i].words);
    }
}

static void test_single_file__missing_and_surplus_tensors_are_named(void **state)
{
    single(SD1, NULL);
    link_vocabulary(test_folder);
    refused(*state, single(SD1, &(struct single_change){.leave_out = "first_stage_model."}), "holds no VAE");
    refused(*state, single(SD1, &(struct single_change){.leave_out = "cond_stage_model."}), "holds no text encoder");
    refused(*state, single(SD1, &(struct single_change){.leave_out = "model.diffusion_model."}), "holds no UNet");
    refused(*state, single(SD1, &(struct single_change){.leave_out = "model.diffusion_model.middle_block.1.norm.bias"}),
            "no tensor mid_block.attentions.0.norm.bias");
    refused(*state, single(SD1, &(struct single_change){.add = "model.diffusion_model.label_emb.0.0.weight"}),
            "model.diffusion_model.label_emb.0.0.weight [3] is not part of this model");
    refused(*state, single(SD1, &(struct single_change){.add = "model.diffusion_model.input_blocks.7.0.in_layers.0.x"}),
            "down_blocks.2.resnets.0.norm1.x [3] is not part of this model");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_single_file__sd1_gives_what_diffusers_gives),
        TEST(test_single_file__sd2_gives_what_diffusers_gives),
        TEST(test_single_file__names_go_to_diffusers_and_back),
        TEST(test_single_file__sd1_predicts_epsilon_at_512),
        TEST(test_single_file__sd2_predicts_v_at_768_unless_the_file_says_otherwise),
        TEST(test_single_file__what_it_says_of_its_noise_is_followed_or_refused),
        TEST(test_single_file__a_scheduler_beside_it_decides),
        TEST(test_single_file__sd2_pads_a_bare_vocabulary_with_an_exclamation_mark),
        TEST(test_single_file__without_a_vocabulary_says_where_to_get_one),
        TEST(test_single_file__pickles_are_refused_with_how_to_convert),
        TEST(test_single_file__a_folder_with_only_a_pickle_is_refused_with_how_to_convert),
        TEST(test_single_file__what_is_no_whole_model_is_named),
        TEST(test_single_file__missing_and_surplus_tensors_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
