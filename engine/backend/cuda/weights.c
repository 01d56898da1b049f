/*
 * Copies on the device of what the host owns, and the BF16 copies of trained weights: weights are found by the number
 * in tensor->prepared (a tensor may outlive the backend, or die before it), constants by their bytes.
 *
 * A matrix W [o, k] with an adapter has the adapter's up matrix B [o, r] behind its rows in BF16, [W, B] [o, k + r], so
 * that one product multiplies [x, s x A^T] by both (draft_cuda_tail). W is never changed by it; B has no other copy.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/state.h"
#include "tensor/half.h"

/* --- Weights --------------------------------------------------------------------------------------------------------
 */

enum { AS_F32, AS_BF16, FORMS };

struct copy {
    struct draft_cuda_piece form[FORMS]; /* none: not asked for, or forgotten */
    struct draft_tensor *before;         /* of an up matrix: the one that it stands behind; NULL: none yet */
};

struct draft_cuda_weights {
    uint32_t serial; /* of this backend, never 0 */
    uint32_t count, capacity;
    struct copy *copy;
    size_t bytes;
};

struct draft_cuda_weights *draft_cuda_weights_create(struct draft_error *err)
{
    static _Atomic uint32_t serials;
    struct draft_cuda_weights *weights = calloc(1, sizeof *weights);
    if (weights == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the table of weights");
        return NULL;
    }
    weights->serial = atomic_fetch_add(&serials, 1) + 1;
    return weights;
}

void draft_cuda_weights_destroy(struct draft_backend *backend)
{
    struct draft_cuda_weights *weights = backend->weights;
    if (weights == NULL)
        return;
    for (uint32_t i = 0; i < weights->count; i++)
        for (int form = 0; form < FORMS; form++)
            draft_cuda_weight_give(backend, &weights->copy[i].form[form]);
    free(weights->copy);
    free(weights);
}

static struct copy *find(struct draft_cuda_weights *weights, const struct draft_tensor *w)
{
    uint64_t number = (uint64_t)(uintptr_t)w->prepared;
    uint32_t index = (uint32_t)number;
    return number >> 32 == weights->serial && index < weights->count ? &weights->copy[index] : NULL;
}

static struct copy *add(struct draft_cuda_weights *weights, struct draft_tensor *w, struct draft_error *err)
{
    if (weights->count == weights->capacity) {
        uint32_t capacity = weights->capacity > 0 ? 2 * weights->capacity : 256;
        struct copy *copy = realloc(weights->copy, capacity * sizeof *copy);
        if (copy == NULL) {
            draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the table of weights");
            return NULL;
        }
        weights->copy = copy;
        weights->capacity = capacity;
    }
    weights->copy[weights->count] = (struct copy){0};
    w->prepared = (void *)(uintptr_t)((uint64_t)weights->serial << 32 | weights->count);
    return &weights->copy[weights->count++];
}

static int64_t tail_of(const struct draft_tensor *w, int form)
{
    return draft_cuda_tail(w, form == AS_BF16 ? DRAFT_BF16 : DRAFT_F32);
}

static size_t form_bytes(const struct draft_tensor *w, int form)
{
    const int64_t tail = tail_of(w, form), numbers = draft_tensor_count(w) + (tail > 0 ? w->dim[0] * tail : 0);
    return (size_t)numbers * (form == AS_BF16 ? sizeof(uint16_t) : sizeof(float));
}

/* Where they are: a half is never further on than the float it comes from. */
static void narrow(float *values, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t half = draft_f32_to_bf16(values[i]);
        memcpy((char *)values + i * (int64_t)sizeof half, &half, sizeof half);
    }
}

/* Halves [rows, k] in a buffer, w's rows from `first` on, to [rows, k + tail]; the up matrix there if the host has it.
 */
static void add_tails(char *halves, int64_t rows, const struct draft_tensor *w, int64_t first, bool of_host)
{
    const size_t half = sizeof(uint16_t);
    const int64_t k = w->dim[1], r = w->up->dim[1], tail = tail_of(w, AS_BF16), place = draft_cuda_up_place(w);
    for (int64_t i = rows - 1; i >= 0; i--) {
        char *to = memmove(halves + (size_t)(i * (k + tail)) * half, halves + (size_t)(i * k) * half, (size_t)k * half);
        memset(to + (size_t)k * half, 0, (size_t)tail * half);
        for (int64_t j = 0; of_host && j < r; j++) {
            uint16_t value = draft_f32_to_bf16(draft_f32(w->up)[(first + i) * r + j]);
            memcpy(to + (size_t)(place + j) * half, &value, half);
        }
    }
}

/* From the F32 values of a trained weight. */
static void narrow_on_device(struct draft_backend *backend, const struct draft_tensor *w, void *to)
{
    draft_cuda_convert(backend->stream, DRAFT_F32, DRAFT_BF16, draft_tensor_count(w), w->data,
                       (struct draft_cuda_gradient){to, false});
}

/* The same of an up matrix, to where it stands behind the rows of `w`. */
static struct draft_cuda_conversion tail_conversion(const struct draft_tensor *w, void *to)
{
    return (struct draft_cuda_conversion){.from = draft_f32(w->up),
                                          .to = (char *)to + draft_cuda_up_place(w) * (int64_t)sizeof(uint16_t),
                                          .rows = w->dim[0],
                                          .c = w->up->dim[1],
                                          .to_stride = w->dim[1] + tail_of(w, AS_BF16)};
}

/* Rows go by way of a buffer: the file may have them in another type and order, and need not fit into memory twice. */
static bool fill(struct draft_backend *backend, const struct draft_tensor *w, int form, char *to,
                 struct draft_error *err)
{
    enum { BUFFER = 16 << 20 };
    if (draft_backend_is_dry(backend))
        return true;
    if (draft_cuda_is_device(backend, w->data)) {
        narrow_on_device(backend, w, to);
        return draft_cuda_launched("copying a trained weight", err);
    }
    const int64_t tail = tail_of(w, form);
    const bool of_host = tail > 0 && !draft_cuda_is_device(backend, w->up->data);
    char *begin = to;
    int64_t rows = w->rank > 0 ? w->dim[0] : 1, row = rows > 0 ? draft_tensor_count(w) / rows : 0;
    size_t row_bytes = (size_t)row * sizeof(float);
    int64_t some = row_bytes > 0 && row_bytes < BUFFER ? (int64_t)(BUFFER / row_bytes) : 1;
    some = some < rows ? some : rows;
    float *buffer = malloc((size_t)some * row_bytes + 1);
    if (buffer == NULL)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory to copy a weight to the GPU");
    bool ok = true;
    for (int64_t first = 0; ok && row > 0 && first < rows; first += some) {
        int64_t count = rows - first < some ? rows - first : some;
        ok = backend->services->weight_rows(w, first, count, buffer, err);
        if (ok && form == AS_BF16)
            narrow(buffer, count * row);
        if (ok && tail > 0)
            add_tails((char *)buffer, count, w, first, of_host);
        size_t bytes = (size_t)(count * (row + tail)) * (form == AS_BF16 ? sizeof(uint16_t) : sizeof(float));
        ok = ok && draft_backend_kind(backend)->upload(backend, to, buffer, bytes, err);
        to += bytes;
    }
    free(buffer);
    if (ok && tail > 0 && !of_host) {
        const struct draft_cuda_conversion up = tail_conversion(w, begin);
        draft_cuda_convert_rows(backend->stream, &up);
    }
    return ok && backend->services->weight_unchanged(w, err);
}

/* Room in the table; and an up matrix learns what it stands behind, for when it changes. */
static bool enter(struct draft_cuda_weights *weights, struct draft_tensor *w, int form, struct draft_error *err)
{
    if (find(weights, w) == NULL && add(weights, w, err) == NULL)
        return false;
    if (tail_of(w, form) == 0)
        return true;
    struct copy *of_up = find(weights, w->up);
    if (of_up == NULL)
        of_up = add(weights, w->up, err);
    if (of_up != NULL)
        of_up->before = w;
    return of_up != NULL;
}

/* A matrix and its siblings, or it alone. */
static struct draft_siblings family(struct draft_tensor *w)
{
    return w->siblings != NULL ? *w->siblings : (struct draft_siblings){.count = 1, .tensor = {w}};
}

/* A form of w; siblings' are made together, side by side, in memory that belongs to the first. */
static bool make_form(struct draft_backend *backend, struct draft_tensor *w, int form, struct draft_error *err)
{
    struct draft_cuda_weights *weights = backend->weights;
    const struct draft_siblings all = family(w);
    const size_t bytes = form_bytes(w, form), count = (size_t)all.count;
    struct draft_cuda_piece piece = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++)
        ok = enter(weights, all.tensor[i], form, err);
    ok = ok && draft_cuda_weight_take(backend, count * bytes, &piece, err);
    for (size_t i = 0; ok && i < count; i++)
        ok = fill(backend, all.tensor[i], form, (char *)piece.values + i * bytes, err);
    if (!ok) {
        draft_cuda_weight_give(backend, &piece);
        draft_error_prefix(err, "%s: ", w->name != NULL ? w->name : "a weight");
        return false;
    }
    for (size_t i = 0; i < count; i++)
        find(weights, all.tensor[i])->form[form] =
            (struct draft_cuda_piece){(char *)piece.values + i * bytes, i == 0 ? piece.slab : NULL};
    weights->bytes += count * bytes;
    return true;
}

const void *draft_cuda_weight(struct draft_backend *backend, struct draft_tensor *w, enum draft_dtype type,
                              struct draft_error *err)
{
    int form = type == DRAFT_BF16 ? AS_BF16 : AS_F32;
    const struct copy *copy = find(backend->weights, w);
    if (copy == NULL || copy->form[form].values == NULL) {
        if (!make_form(backend, w, form, err))
            return NULL;
        copy = find(backend->weights, w);
    }
    return copy->form[form].values;
}

static void drop_forms(struct draft_backend *backend, const struct draft_tensor *w)
{
    struct copy *copy = find(backend->weights, w);
    for (int form = 0; copy != NULL && form < FORMS; form++) {
        if (copy->form[form].values == NULL)
            continue;
        draft_cuda_weight_give(backend, &copy->form[form]); /* the number stays the weight's */
        backend->weights->bytes -= form_bytes(w, form);
    }
}

/* What is to be made anew of a weight whose F32 values on the device have changed: a copy of its own, and one behind
 * another's rows. */
enum { COPIES = 2 };
static int conversions_of(struct draft_cuda_weights *weights, const struct draft_tensor *w,
                          struct draft_cuda_conversion *to)
{
    const struct copy *copy = find(weights, w), *before = copy->before != NULL ? find(weights, copy->before) : NULL;
    const int64_t numbers = draft_tensor_count(w);
    int count = 0;
    if (copy->form[AS_BF16].values != NULL)
        to[count++] = (struct draft_cuda_conversion){draft_f32(w), copy->form[AS_BF16].values, 1, numbers, numbers};
    if (before != NULL && before->form[AS_BF16].values != NULL)
        to[count++] = tail_conversion(copy->before, before->form[AS_BF16].values);
    return count;
}

void draft_cuda_weight_forget(struct draft_backend *backend, struct draft_tensor *w)
{
    const struct copy *copy = find(backend->weights, w);
    if (copy != NULL && draft_cuda_is_device(backend, w->data)) {
        struct draft_cuda_conversion anew[COPIES];
        const int count = conversions_of(backend->weights, w, anew);
        for (int i = 0; i < count; i++)
            draft_cuda_convert_rows(backend->stream, &anew[i]);
        return;
    }
    if (copy != NULL && copy->before != NULL)
        draft_cuda_weight_forget(backend, copy->before);
    const struct draft_siblings all = family(w);
    for (int i = 0; i < all.count; i++)
        drop_forms(backend, all.tensor[i]);
}

static bool is_whole(const struct draft_cuda_conversion *a)
{
    enum { NUMBERS = 4 };
    return a->c % NUMBERS == 0 && a->to_stride % NUMBERS == 0 && (uintptr_t)a->from % (NUMBERS * sizeof(float)) == 0 &&
           (uintptr_t)a->to % (NUMBERS * sizeof(uint16_t)) == 0;
}

/* Those on the device in one launch, of a list that is the same after each update. */
void draft_cuda_weights_forget(struct draft_backend *backend, struct draft_tensor *const *w, int count)
{
    struct draft_error err = {0};
    struct draft_cuda_conversion *anew = malloc((size_t)count * COPIES * sizeof *anew + 1);
    int made = 0;
    bool whole = true;
    for (int i = 0; i < count; i++) {
        if (find(backend->weights, w[i]) == NULL)
            continue;
        if (anew != NULL && draft_cuda_is_device(backend, w[i]->data))
            made += conversions_of(backend->weights, w[i], anew + made);
        else
            draft_cuda_weight_forget(backend, w[i]);
    }
    for (int i = 0; i < made; i++)
        whole &= is_whole(&anew[i]);
    const void *at = made > 0 ? draft_cuda_constant(backend, anew, (size_t)made * sizeof *anew, &err) : NULL;
    if (at != NULL)
        draft_cuda_convert_matrices(backend->stream, at, made, whole);
    for (int i = 0; at == NULL && i < made; i++)
        draft_cuda_convert_rows(backend->stream, &anew[i]);
    free(anew);
}

size_t draft_cuda_weight_bytes(const struct draft_backend *backend)
{
    return backend->weights->bytes;
}

/* --- Constants ------------------------------------------------------------------------------------------------------
 */

enum { BUCKETS = 256 };

struct constant {
    struct constant *next;
    void *device;
    size_t size;
    unsigned char bytes[]; /* what they are found by */
};

struct draft_cuda_constants {
    struct constant *bucket[BUCKETS];
};

struct draft_cuda_constants *draft_cuda_constants_create(struct draft_error *err)
{
    struct draft_cuda_constants *constants = calloc(1, sizeof *constants);
    if (constants == NULL)
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the table of constants");
    return constants;
}

static void give_back(struct draft_backend *backend, void *memory)
{
    draft_backend_kind(backend)->free(backend, memory);
}

void draft_cuda_constants_destroy(struct draft_backend *backend)
{
    struct draft_cuda_constants *constants = backend->constants;
    for (int i = 0; constants != NULL && i < BUCKETS; i++)
        while (constants->bucket[i] != NULL) {
            struct constant *c = constants->bucket[i];
            constants->bucket[i] = c->next;
            give_back(backend, c->device);
            free(c);
        }
    free(constants);
}

/* FNV-1a */
static unsigned bucket_of(const unsigned char *bytes, size_t size)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(1099511628211);
    return (unsigned)(hash % BUCKETS);
}

const void *draft_cuda_constant(struct draft_backend *backend, const void *bytes, size_t size, struct draft_error *err)
{
    struct constant **bucket = &backend->constants->bucket[bucket_of(bytes, size)];
    for (const struct constant *c = *bucket; c != NULL; c = c->next)
        if (c->size == size && memcmp(c->bytes, bytes, size) == 0)
            return c->device;
    struct constant *c = malloc(sizeof *c + size);
    if (c == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for a constant of %zu bytes", size);
        return NULL;
    }
    *c = (struct constant){.next = *bucket, .size = size};
    memcpy(c->bytes, bytes, size);
    c->device = draft_backend_kind(backend)->alloc(backend, size, err);
    if (c->device == NULL || !draft_backend_kind(backend)->upload(backend, c->device, bytes, size, err)) {
        give_back(backend, c->device);
        free(c);
        return NULL;
    }
    *bucket = c;
    return c->device;
}
