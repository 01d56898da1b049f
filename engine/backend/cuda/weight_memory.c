/*
 * Memory of weights. The driver serves allocations in pages of 2 MiB: a network's thousand matrices, each by itself,
 * would take an eighth more than they are. So they share slabs, each handed out from its beginning; what does not fit
 * where there is room begins a new one, and a slab goes back when its last weight does.
 */
#include <stdlib.h>

#include "backend/cuda/state.h"

enum { SLAB = 32 << 20, ALIGNED = 256 };

struct draft_cuda_slab {
    struct draft_cuda_slab *next;
    char *base;
    size_t bytes, used;
    uint32_t live; /* weights in it */
};

static struct draft_cuda_slab *add_slab(struct draft_backend *backend, size_t bytes, struct draft_error *err)
{
    struct draft_cuda_slab *slab = calloc(1, sizeof *slab);
    if (slab == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the list of the weights' memory");
        return NULL;
    }
    slab->bytes = bytes > SLAB ? bytes : SLAB;
    slab->base = draft_backend_kind(backend)->alloc(backend, slab->bytes, err);
    if (slab->base == NULL) {
        free(slab);
        return NULL;
    }
    slab->next = backend->slabs;
    backend->slabs = slab;
    return slab;
}

bool draft_cuda_weight_take(struct draft_backend *backend, size_t bytes, struct draft_cuda_piece *piece,
                            struct draft_error *err)
{
    struct draft_cuda_slab *slab = backend->slabs;
    bytes = bytes > 0 ? (bytes + ALIGNED - 1) / ALIGNED * ALIGNED : ALIGNED;
    while (slab != NULL && slab->bytes - slab->used < bytes)
        slab = slab->next;
    if (slab == NULL && (slab = add_slab(backend, bytes, err)) == NULL)
        return false;
    *piece = (struct draft_cuda_piece){slab->base + slab->used, slab};
    slab->used += bytes;
    slab->live++;
    return true;
}

void draft_cuda_weight_give(struct draft_backend *backend, struct draft_cuda_piece *piece)
{
    struct draft_cuda_slab *slab = piece->slab, **link = &backend->slabs;
    *piece = (struct draft_cuda_piece){0};
    if (slab == NULL || --slab->live > 0)
        return;
    while (*link != slab)
        link = &(*link)->next;
    *link = slab->next;
    draft_backend_kind(backend)->free(backend, slab->base);
    free(slab);
}
