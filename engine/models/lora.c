#include "models/lora.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/rng.h"

/* Entries never move, since layers point at their lora: room for every linear of any UNet this engine reads
 * (SD 1.x has 160, the largest published ones about 800), untouched pages of which cost nothing. */
enum { MAX_ENTRIES = 4096 };

struct draft_adapter *draft_adapter_create(struct draft_arena *arena, int rank, float alpha, uint64_t seed,
                                           struct draft_error *err)
{
    if (rank < 1 || rank > 4096) {
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "LoRA rank must be 1 to 4096, not %d", rank);
        return NULL;
    }
    if (!isfinite(alpha)) {
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "LoRA alpha must be a finite number");
        return NULL;
    }
    size_t bytes = sizeof(struct draft_adapter);
    struct draft_adapter *adapter = draft_arena_alloc(arena, bytes);
    struct draft_adapter_entry *entry = NULL;
    if (adapter != NULL) {
        bytes = MAX_ENTRIES * sizeof *entry;
        entry = draft_arena_alloc(arena, bytes);
    }
    if (entry == NULL) {
        draft_arena_fail(arena, bytes, err);
        return NULL;
    }
    *adapter = (struct draft_adapter){
        .capacity = MAX_ENTRIES,
        .entry = entry,
        .rank = rank,
        .alpha = alpha,
        .on = true,
        .arena = arena,
        .seed = seed,
    };
    draft_adapter_set_strength(adapter, 1.0f);
    return adapter;
}

static struct draft_tensor *parameter(struct draft_adapter *adapter, const char *module, const char *half, int64_t rows,
                                      int64_t columns, struct draft_error *err)
{
    char name[320];
    snprintf(name, sizeof name, "%s.lora.%s.weight", module, half);
    size_t bytes = (size_t)(rows * columns) * sizeof(float);
    struct draft_tensor *t = draft_arena_alloc(adapter->arena, sizeof *t);
    void *data = draft_arena_alloc(adapter->arena, bytes);
    char *key = draft_arena_strdup(adapter->arena, name);
    if (t == NULL || data == NULL || key == NULL) {
        draft_arena_fail(adapter->arena, bytes, err);
        return NULL;
    }
    *t = (struct draft_tensor){
        .dtype = DRAFT_F32, .rank = 2, .dim = {rows, columns}, .data = data, .name = key, .needs_grad = true};
    memset(data, 0, bytes);
    return t;
}

const struct draft_lora *draft_adapter_add(struct draft_adapter *adapter, const char *module, int64_t in, int64_t out,
                                           struct draft_error *err)
{
    if (adapter->count == adapter->capacity) {
        draft_fail(err, DRAFT_INVALID_ARGUMENT, "the model has more than %d linear layers to adapt", adapter->capacity);
        return NULL;
    }
    struct draft_tensor *down = parameter(adapter, module, "down", adapter->rank, in, err);
    struct draft_tensor *up = down != NULL ? parameter(adapter, module, "up", out, adapter->rank, err) : NULL;
    char *name = up != NULL ? draft_arena_strdup(adapter->arena, module) : NULL;
    if (name == NULL) {
        draft_arena_fail(adapter->arena, strlen(module) + 1, err);
        return NULL;
    }
    /* xavier-normal (Glorot & Bengio 2010): std = sqrt(2 / (fan_in + fan_out)) */
    size_t n = (size_t)draft_tensor_count(down);
    float *value = draft_f32(down), std = (float)sqrt(2.0 / (double)(in + adapter->rank));
    draft_philox_randn(adapter->seed, DRAFT_PURPOSE_LORA_INIT, 0, (uint64_t)adapter->count, value, n);
    for (size_t i = 0; i < n; i++)
        value[i] *= std;

    struct draft_adapter_entry *entry = &adapter->entry[adapter->count++];
    *entry = (struct draft_adapter_entry){
        .module = name, .lora = {down, up, &adapter->scale, &adapter->on}, .in = in, .out = out};
    return &entry->lora;
}

void draft_adapter_set_strength(struct draft_adapter *adapter, float strength)
{
    adapter->strength = strength;
    adapter->scale = adapter->alpha / (float)adapter->rank * strength;
}

size_t draft_adapter_parameters(const struct draft_adapter *adapter)
{
    size_t n = 0;
    for (int i = 0; i < adapter->count; i++)
        n += (size_t)adapter->rank * (size_t)(adapter->entry[i].in + adapter->entry[i].out);
    return n;
}
