/* The sum of LoRA files: what up x down gives must be the weighted sum of what the files give. */
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

#include "tensor/lora_file.h"
#include "tensor/lora_merge.h"

#define LINEAR "down_blocks_0_attentions_0_to_q"
#define CONV   "down_blocks_0_resnets_0_conv1"
#define TEXT   "text_model_encoder_layers_0_mlp_fc1"

static char folder[40];
static struct draft_error err;

static int set_up(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/draft-merge-XXXXXX");
    err = (struct draft_error){0};
    return mkdtemp(folder) == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    char command[80];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static const char *inside(const char *name)
{
    static char path[4][128];
    static int next;
    char *out = path[next++ % 4];
    snprintf(out, 128, "%s/%s", folder, name);
    return out;
}

struct made {
    struct draft_safetensors_item item[12];
    float value[12][512];
    int count;
};

static void put(struct made *m, const char *name, float seed, int rank, int64_t a, int64_t b, int64_t c, int64_t d)
{
    float *value = m->value[m->count];
    for (int64_t i = 0; i < a * b * c * d; i++)
        value[i] = sinf(seed + (float)i);
    m->item[m->count++] =
        (struct draft_safetensors_item){.name = name, .rank = rank, .dim = {a, b, c, d}, .data = value};
}

static const char *write_made(struct made *m, const char *name)
{
    const char *path = inside(name);
    if (!draft_safetensors_write(path, m->item, m->count, NULL, &err))
        fail_msg("%s", err.message);
    return path;
}

/* Rank 2, alpha 1, kohya's names; a linear layer, a convolution. */
static const char *first_file(void)
{
    static struct made m;
    m.count = 0;
    put(&m, "lora_unet_" LINEAR ".lora_down.weight", 1, 2, 2, 5, 1, 1);
    put(&m, "lora_unet_" LINEAR ".lora_up.weight", 2, 2, 4, 2, 1, 1);
    put(&m, "lora_unet_" LINEAR ".alpha", 0, 0, 1, 1, 1, 1);
    m.value[2][0] = 1;
    put(&m, "lora_unet_" CONV ".lora_down.weight", 3, 4, 2, 3, 3, 3);
    put(&m, "lora_unet_" CONV ".lora_up.weight", 4, 4, 4, 2, 1, 1);
    return write_made(&m, "first.safetensors");
}

/* Rank 3, PEFT's names; the linear layer, the text encoder. */
static const char *second_file(void)
{
    static struct made m;
    m.count = 0;
    put(&m, "unet.down_blocks.0.attentions.0.to_q.lora_A.weight", 5, 2, 3, 5, 1, 1);
    put(&m, "unet.down_blocks.0.attentions.0.to_q.lora_B.weight", 6, 2, 4, 3, 1, 1);
    put(&m, "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight", 7, 2, 3, 5, 1, 1);
    put(&m, "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_B.weight", 8, 2, 4, 3, 1, 1);
    return write_made(&m, "second.safetensors");
}

/* Adds weight * scale * up x down of a layer, [4, n], to out; nothing when the file does not have it. */
static void add_effect(const char *path, const char *module, double weight, double *out, int64_t n)
{
    struct draft_lora_file *file = draft_lora_file_open(path, &err);
    if (!file)
        fail_msg("%s", err.message);
    for (int i = 0; i < draft_lora_file_count(file); i++) {
        const struct draft_lora_pair *pair = draft_lora_file_at(file, i);
        float *down, *up;
        if (strcmp(pair->module, module) != 0)
            continue;
        assert_true(draft_lora_pair_read(pair, &down, &up, &err));
        for (int64_t o = 0; o < 4; o++)
            for (int64_t r = 0; r < pair->rank; r++)
                for (int64_t k = 0; k < n; k++)
                    out[o * n + k] += weight * pair->scale * up[o * pair->rank + r] * down[r * n + k];
        free(down);
        free(up);
    }
    draft_lora_file_close(file);
}

static void test_lora_merge__is_the_weighted_sum(void **state)
{
    (void)state;
    static const struct {
        const char *module;
        int64_t n;
    } layers[] = {{LINEAR, 5}, {CONV, 27}, {TEXT, 5}};
    const char *paths[] = {first_file(), second_file()}, *out = inside("sum.safetensors");
    const double weights[] = {0.5, -2};
    for (int f32 = 0; f32 < 2; f32++) {
        if (!draft_lora_merge_files(paths, weights, 2, out, f32, &err))
            fail_msg("%s", err.message);
        for (size_t l = 0; l < sizeof layers / sizeof *layers; l++) {
            double wanted[4 * 27] = {0}, found[4 * 27] = {0};
            for (int i = 0; i < 2; i++)
                add_effect(paths[i], layers[l].module, weights[i], wanted, layers[l].n);
            add_effect(out, layers[l].module, 1, found, layers[l].n);
            for (int64_t k = 0; k < 4 * layers[l].n; k++)
                assert_true(fabs(found[k] - wanted[k]) < (f32 ? 1e-6 : 1e-2) && (k > 0 || wanted[k] != 0));
        }
    }
    struct draft_safetensors *file = draft_safetensors_open(out, &err);
    assert_string_equal(draft_safetensors_metadata(file, "draftd.merged"),
                        "0.5*first.safetensors + -2*second.safetensors");
    const struct draft_safetensors_entry *e = draft_safetensors_find(file, "lora_unet_" LINEAR ".lora_down.weight");
    assert_int_equal(e->dim[0], 5); /* 2 + 3 */
    draft_safetensors_close(file);
}

static void test_lora_merge__half_of_a_file_and_half_of_itself_is_the_file(void **state)
{
    (void)state;
    const char *path = first_file(), *out = inside("sum.safetensors");
    assert_true(draft_lora_merge_files((const char *[]){path, path}, (double[]){0.5, 0.5}, 2, out, true, &err));
    double wanted[20] = {0}, found[20] = {0};
    add_effect(path, LINEAR, 1, wanted, 5);
    add_effect(out, LINEAR, 1, found, 5);
    for (int k = 0; k < 20; k++)
        assert_true(fabs(found[k] - wanted[k]) < 1e-6);
}

static void refused(const char *const *paths, const double *weights, int count, bool f32, const char *words)
{
    const char *out = inside("sum.safetensors");
    err = (struct draft_error){0};
    assert_false(draft_lora_merge_files(paths, weights, count, out, f32, &err));
    if (!strstr(err.message, words))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
    assert_int_not_equal(access(out, F_OK), 0); /* whole or not at all */
    err = (struct draft_error){0};
}

static void test_lora_merge__what_does_not_fit_is_refused(void **state)
{
    (void)state;
    const double ones[DRAFT_LORA_MERGE_MAX + 1] = {1, 1}, large[] = {1e9};
    static struct made m;
    m.count = 0;
    put(&m, "lora_unet_" LINEAR ".lora_down.weight", 1, 2, 2, 6, 1, 1);
    put(&m, "lora_unet_" LINEAR ".lora_up.weight", 2, 2, 4, 2, 1, 1);
    const char *other = write_made(&m, "other.safetensors"), *first = first_file();
    refused((const char *[]){first, other}, ones, 2, false, "have different shapes for " LINEAR);
    refused((const char *[]){first}, large, 1, false, "too large for 16-bit floats; write F32 instead");
    refused(NULL, ones, 0, false, "0 files are named");
    refused((const char *[]){"/nowhere/a.safetensors"}, ones, 1, false, "/nowhere/a.safetensors");
    refused((const char *[]){"/nowhere/a.ckpt"}, ones, 1, false, "is a pickle");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_lora_merge__is_the_weighted_sum),
        TEST(test_lora_merge__half_of_a_file_and_half_of_itself_is_the_file),
        TEST(test_lora_merge__what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
