/*
 * The tiny models of tests/tools/random_model.py, written here as single files and as diffusers folders: fixtures hold
 * their names, shapes and results, the numbers are a function of names and places (values() there, weight() here).
 */
#ifndef TEST_SINGLE_FILE_H
#define TEST_SINGLE_FILE_H

#include <jansson.h>
#include <math.h>
#include <sys/stat.h>

#include "demo_job.h"
#include "models/part.h"
#include "tensor/safetensors.h"

enum { SINGLE_MAX = 2048 };

static inline uint64_t weight_hash(const char *name)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 0x100000001b3u;
    return h;
}

static inline float weight(uint64_t hash, uint64_t i, int rank, int exponent, bool gain)
{
    uint64_t z = hash + i;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    int v = (int)(z >> 40 & 1023) - 512;
    return rank > 1 ? ldexpf((float)v / 512, -exponent) : (float)(v >> 3) / 512 + (gain ? 1 : 0);
}

static inline void fill(const char *name, int rank, const int64_t *dim, float *out, size_t n)
{
    int64_t fan = 1, square = 1;
    for (int i = 1; i < rank; i++)
        fan *= dim[i];
    int exponent = 0;
    for (; square < fan; square *= 4)
        exponent++;
    size_t length = strlen(name);
    bool gain = length > 6 && strcmp(name + length - 6, "weight") == 0;
    uint64_t hash = weight_hash(name);
    for (size_t i = 0; i < n; i++)
        out[i] = weight(hash, i, rank, exponent, gain);
}

static inline json_t *single_listing(const char *preset)
{
    char path[512];
    snprintf(path, sizeof path, FIXTURES "/single_file/%s.json", preset);
    json_t *list = json_load_file(path, 0, NULL);
    assert_non_null(list);
    return list;
}

/* What a test may change in the file. */
struct single_change {
    const char *leave_out; /* tensors whose name begins so */
    const char *add;       /* a tensor [3] of this name */
    const char *const *metadata;
};

static inline void write_single(const char *preset, const char *path, const struct single_change *change)
{
    static struct draft_safetensors_item item[SINGLE_MAX];
    json_t *list = single_listing(preset), *row;
    size_t index;
    int count = 0;
    json_array_foreach (list, index, row) {
        const char *name = json_string_value(json_array_get(row, 0));
        json_t *shape = json_array_get(row, 1), *of = json_array_get(row, 2);
        if (change->leave_out && strncmp(name, change->leave_out, strlen(change->leave_out)) == 0)
            continue;
        struct draft_safetensors_item *t = &item[count++];
        *t = (struct draft_safetensors_item){.name = name, .dtype = DRAFT_F16, .rank = (int)json_array_size(shape)};
        size_t n = 1, parts = json_array_size(of);
        for (int i = 0; i < t->rank; i++)
            n *= (size_t)(t->dim[i] = json_integer_value(json_array_get(shape, (size_t)i)));
        float *values = malloc(n * sizeof *values);
        for (size_t p = 0; p < parts; p++)
            fill(json_string_value(json_array_get(of, p)), t->rank, t->dim, values + p * (n / parts), n / parts);
        t->data = values;
    }
    if (change->add)
        item[count++] = (struct draft_safetensors_item){
            .name = change->add, .rank = 1, .dim = {3}, .data = calloc(3, sizeof(float))};
    struct draft_error err = {0};
    if (!draft_safetensors_write(path, item, count, change->metadata, &err))
        fail_msg("%s", err.message);
    for (int i = 0; i < count; i++)
        free((void *)(uintptr_t)item[i].data);
    json_decref(list);
}

/* The fixtures' vocabulary beside it; `folder` exists. */
static inline void link_vocabulary(const char *folder)
{
    char path[512];
    snprintf(path, sizeof path, "%s/tokenizer", folder);
    assert_int_equal(symlink(FIXTURES "/era15/tokenizer", path), 0);
}

#endif
