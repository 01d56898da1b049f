/*
 * A model folder of the fixtures with one thing changed, in a temporary folder: a key of config.json or a tensor of the
 * weights. What opening it says is compared with the words it must hold.
 */
#ifndef DRAFT_TEST_MODEL_CASE_H
#define DRAFT_TEST_MODEL_CASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "tensor/safetensors.h"

enum { MODEL_MAX_TENSORS = 1024, MODEL_WORDS = 4 };

struct model_case {
    const char *source; /* fixture folder */
    const char *stem;   /* "model" */
    bool (*open)(const char *folder, struct draft_arena *arena, struct draft_error *err);
};

enum model_damage { MODEL_DROP, MODEL_RESHAPE, MODEL_ADD, MODEL_NAN };

/* Writes `config` and leaves the weights as they are (a link), or rewrites them with `tensor` damaged. */
static inline void model_write_config(const char *folder, const json_t *config)
{
    char path[512];
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_int_equal(json_dump_file(config, path, 0), 0);
}

static inline void model_link_weights(const struct model_case *c, const char *folder)
{
    char from[512], to[512];
    snprintf(from, sizeof from, "%s/%s.safetensors", c->source, c->stem);
    snprintf(to, sizeof to, "%s/%s.safetensors", folder, c->stem);
    assert_int_equal(symlink(from, to), 0);
}

static inline void model_write_weights(const struct model_case *c, const char *folder, enum model_damage damage,
                                       const char *tensor)
{
    static struct draft_safetensors_item item[MODEL_MAX_TENSORS];
    char path[512];
    struct draft_error err = {0};
    snprintf(path, sizeof path, "%s/%s.safetensors", c->source, c->stem);
    struct draft_safetensors *file = draft_safetensors_open(path, &err);
    assert_non_null(file);
    int count = 0;
    bool found = damage == MODEL_ADD;
    for (int i = 0; i < draft_safetensors_count(file); i++) {
        const struct draft_safetensors_entry *e = draft_safetensors_at(file, i);
        bool this_one = strcmp(e->name, tensor) == 0;
        found |= this_one;
        if (this_one && damage == MODEL_DROP)
            continue;
        assert_true(count < MODEL_MAX_TENSORS - 1);
        item[count] = (struct draft_safetensors_item){.name = e->name, .rank = e->rank};
        size_t n = 1;
        for (int k = 0; k < e->rank; k++)
            n *= (size_t)(item[count].dim[k] = e->dim[k]);
        if (e->dtype == DRAFT_I64) {
            item[count].dtype = DRAFT_I64;
            item[count].data = memcpy(malloc(e->bytes), e->data, e->bytes);
        } else {
            float *values = malloc(n * sizeof *values);
            assert_true(draft_safetensors_to_f32(e, values, &err));
            if (this_one && damage == MODEL_NAN)
                values[n / 2] = NAN;
            item[count].data = values;
        }
        if (this_one && damage == MODEL_RESHAPE) {
            item[count].rank = 2;
            item[count].dim[0] = 1;
            item[count].dim[1] = (int64_t)n;
        }
        count++;
    }
    if (damage == MODEL_ADD)
        item[count++] =
            (struct draft_safetensors_item){.name = tensor, .rank = 1, .dim = {3}, .data = calloc(3, sizeof(float))};
    assert_true(found);
    snprintf(path, sizeof path, "%s/%s.safetensors", folder, c->stem);
    if (!draft_safetensors_write(path, item, count, NULL, &err))
        fail_msg("%s", err.message);
    for (int i = 0; i < count; i++)
        free((void *)item[i].data);
    draft_safetensors_close(file);
}

static inline json_t *model_config(const struct model_case *c)
{
    char path[512];
    snprintf(path, sizeof path, "%s/config.json", c->source);
    json_t *config = json_load_file(path, 0, NULL);
    assert_non_null(config);
    return config;
}

/* Opens the folder, which must be refused with every one of the words. Removes the folder. */
static inline void model_expect(const struct model_case *c, char *folder, const char *const *words)
{
    struct draft_error err = {0};
    char path[512];
    struct draft_arena *arena = draft_arena_create("test", (size_t)1 << 30, &err);
    assert_non_null(arena);
    if (c->open(folder, arena, &err))
        fail_msg("it was accepted; expected a refusal with \"%s\"", words[0]);
    for (int i = 0; i < MODEL_WORDS && words[i] != NULL; i++)
        if (strstr(err.message, words[i]) == NULL)
            fail_msg("the refusal says\n    %s\nwithout \"%s\"", err.message, words[i]);
    draft_arena_destroy(arena);
    snprintf(path, sizeof path, "%s/config.json", folder);
    unlink(path);
    snprintf(path, sizeof path, "%s/%s.safetensors", folder, c->stem);
    unlink(path);
    rmdir(folder);
}

/* The config with `key` ("part.key" for a nested one) set to JSON text, or removed (NULL), is refused. */
static inline void model_refuses_config(const struct model_case *c, const char *key, const char *value,
                                        const char *const *words)
{
    char folder[] = "/tmp/draft-model-XXXXXX", part[64];
    assert_non_null(mkdtemp(folder));
    json_t *config = model_config(c), *object = config;
    const char *dot = strchr(key, '.');
    if (dot != NULL) {
        snprintf(part, sizeof part, "%.*s", (int)(dot - key), key);
        object = json_object_get(config, part);
        key = dot + 1;
    }
    if (value == NULL)
        json_object_del(object, key);
    else
        json_object_set_new(object, key, json_loads(value, JSON_DECODE_ANY, NULL));
    model_write_config(folder, config);
    json_decref(config);
    model_link_weights(c, folder);
    model_expect(c, folder, words);
}

static inline void model_refuses_weights(const struct model_case *c, enum model_damage damage, const char *tensor,
                                         const char *const *words)
{
    char folder[] = "/tmp/draft-model-XXXXXX";
    assert_non_null(mkdtemp(folder));
    json_t *config = model_config(c);
    model_write_config(folder, config);
    json_decref(config);
    model_write_weights(c, folder, damage, tensor);
    model_expect(c, folder, words);
}

#define WORDS(...) ((const char *const[MODEL_WORDS]){__VA_ARGS__})

#endif
