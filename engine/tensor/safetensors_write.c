#include "tensor/safetensors.h"

#include <assert.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomic_file.h"
#include "tensor/half.h"

static int by_size_then_name(const void *a, const void *b)
{
    const struct draft_safetensors_item *x = *(const struct draft_safetensors_item *const *)a;
    const struct draft_safetensors_item *y = *(const struct draft_safetensors_item *const *)b;
    size_t size_x = draft_dtype_size(x->dtype), size_y = draft_dtype_size(y->dtype);
    if (size_x != size_y)
        return size_x > size_y ? -1 : 1;
    return strcmp(x->name, y->name);
}

static size_t count_of(const struct draft_safetensors_item *item)
{
    size_t n = 1;
    for (int i = 0; i < item->rank; i++)
        n *= (size_t)item->dim[i];
    return n;
}

/* The header's text, padded with spaces to a multiple of 8; malloc'd. */
static char *make_header(const struct draft_safetensors_item *const *sorted, int count, const char *const *metadata,
                         size_t *length, bool *duplicate)
{
    json_t *header = json_object();
    bool complete = true;
    if (metadata != NULL) {
        json_t *strings = json_object();
        for (; *metadata != NULL; metadata += 2)
            complete = json_object_set_new(strings, metadata[0], json_string(metadata[1])) == 0 && complete;
        json_object_set_new(header, "__metadata__", strings);
    }
    json_int_t at = 0;
    for (int i = 0; i < count; i++) {
        json_int_t bytes = (json_int_t)(count_of(sorted[i]) * draft_dtype_size(sorted[i]->dtype));
        json_t *shape = json_array();
        for (int d = 0; d < sorted[i]->rank; d++)
            json_array_append_new(shape, json_integer(sorted[i]->dim[d]));
        *duplicate = *duplicate || json_object_get(header, sorted[i]->name) != NULL;
        json_object_set_new(header, sorted[i]->name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype", draft_dtype_name(sorted[i]->dtype), "shape",
                                      shape, "data_offsets", at, at + bytes));
        at += bytes;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    complete = complete && json_object_size(header) == (size_t)count + (metadata != NULL);
    json_decref(header);
    if (text == NULL || !complete) {
        free(text);
        return NULL;
    }
    size_t used = strlen(text);
    *length = (used + 7) / 8 * 8;
    char *padded = realloc(text, *length + 1);
    if (padded == NULL) {
        free(text);
        return NULL;
    }
    memset(padded + used, ' ', *length - used);
    return padded;
}

static bool write_halves(struct draft_atomic_file *file, const struct draft_safetensors_item *item, const float *from,
                         struct draft_error *err)
{
    size_t n = count_of(item);
    uint16_t piece[4096];
    for (size_t done = 0; done < n;) {
        size_t now = n - done < 4096 ? n - done : 4096;
        for (size_t i = 0; i < now; i++) {
            piece[i] = draft_f32_to_f16(from[done + i]);
            if ((piece[i] & 0x7fff) == 0x7c00 && isfinite(from[done + i]))
                return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                                  "%s holds %g, which is too large for 16-bit floats; write F32 instead", item->name,
                                  (double)from[done + i]);
        }
        draft_atomic_write(file, piece, now * sizeof *piece);
        done += now;
    }
    return true;
}

static bool write_item(struct draft_atomic_file *file, const struct draft_safetensors_item *item, const void *data,
                       struct draft_error *err)
{
    assert(item->dtype == DRAFT_F32 || item->dtype == DRAFT_F16 || item->dtype == DRAFT_I64);
    if (item->dtype == DRAFT_F16)
        return write_halves(file, item, data, err);
    draft_atomic_write(file, data, count_of(item) * draft_dtype_size(item->dtype));
    return true;
}

/* `items` is where the sorted ones lie, so that an index can be told. */
static bool write_items(struct draft_atomic_file *file, const struct draft_safetensors_item *const *sorted, int count,
                        const struct draft_safetensors_item *items, const struct draft_safetensors_source *source,
                        struct draft_error *err)
{
    bool ok = true;
    for (int i = 0; ok && i < count; i++) {
        const struct draft_safetensors_item *item = sorted[i];
        if (item->data != NULL || count_of(item) == 0) {
            ok = write_item(file, item, item->data, err);
            continue;
        }
        assert(source != NULL && item->dtype != DRAFT_I64);
        float *values = malloc(count_of(item) * sizeof *values);
        ok = values != NULL || draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for %s", item->name);
        ok = ok && source->load(source->context, (int)(item - items), values, err) &&
             write_item(file, item, values, err);
        free(values);
    }
    return ok;
}

static bool write_sorted(const char *path, const struct draft_safetensors_item *const *sorted, int count,
                         const struct draft_safetensors_item *items, const char *const *metadata,
                         const struct draft_safetensors_source *source, struct draft_error *err)
{
    size_t length = 0;
    bool duplicate = false;
    char *header = make_header(sorted, count, metadata, &length, &duplicate);
    assert(!duplicate && "two items of one name");
    if (header == NULL)
        return draft_fail(err, DRAFT_INVALID_ARGUMENT,
                          "cannot write %s: a name or a metadata string is not UTF-8, or memory is out", path);
    struct draft_atomic_file *file = draft_atomic_begin(path, err);
    if (file == NULL) {
        free(header);
        return false;
    }
    unsigned char size[8];
    for (int i = 0; i < 8; i++)
        size[i] = (unsigned char)(length >> 8 * i);
    draft_atomic_write(file, size, sizeof size);
    draft_atomic_write(file, header, length);
    free(header);
    if (!write_items(file, sorted, count, items, source, err)) {
        draft_atomic_abort(file);
        return false;
    }
    return draft_atomic_commit(file, err);
}

bool draft_safetensors_write(const char *path, const struct draft_safetensors_item *items, int count,
                             const char *const *metadata, struct draft_error *err)
{
    return draft_safetensors_write_from(path, items, count, metadata, NULL, err);
}

bool draft_safetensors_write_from(const char *path, const struct draft_safetensors_item *items, int count,
                                  const char *const *metadata, const struct draft_safetensors_source *source,
                                  struct draft_error *err)
{
    const struct draft_safetensors_item **sorted = calloc((size_t)count + 1, sizeof *sorted);
    if (sorted == NULL)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory while writing %s", path);
    for (int i = 0; i < count; i++)
        sorted[i] = &items[i];
    qsort(sorted, (size_t)count, sizeof *sorted, by_size_then_name);
    bool ok = write_sorted(path, sorted, count, items, metadata, source, err);
    free(sorted);
    return ok;
}
