#include "tensor/weight_source.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* [i, taps] as in the file -> [taps, i] */
static void turn(const float *filter, int64_t in, int64_t taps, float *out)
{
    for (int64_t i = 0; i < in; i++)
        for (int64_t tap = 0; tap < taps; tap++)
            out[tap * in + i] = filter[i * taps + tap];
}

static bool read_filters(const struct draft_tensor *w, int64_t first, int64_t count, float *out,
                         struct draft_error *err)
{
    const struct draft_weight_source *source = w->source;
    int64_t in = w->dim[3], taps = w->dim[1] * w->dim[2], row = in * taps;
    float *filter = malloc((size_t)row * sizeof *filter);
    if (filter == NULL)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while reading %s", source->entry.name);
    bool ok = true;
    for (int64_t o = 0; ok && o < count; o++) {
        ok = draft_safetensors_read_f32(&source->entry, (first + o) * row, row, filter, err);
        if (ok)
            turn(filter, in, taps, out + o * row);
    }
    free(filter);
    return ok;
}

bool draft_weight_rows(const struct draft_tensor *w, int64_t first, int64_t count, float *out, struct draft_error *err)
{
    assert(draft_weight_is_there(w) && first >= 0 && first + count <= w->dim[0]);
    int64_t row = draft_tensor_count(w) / w->dim[0];
    if (w->data != NULL) {
        memcpy(out, draft_f32(w) + first * row, (size_t)(count * row) * sizeof *out);
        return true;
    }
    const struct draft_weight_source *source = w->source;
    if (source->convolution && w->dim[1] * w->dim[2] > 1)
        return read_filters(w, first, count, out, err);
    return draft_safetensors_read_f32(&source->entry, source->first + first * row, count * row, out, err);
}

bool draft_weight_unchanged(const struct draft_tensor *w, struct draft_error *err)
{
    return w->source == NULL || draft_safetensors_unchanged(w->source->entry.file, err);
}

bool draft_weight_materialize(struct draft_tensor *w, struct draft_error *err)
{
    if (w->data != NULL)
        return true;
    size_t bytes = (size_t)draft_tensor_count(w) * sizeof(float);
    float *values = draft_arena_alloc(w->source->arena, bytes);
    if (values == NULL)
        return draft_arena_fail(w->source->arena, bytes, err);
    if (!draft_weight_rows(w, 0, w->dim[0], values, err) || !draft_weight_unchanged(w, err))
        return false;
    w->data = values;
    w->source = NULL;
    return true;
}
