#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "tensor/safetensors.h"
#include "tensor/weight_source.h"
#include "tensor/weights.h"

static char folder[40];
static struct draft_arena *arena;
static struct draft_error err;

static int set_up(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/draft-weights-XXXXXX");
    err = (struct draft_error){0};
    arena = draft_arena_create("engine", 64 << 20, NULL);
    return mkdtemp(folder) == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    char command[80];
    draft_arena_destroy(arena);
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static const char *inside(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_text(const char *name, const char *text)
{
    assert_true(draft_atomic_write_file(inside(name), text, strlen(text), &err));
}

/* A file of F32 tensors [2, 3, 1, 2] counting up from 0. */
static void write_tensors(const char *name, const char *const *names, int count)
{
    static const float values[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    struct draft_safetensors_item items[8];
    for (int i = 0; i < count; i++)
        items[i] = (struct draft_safetensors_item){names[i], DRAFT_F32, 4, {2, 3, 1, 2}, values};
    if (!draft_safetensors_write(inside(name), items, count, NULL, &err))
        fail_msg("%s", err.message);
}

static struct draft_weights *open_sound(void)
{
    struct draft_weights *weights = draft_weights_open(folder, "model", arena, &err);
    if (weights == NULL)
        fail_msg("%s", err.message);
    return weights;
}

static void says(const char *words)
{
    assert_int_not_equal(err.code, DRAFT_OK);
    if (strstr(err.message, words) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
    err = (struct draft_error){0};
}

static const int64_t shape[] = {2, 3, 1, 2};

static void test_weights__takes_tensors_by_key_and_keeps_them_after_close(void **state)
{
    (void)state;
    write_tensors("model.safetensors", (const char *const[]){"a", "b"}, 2);
    struct draft_weights *weights = open_sound();
    assert_true(draft_weights_has(weights, "a"));
    assert_false(draft_weights_has(weights, "c"));
    struct draft_tensor *a = draft_weights_take(weights, "a", 4, shape, &err);
    assert_non_null(draft_weights_take(weights, "b", 4, shape, &err));
    assert_true(draft_weights_finish(weights, NULL, &err));
    draft_weights_close(weights);
    assert_string_equal(a->name, "a");
    assert_int_equal(draft_tensor_count(a), 12);
    assert_true(draft_f32(a)[11] == 11 && !a->needs_grad && a->grad == NULL);
}

static void test_weights__lays_convolutions_out_with_channels_last(void **state)
{
    (void)state;
    write_tensors("model.safetensors", (const char *const[]){"conv.weight"}, 1);
    struct draft_weights *weights = open_sound();
    struct draft_tensor *conv = draft_weights_take_lazy_conv(weights, "conv.weight", 2, 3, 1, 2, &err);
    draft_weights_close(weights); /* the tensor goes on reading the file */
    assert_int_equal(conv->dim[0], 2);
    assert_int_equal(conv->dim[1], 1);
    assert_int_equal(conv->dim[2], 2);
    assert_int_equal(conv->dim[3], 3);
    static const float expected[] = {0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11};
    float values[12];
    assert_null(conv->data);
    assert_true(draft_weight_rows(conv, 0, 1, values, &err) && draft_weight_rows(conv, 1, 1, values + 6, &err));
    assert_memory_equal(values, expected, sizeof expected);
    assert_true(draft_weight_materialize(conv, &err));
    assert_memory_equal(conv->data, expected, sizeof expected);
}

static void test_weights__finds_keys_under_their_old_names(void **state)
{
    (void)state;
    write_tensors("model.safetensors", (const char *const[]){"embeddings.x", "mid.query.weight"}, 2);
    struct draft_weights *weights = open_sound();
    draft_weights_alias(weights, "text_model.", "");
    draft_weights_alias(weights, "mid.to_q.", "mid.query.");
    struct draft_tensor *x = draft_weights_take(weights, "text_model.embeddings.x", 4, shape, &err);
    assert_string_equal(x->name, "text_model.embeddings.x");
    assert_non_null(draft_weights_take(weights, "mid.to_q.weight", 4, shape, &err));
    assert_true(draft_weights_finish(weights, NULL, &err));
    draft_weights_close(weights);
}

static void test_weights__reads_shards_and_the_fp16_variant(void **state)
{
    (void)state;
    write_tensors("model.fp16.safetensors", (const char *const[]){"a"}, 1);
    struct draft_weights *weights = open_sound();
    assert_true(draft_weights_has(weights, "a"));
    draft_weights_close(weights);

    write_tensors("model-1.safetensors", (const char *const[]){"a", "c"}, 2);
    write_tensors("model-2.safetensors", (const char *const[]){"b"}, 1);
    write_text("model.safetensors.index.json",
               "{\"metadata\": {\"total_size\": 144}, \"weight_map\": {\"a\": \"model-1.safetensors\", \"b\": "
               "\"model-2.safetensors\", \"c\": \"model-1.safetensors\"}}");
    weights = open_sound();
    assert_non_null(draft_weights_take(weights, "b", 4, shape, &err));
    assert_non_null(draft_weights_take(weights, "a", 4, shape, &err));
    assert_false(draft_weights_finish(weights, NULL, &err));
    says("model-1.safetensors: c [2, 3, 1, 2] is not part of this model (1 such tensors)");
    assert_null(draft_weights_take(weights, "d", 4, shape, &err));
    says("model.safetensors.index.json: no tensor d, expected one of shape [2, 3, 1, 2]");
    draft_weights_close(weights);
}

/* As diffusers' save_pretrained(variant="fp16", max_shard_size=...) names them. */
static void test_weights__reads_the_fp16_variant_in_shards(void **state)
{
    (void)state;
    write_tensors("model.fp16-00001-of-00002.safetensors", (const char *const[]){"a"}, 1);
    write_tensors("model.fp16-00002-of-00002.safetensors", (const char *const[]){"b"}, 1);
    write_text("model.safetensors.index.fp16.json",
               "{\"metadata\": {}, \"weight_map\": {\"a\": \"model.fp16-00001-of-00002.safetensors\", \"b\": "
               "\"model.fp16-00002-of-00002.safetensors\"}}");
    struct draft_weights *weights = open_sound();
    assert_non_null(draft_weights_take(weights, "a", 4, shape, &err));
    assert_non_null(draft_weights_take(weights, "b", 4, shape, &err));
    assert_true(draft_weights_finish(weights, NULL, &err));
    draft_weights_close(weights);
}

static void test_weights__names_file_key_expected_and_found(void **state)
{
    (void)state;
    const float bad[] = {1, 2, NAN, 4}, worse[] = {1, -INFINITY, 3, 4};
    const int64_t integers[] = {1, 2};
    const struct draft_safetensors_item items[] = {
        {"inf", DRAFT_F16, 1, {4}, worse},
        {"int", DRAFT_I64, 1, {2}, integers},
        {"nan", DRAFT_F32, 2, {2, 2}, bad},
        {"text_model.embeddings.position_ids", DRAFT_I64, 1, {2}, integers},
    };
    assert_true(draft_safetensors_write(inside("model.safetensors"), items, 4, NULL, &err));
    struct draft_weights *weights = open_sound();
    assert_null(draft_weights_take(weights, "nan", 1, (int64_t[]){4}, &err));
    says("model.safetensors: nan is [2, 2], expected [4]");
    assert_null(draft_weights_take(weights, "nan", 2, (int64_t[]){2, 3}, &err));
    says("nan is [2, 2], expected [2, 3]");
    assert_null(draft_weights_take(weights, "nan", 2, (int64_t[]){2, 2}, &err));
    assert_int_equal(err.code, DRAFT_NON_FINITE);
    says("nan holds NaN at place 2, expected finite numbers");
    assert_null(draft_weights_take(weights, "inf", 1, (int64_t[]){4}, &err));
    says("inf holds infinity at place 1");
    assert_null(draft_weights_take(weights, "int", 1, (int64_t[]){2}, &err));
    says("int is stored as I64, expected F32");
    assert_null(draft_weights_take(weights, "gone", 1, (int64_t[]){7}, &err));
    says("model.safetensors: no tensor gone, expected one of shape [7]");
    assert_false(draft_weights_finish(weights, (const char *const[]){"position_ids", NULL}, &err));
    says("(3 such tensors)");
    draft_weights_close(weights);
}

static void test_weights__reports_an_arena_that_is_full(void **state)
{
    (void)state;
    write_tensors("model.safetensors", (const char *const[]){"a"}, 1);
    struct draft_weights *weights = open_sound();
    while (draft_arena_alloc(arena, 1 << 20) != NULL)
        continue;
    while (draft_arena_alloc(arena, 64) != NULL)
        continue;
    assert_null(draft_weights_take(weights, "a", 4, shape, &err));
    assert_int_equal(err.code, DRAFT_OUT_OF_MEMORY);
    says("model.safetensors: a: out of engine memory");
    draft_weights_close(weights);
}

static void test_weights__says_what_to_do_about_pickles_and_empty_folders(void **state)
{
    (void)state;
    assert_null(draft_weights_open(folder, "model", arena, &err));
    assert_int_equal(err.code, DRAFT_NOT_FOUND);
    says("has no model.safetensors, model.safetensors.index.json or model.fp16.safetensors");
    write_text("pytorch_model.bin", "x");
    assert_null(draft_weights_open(folder, "model", arena, &err));
    says("pytorch_model.bin is a pickle, which is not read because it can run code; convert the model where you trust "
         "it: python3 -c");
    assert_null(draft_weights_open("/nonexistent", "model", arena, &err));
    assert_int_equal(err.code, DRAFT_NOT_FOUND);
    says("cannot open the model folder /nonexistent");
}

static void test_weights__refuses_an_index_that_lies_or_leads_away(void **state)
{
    (void)state;
    write_tensors("one.safetensors", (const char *const[]){"a"}, 1);
    write_tensors("two.safetensors", (const char *const[]){"a"}, 1);
    static const struct {
        const char *index, *words;
    } rows[] = {
        {"{}", "has no weight_map"},
        {"{\"weight_map\": []}", "\"weight_map\" is [], expected an object"},
        {"{\"weight_map\": {\"a\": 3}}", "expected a string"},
        {"{\"weight_map\": {\"a\": \"../one.safetensors\"}}", "no plain name in the same folder"},
        {"{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "no plain name in the same folder"},
        {"{\"weight_map\": {\"a\": \"..\"}}", "no plain name in the same folder"},
        {"{\"weight_map\": {\"a\": \"\"}}", "no plain name in the same folder"},
        {"{\"weight_map\": {\"a\": \"x\\ny\"}}", "no plain name in the same folder"},
        {"{\"weight_map\": {\"a\": \"gone.safetensors\"}}", "cannot open"},
        {"{\"weight_map\": {\"b\": \"one.safetensors\"}}", "puts a tensor into one.safetensors that is not there"},
        {"{\"weight_map\": {\"a\": \"one.safetensors\", \"a \": \"two.safetensors\"}}", "puts a tensor into two"},
        {"not json", "is not JSON"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        write_text("model.safetensors.index.json", rows[i].index);
        assert_null(draft_weights_open(folder, "model", arena, &err));
        assert_non_null(strstr(err.message, "model.safetensors.index.json"));
        says(rows[i].words);
    }
    write_tensors("two.safetensors", (const char *const[]){"a", "b"}, 2);
    write_text("model.safetensors.index.json",
               "{\"weight_map\": {\"a\": \"one.safetensors\", \"b\": \"two.safetensors\"}}");
    assert_null(draft_weights_open(folder, "model", arena, &err));
    says("a is in two of the files");
}

static void test_weights__opens_the_demo_models(void **state)
{
    (void)state;
    static const struct {
        const char *folder, *stem;
    } rows[] = {{DEMO "/emoji-sd/unet", "diffusion_pytorch_model"},
                {DEMO "/emoji-sd/text_encoder", "model"},
                {DEMO "/emoji-clip", "model"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct draft_weights *weights = draft_weights_open(rows[i].folder, rows[i].stem, arena, &err);
        if (weights == NULL)
            fail_msg("%s", err.message);
        draft_weights_close(weights);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_weights__takes_tensors_by_key_and_keeps_them_after_close),
        TEST(test_weights__lays_convolutions_out_with_channels_last),
        TEST(test_weights__finds_keys_under_their_old_names),
        TEST(test_weights__reads_shards_and_the_fp16_variant),
        TEST(test_weights__reads_the_fp16_variant_in_shards),
        TEST(test_weights__names_file_key_expected_and_found),
        TEST(test_weights__reports_an_arena_that_is_full),
        TEST(test_weights__says_what_to_do_about_pickles_and_empty_folders),
        TEST(test_weights__refuses_an_index_that_lies_or_leads_away),
        TEST(test_weights__opens_the_demo_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
