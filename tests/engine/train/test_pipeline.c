/* Model folders as users have them: the same weights in every layout, and parts that do not belong together. */
#include "demo_job.h"

#include <jansson.h>
#include <sys/stat.h>

#include "tensor/safetensors.h"
#include "tensor/weight_source.h"
#include "train/pipeline.h"

#define UNET DEMO "/emoji-sd/unet/diffusion_pytorch_model.safetensors"

static struct draft_arena *arena;
static struct draft_error err;

/* A folder of links to the demo's parts; unet/, text_encoder/ and tokenizer/ are real ones for a test to fill. */
static int make_model(void **state)
{
    (void)state;
    test_folder[0] = 0;
    err = (struct draft_error){0};
    arena = draft_arena_create("engine", (size_t)1 << 30, NULL);
    static const char *const linked[] = {"vae", "scheduler", "unet/config.json", "text_encoder/config.json",
                                         "text_encoder/model.safetensors"};
    for (int i = 0; i < 3; i++)
        assert_int_equal(mkdir(in_folder((const char *[]){"unet", "text_encoder", "tokenizer"}[i]), 0700), 0);
    for (size_t i = 0; i < sizeof linked / sizeof *linked; i++) {
        char demo[512];
        snprintf(demo, sizeof demo, DEMO "/emoji-sd/%s", linked[i]);
        assert_int_equal(symlink(demo, in_folder(linked[i])), 0);
    }
    return 0;
}

static int remove_model(void **state)
{
    draft_arena_destroy(arena);
    return remove_folder(state);
}

static void give(const char *from, const char *name)
{
    unlink(in_folder(name));
    assert_int_equal(symlink(from, in_folder(name)), 0);
}

static void give_tokenizer(void)
{
    give(DEMO "/emoji-sd/tokenizer/vocab.json", "tokenizer/vocab.json");
    give(DEMO "/emoji-sd/tokenizer/merges.txt", "tokenizer/merges.txt");
    give(DEMO "/emoji-sd/tokenizer/tokenizer_config.json", "tokenizer/tokenizer_config.json");
}

/* Every `of`th tensor of the demo's UNet, beginning with the `first`, in the type it is stored in. With `channels`, as
 * many of the latents' go into conv_in.weight. */
static void write_unet(const char *name, int first, int of, int64_t channels)
{
    enum { MAX = 1024 };
    static struct draft_safetensors_item item[MAX];
    struct draft_safetensors *file = draft_safetensors_open(UNET, &err);
    int count = 0;
    for (int i = first; i < draft_safetensors_count(file); i += of) {
        const struct draft_safetensors_entry *e = draft_safetensors_at(file, i);
        size_t n = e->bytes / draft_dtype_size(e->dtype);
        bool widened = channels > 0 && strcmp(e->name, "conv_in.weight") == 0;
        float *values = calloc(widened ? n * (size_t)channels : n, sizeof *values);
        assert_true(count < MAX && draft_safetensors_to_f32(e, values, &err));
        item[count] = (struct draft_safetensors_item){e->name, e->dtype, e->rank, {0}, values};
        memcpy(item[count].dim, e->dim, (size_t)e->rank * sizeof *e->dim);
        if (widened)
            item[count].dim[1] = channels;
        count++;
    }
    if (!draft_safetensors_write(in_folder(name), item, count, NULL, &err))
        fail_msg("%s", err.message);
    for (int i = 0; i < count; i++)
        free((void *)(uintptr_t)item[i].data);
    draft_safetensors_close(file);
}

static void write_json(const char *name, json_t *json)
{
    unlink(in_folder(name));
    assert_int_equal(json_dump_file(json, in_folder(name), 0), 0);
    json_decref(json);
}

/* An index that puts every tensor where write_unet(..., i, of) has put it. */
static void write_index(const char *name, const char *shard_format, int of)
{
    json_t *map = json_object();
    struct draft_safetensors *file = draft_safetensors_open(UNET, &err);
    for (int i = 0; i < draft_safetensors_count(file); i++) {
        char shard[96];
        snprintf(shard, sizeof shard, shard_format, i % of + 1);
        json_object_set_new(map, draft_safetensors_at(file, i)->name, json_string(shard));
    }
    draft_safetensors_close(file);
    write_json(name, json_pack("{s:{s:i}, s:o}", "metadata", "total_size", 1, "weight_map", map));
}

struct total {
    uint64_t hash;
    int tensors;
};

static void add_weight(void *context, struct draft_tensor *weight)
{
    struct total *t = context;
    assert_true(draft_weight_materialize(weight, NULL));
    const unsigned char *bytes = weight->data;
    size_t n = (size_t)draft_tensor_count(weight) * sizeof(float);
    for (size_t i = 0; i < n; i++)
        t->hash = (t->hash ^ bytes[i]) * 0x100000001b3u;
    t->tensors++;
}

static struct total total_of(const char *model)
{
    struct draft_pipeline p;
    struct total t = {0};
    if (!draft_pipeline_open(&p, model, arena, NULL, &err))
        fail_msg("%s", err.message);
    draft_unet_each_weight(p.unet, add_weight, &t);
    draft_pipeline_close(&p);
    return t;
}

static void test_pipeline__every_layout_gives_the_same_weights(void **state)
{
    (void)state;
    struct total whole = total_of(DEMO "/emoji-sd"), found;
    assert_true(whole.tensors > 50);
    give_tokenizer();
    static const struct {
        const char *index, *shard; /* no index: one file */
    } layouts[] = {
        {NULL, "diffusion_pytorch_model.fp16.safetensors"},
        {"unet/diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model-0000%d-of-00003.safetensors"},
        {"unet/diffusion_pytorch_model.safetensors.index.fp16.json",
         "diffusion_pytorch_model.fp16-0000%d-of-00003.safetensors"},
    };
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        int shards = layouts[i].index ? 3 : 1;
        char command[300];
        snprintf(command, sizeof command, "rm -f '%s'/unet/diff*", test_folder);
        assert_int_equal(system(command), 0);
        for (int k = 0; k < shards; k++) {
            char shard[96], name[128];
            snprintf(shard, sizeof shard, layouts[i].shard, k + 1);
            snprintf(name, sizeof name, "unet/%s", shard);
            write_unet(name, k, shards, 0);
        }
        if (layouts[i].index)
            write_index(layouts[i].index, layouts[i].shard, shards);
        found = total_of(test_folder);
        assert_int_equal(found.tensors, whole.tensors);
        assert_true(found.hash == whole.hash);
    }
}

static void refused(const char *words)
{
    struct draft_pipeline p;
    err = (struct draft_error){0};
    if (draft_pipeline_open(&p, test_folder, arena, NULL, &err))
        fail_msg("it was accepted; expected \"%s\"", words);
    if (!strstr(err.message, words) || !strstr(err.message, test_folder))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
}

static void test_pipeline__shards_that_are_missing_or_elsewhere_are_named(void **state)
{
    (void)state;
    give_tokenizer();
    write_unet("unet/one.safetensors", 0, 2, 0);
    write_index("unet/diffusion_pytorch_model.safetensors.index.json", "one.safetensors", 1);
    refused("puts a tensor into one.safetensors that is not there");
    write_index("unet/diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model-0000%d.safetensors", 2);
    refused("cannot open");
    write_index("unet/diffusion_pytorch_model.safetensors.index.json", "../unet/one.safetensors", 1);
    refused("no plain name in the same folder");
    unlink(in_folder("unet/diffusion_pytorch_model.safetensors.index.json"));
    refused("has no diffusion_pytorch_model.safetensors");
    give("diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.safetensors"); /* to itself */
    refused("Too many levels of symbolic links");
    give("../../blobs/0123", "unet/diffusion_pytorch_model.safetensors"); /* a cache that was cleared */
    refused("cannot open");
}

static void test_pipeline__parts_of_different_models_are_named(void **state)
{
    (void)state;
    give_tokenizer();
    give(UNET, "unet/diffusion_pytorch_model.safetensors");
    json_t *vocabulary = json_load_file(DEMO "/emoji-sd/tokenizer/vocab.json", 0, NULL);
    json_object_set_new(vocabulary, "lighthouse</w>", json_integer((json_int_t)json_object_size(vocabulary)));
    write_json("tokenizer/vocab.json", vocabulary);
    refused("the tokenizer knows 1019 tokens but the text encoder 1018; the folder mixes parts");
    give_tokenizer();
    total_of(test_folder); /* the folder itself is sound */
    give(FIXTURES "/era15/text_encoder/config.json", "text_encoder/config.json");
    give(FIXTURES "/era15/text_encoder/model.safetensors", "text_encoder/model.safetensors");
    refused("but the UNet expects");
}

static void test_pipeline__other_inputs_than_latents_are_named(void **state)
{
    (void)state;
    static const struct {
        int channels;
        const char *words;
    } rows[] = {{9, "the UNet takes 9 and gives 4, as for inpainting; only plain text-to-image models"},
                {8, "the UNet takes 8 and gives 4, as InstructPix2Pix does"},
                {5, "the UNet takes 5 and gives 4; only plain"}};
    give_tokenizer();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        write_unet("unet/diffusion_pytorch_model.safetensors", 0, 1, rows[i].channels);
        json_t *config = json_load_file(DEMO "/emoji-sd/unet/config.json", 0, NULL);
        json_object_set_new(config, "in_channels", json_integer(rows[i].channels));
        write_json("unet/config.json", config);
        refused(rows[i].words);
    }
    give(DEMO "/emoji-sd/unet/config.json", "unet/config.json");
    refused("conv_in.weight is [64, 5, 3, 3], expected [64, 4, 3, 3]");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_model, remove_model)
    const struct CMUnitTest tests[] = {
        TEST(test_pipeline__every_layout_gives_the_same_weights),
        TEST(test_pipeline__shards_that_are_missing_or_elsewhere_are_named),
        TEST(test_pipeline__parts_of_different_models_are_named),
        TEST(test_pipeline__other_inputs_than_latents_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
