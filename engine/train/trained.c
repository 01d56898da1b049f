#include "train/trained.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/weight_source.h"

static bool make_room(struct draft_trained *trained, const char *group, int count, struct draft_arena *arena,
                      struct draft_error *err)
{
    size_t bytes = ((size_t)count + 1) * sizeof(void *);
    *trained = (struct draft_trained){
        .group = group, .tensor = draft_arena_alloc(arena, bytes), .name = draft_arena_alloc(arena, bytes)};
    return (trained->tensor && trained->name) || draft_arena_fail(arena, bytes, err);
}

bool draft_trained_adapter(struct draft_trained *trained, struct draft_adapter *adapter, struct draft_arena *arena,
                           struct draft_error *err)
{
    if (!make_room(trained, "lora", 2 * adapter->count, arena, err))
        return false;
    for (int i = 0; i < adapter->count; i++) {
        const struct draft_adapter_entry *entry = &adapter->entry[i];
        struct draft_tensor *const half[2] = {entry->lora.down, entry->lora.up};
        for (int up = 0; up < 2; up++) {
            char name[320];
            snprintf(name, sizeof name, "%s.%s", entry->module, up ? "up" : "down");
            trained->tensor[trained->count] = half[up];
            trained->name[trained->count] = draft_arena_strdup(arena, name);
            if (!trained->name[trained->count])
                return draft_arena_fail(arena, strlen(name) + 1, err);
            trained->count++;
        }
    }
    return true;
}

static void count_weight(void *context, struct draft_tensor *weight)
{
    (void)weight;
    ++*(int *)context;
}

static void add_weight(void *context, struct draft_tensor *weight)
{
    struct draft_trained *trained = context;
    trained->tensor[trained->count] = weight;
    trained->name[trained->count++] = weight->name;
}

bool draft_trained_unet(struct draft_trained *trained, struct draft_unet *unet, struct draft_arena *arena,
                        struct draft_error *err)
{
    int count = 0;
    draft_unet_each_weight(unet, count_weight, &count);
    if (!make_room(trained, "unet", count, arena, err))
        return false;
    draft_unet_each_weight(unet, add_weight, trained);
    return true;
}

int64_t draft_trained_numbers(const struct draft_trained *trained)
{
    int64_t n = 0;
    for (int i = 0; i < trained->count; i++)
        n += draft_tensor_count(trained->tensor[i]);
    return n;
}

/* The numbers behind the last one of an array are zero as well: one call of the backend works on all of them. */
static float *zeros_of(const struct draft_trained *trained, int64_t n, struct draft_arena *arena,
                       struct draft_error *err)
{
    size_t bytes = (size_t)n * sizeof(float), before;
    if (!trained->backend)
        return draft_arena_zeros(arena, bytes);
    before = draft_arena_live(trained->values);
    float *zeros = draft_arena_alloc(trained->values, bytes);
    int64_t whole = (int64_t)((draft_arena_live(trained->values) - before) / sizeof(float));
    return zeros && draft_backend_fill(trained->backend, zeros, whole, 0, err) ? zeros : NULL;
}

float **draft_trained_zeros(const struct draft_trained *trained, struct draft_arena *arena, struct draft_error *err)
{
    size_t bytes = ((size_t)trained->count + 1) * sizeof(float *);
    float **zeros = draft_arena_alloc(arena, bytes);
    for (int i = 0; zeros && i < trained->count; i++) {
        int64_t n = draft_tensor_count(trained->tensor[i]);
        bytes = (size_t)n * sizeof(float);
        if (!(zeros[i] = zeros_of(trained, n, arena, err)))
            zeros = NULL;
    }
    if (!zeros)
        draft_arena_fail(trained->backend ? trained->values : arena, bytes, err);
    return zeros;
}

/* From the host's memory or the file to new memory of the device. */
static bool send(struct draft_trained *trained, struct draft_tensor *p, struct draft_error *err)
{
    int64_t n = draft_tensor_count(p);
    size_t bytes = (size_t)n * sizeof(float);
    float *to = zeros_of(trained, n, NULL, err);
    if (!to)
        return draft_arena_fail(trained->values, bytes, err);
    float *values = malloc(bytes + 1);
    if (!values)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory to copy %s to the device", p->name);
    bool ok = n == 0 || (draft_weight_rows(p, 0, p->dim[0], values, err) && draft_weight_unchanged(p, err) &&
                         draft_backend_upload(trained->backend, to, values, bytes, err));
    free(values);
    if (ok) {
        p->data = to;
        p->source = NULL;
    }
    return ok;
}

bool draft_trained_move(struct draft_trained *trained, struct draft_backend *backend, struct draft_arena *values,
                        struct draft_error *err)
{
    bool ok = true, on_host = draft_backend_on_host(backend);
    trained->backend = on_host ? NULL : backend;
    trained->values = on_host ? NULL : values;
    trained->threads = on_host ? backend : NULL;
    size_t before = on_host ? 0 : draft_arena_live(values);
    for (int i = 0; ok && i < trained->count; i++)
        ok = on_host ? draft_weight_materialize(trained->tensor[i], err) : send(trained, trained->tensor[i], err);
    trained->numbers = on_host ? 0 : (int64_t)((draft_arena_live(values) - before) / sizeof(float));
    return ok;
}
