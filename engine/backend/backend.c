#include "backend/backend.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void draft_backend_destroy(struct draft_backend *backend)
{
    if (backend != NULL)
        draft_backend_kind(backend)->destroy(backend);
}

struct draft_arena *draft_backend_arena(struct draft_backend *backend, const char *name, size_t limit,
                                        struct draft_error *err)
{
    if (draft_backend_on_host(backend))
        return draft_arena_create(name, limit, err);
    struct draft_arena_region region;
    if (!draft_backend_kind(backend)->region(backend, limit, &region, err))
        return NULL;
    return draft_arena_create_in(name, &region, err);
}

void *draft_backend_alloc(struct draft_backend *backend, size_t bytes, struct draft_error *err)
{
    if (!draft_backend_on_host(backend))
        return draft_backend_kind(backend)->alloc(backend, bytes, err);
    void *memory = bytes <= SIZE_MAX - 64 ? aligned_alloc(64, bytes / 64 * 64 + 64) : NULL;
    if (memory == NULL)
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "out of memory for %zu bytes", bytes);
    return memory;
}

void draft_backend_free(struct draft_backend *backend, void *memory)
{
    if (draft_backend_on_host(backend))
        free(memory);
    else if (memory != NULL)
        draft_backend_kind(backend)->free(backend, memory);
}

bool draft_backend_upload(struct draft_backend *backend, void *to, const void *from, size_t bytes,
                          struct draft_error *err)
{
    if (!draft_backend_on_host(backend))
        return bytes == 0 || draft_backend_kind(backend)->upload(backend, to, from, bytes, err);
    memcpy(to, from, bytes);
    return true;
}

bool draft_backend_download(struct draft_backend *backend, void *to, const void *from, size_t bytes,
                            struct draft_error *err)
{
    if (!draft_backend_on_host(backend))
        return bytes == 0 || draft_backend_kind(backend)->download(backend, to, from, bytes, err);
    memcpy(to, from, bytes);
    return true;
}

bool draft_backend_fill(struct draft_backend *backend, float *at, int64_t n, float value, struct draft_error *err)
{
    if (!draft_backend_on_host(backend))
        return n == 0 || draft_backend_kind(backend)->fill(backend, at, n, value, err);
    for (int64_t i = 0; i < n; i++)
        at[i] = value;
    return true;
}

bool draft_backend_axpby(struct draft_backend *backend, enum draft_dtype type, int64_t n, float alpha, const void *a,
                         void *y, bool accumulate, struct draft_error *err)
{
    return draft_backend_kind(backend)->axpby(backend, type, n, alpha, a, y, accumulate, err);
}

int64_t draft_piece(int64_t n)
{
    const int64_t least = 16384; /* worth a thread's while */
    int64_t piece = (n + DRAFT_PIECES - 1) / DRAFT_PIECES;
    return piece < least ? least : piece;
}

void draft_backend_pieces(struct draft_backend *backend, int64_t n, draft_piece_work work, void *context)
{
    int64_t piece = draft_piece(n);
    if (backend != NULL)
        draft_backend_kind(backend)->pieces(backend, n, piece, work, context);
    for (int64_t begin = 0; backend == NULL && begin < n; begin += piece)
        work(context, begin, begin + piece < n ? begin + piece : n);
}

bool draft_backend_gradient_norm(struct draft_backend *backend, int64_t n, const float *gradient, double *norm,
                                 struct draft_error *err)
{
    return draft_backend_kind(backend)->gradient_norm(backend, n, gradient, norm, err);
}

bool draft_backend_adamw_numbers(struct draft_backend *backend, const struct draft_update *update,
                                 struct draft_error *err)
{
    return draft_backend_kind(backend)->adamw_numbers(backend, update, err);
}

bool draft_backend_adamw(struct draft_backend *backend, int64_t n, const float *gradient, float *parameter, float *m,
                         float *v, const struct draft_guard *guard, struct draft_error *err)
{
    return draft_backend_kind(backend)->adamw(backend, n, gradient, parameter, m, v, guard, err);
}

bool draft_backend_approach(struct draft_backend *backend, int64_t n, float rate, const float *target, float *x,
                            struct draft_error *err)
{
    return draft_backend_kind(backend)->approach(backend, n, rate, target, x, err);
}

bool draft_backend_exchange(struct draft_backend *backend, int64_t n, float *a, float *b, struct draft_error *err)
{
    return draft_backend_kind(backend)->exchange(backend, n, a, b, err);
}

void draft_backend_forget(struct draft_backend *backend, struct draft_tensor *weight)
{
    draft_backend_kind(backend)->forget(backend, weight);
}

void draft_backend_forget_all(struct draft_backend *backend, struct draft_tensor *const *weight, int count)
{
    if (draft_backend_kind(backend)->forget_all != NULL) {
        draft_backend_kind(backend)->forget_all(backend, weight, count);
        return;
    }
    for (int i = 0; i < count; i++)
        if (weight[i]->prepared != NULL)
            draft_backend_forget(backend, weight[i]);
}

void draft_backend_keep(struct draft_backend *backend, size_t bytes)
{
    if (draft_backend_kind(backend)->keep)
        draft_backend_kind(backend)->keep(backend, bytes);
}

size_t draft_backend_prepared_bytes(const struct draft_backend *backend)
{
    return draft_backend_kind(backend)->prepared_bytes(backend);
}

bool draft_backend_lap(struct draft_backend *backend, double *last, double *sum, struct draft_error *err)
{
    return draft_backend_kind(backend)->lap(backend, last, sum, err);
}

bool draft_backend_mark(struct draft_backend *backend, int i, struct draft_error *err)
{
    assert(i >= 0 && i < DRAFT_MARKS);
    return draft_backend_kind(backend)->mark(backend, i, err);
}

bool draft_backend_between(struct draft_backend *backend, int i, int j, double *seconds, struct draft_error *err)
{
    return draft_backend_kind(backend)->between(backend, i, j, seconds, err);
}

uint64_t draft_backend_launches(const struct draft_backend *backend)
{
    const struct draft_backend_kind *kind = draft_backend_kind(backend);
    return kind->launches != NULL ? kind->launches(backend) : 0;
}
