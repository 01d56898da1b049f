/*
 * Arenas on the device, by CUDA's virtual memory management: an address range is reserved once, physical memory is
 * mapped into it piece by piece as the arena grows, and stays. Growing waits for nobody and may not happen while a
 * graph is being captured, which it does not: the step has run once before.
 */
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/state.h"

enum { PIECE = 64 << 20 }; /* bytes committed at a time; a multiple of every device's granularity (2 MiB) */
static const size_t GRANULARITY = (size_t)2 << 20;

struct draft_cuda_block {
    const void *at;
    size_t bytes;
};

struct draft_cuda_region {
    struct draft_cuda_region *next;
    struct draft_backend *backend;
    CUdeviceptr base;
    size_t limit, committed;
    struct piece {
        struct piece *next;
        CUdeviceptr at;
        size_t bytes;
        CUmemGenericAllocationHandle handle;
    } * pieces;
};

/* --- Counting -------------------------------------------------------------------------------------------------------
 */

static void count(struct draft_backend *backend, size_t taken, size_t given)
{
    backend->used += taken - given;
    backend->peak = backend->used > backend->peak ? backend->used : backend->peak;
}

bool draft_cuda_block_taken(struct draft_backend *backend, void *at, size_t bytes, struct draft_error *err)
{
    if (backend->block_count == backend->block_room) {
        size_t room = backend->block_room > 0 ? 2 * backend->block_room : 1024;
        struct draft_cuda_block *blocks = realloc(backend->blocks, room * sizeof *blocks);
        if (blocks == NULL)
            return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the list of the GPU's allocations");
        backend->blocks = blocks;
        backend->block_room = room;
    }
    const size_t unit = bytes >= (size_t)1 << 20 ? GRANULARITY : 512;
    bytes = (bytes + unit - 1) / unit * unit;
    backend->blocks[backend->block_count++] = (struct draft_cuda_block){at, bytes};
    count(backend, bytes, 0);
    return true;
}

void draft_cuda_block_given(struct draft_backend *backend, const void *at)
{
    for (size_t i = backend->block_count; at != NULL && i-- > 0;)
        if (backend->blocks[i].at == at) { /* the youngest of them go first */
            count(backend, 0, backend->blocks[i].bytes);
            backend->blocks[i] = backend->blocks[--backend->block_count];
            return;
        }
}

/* --- Arenas ---------------------------------------------------------------------------------------------------------
 */

static bool find(const char *name, void *function, struct draft_error *err)
{
    enum cudaDriverEntryPointQueryResult found;
    enum { CUDA_12 = 12000 };
    cudaError_t status = cudaGetDriverEntryPointByVersion(name, function, CUDA_12, cudaEnableDefault, &found);
    if (status == cudaSuccess && found == cudaDriverEntryPointSuccess)
        return true;
    return draft_fail(err, DRAFT_FAILED_PRECONDITION,
                      "the NVIDIA driver has no %s; a driver of version 580 or newer is needed", name);
}

bool draft_cuda_driver_find(struct draft_cuda_driver *driver, struct draft_error *err)
{
    return find("cuMemAddressReserve", &driver->reserve, err) && find("cuMemAddressFree", &driver->unreserve, err) &&
           find("cuMemCreate", &driver->create, err) && find("cuMemRelease", &driver->release, err) &&
           find("cuMemMap", &driver->map, err) && find("cuMemUnmap", &driver->unmap, err) &&
           find("cuMemSetAccess", &driver->access, err);
}

static void forget_piece(struct draft_cuda_region *region, struct piece *piece)
{
    count(region->backend, 0, piece->bytes);
    region->backend->driver.unmap(piece->at, piece->bytes);
    region->backend->driver.release(piece->handle);
    free(piece);
}

/* Maps `bytes` more behind what is committed. */
static bool add_piece(struct draft_cuda_region *region, size_t bytes)
{
    const struct draft_cuda_driver *driver = &region->backend->driver;
    CUmemLocation here = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = region->backend->device};
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED, .location = here};
    CUmemAccessDesc access = {.location = here, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    struct piece *piece = malloc(sizeof *piece);
    if (piece == NULL)
        return false;
    *piece = (struct piece){.next = region->pieces, .at = region->base + region->committed, .bytes = bytes};
    if (driver->create(&piece->handle, bytes, &prop, 0) != CUDA_SUCCESS) {
        free(piece);
        return false;
    }
    if (driver->map(piece->at, bytes, 0, piece->handle, 0) != CUDA_SUCCESS) {
        driver->release(piece->handle);
        free(piece);
        return false;
    }
    count(region->backend, bytes, 0);
    if (driver->access(piece->at, bytes, &access, 1) != CUDA_SUCCESS) {
        forget_piece(region, piece);
        return false;
    }
    region->pieces = piece;
    region->committed += bytes;
    return true;
}

static bool commit(void *context, size_t bytes)
{
    struct draft_cuda_region *region = context;
    if (bytes <= region->committed)
        return true;
    size_t needed = (bytes - region->committed + GRANULARITY - 1) / GRANULARITY * GRANULARITY;
    size_t left = region->limit - region->committed, wanted = needed > PIECE ? needed : PIECE;
    if (wanted > left)
        wanted = left;
    /* nearly full: exactly what is asked for may still be there */
    return add_piece(region, wanted) || (needed < wanted && add_piece(region, needed));
}

/* By a kernel: a copy of the runtime may go to a copy engine, for which the kernels around it would wait. Blocks of an
 * arena end on whole words. */
static void copy(struct draft_backend *backend, void *to, const void *from, size_t bytes)
{
    const size_t words = (bytes + sizeof(float) - 1) / sizeof(float);
    draft_cuda_convert(backend->stream, DRAFT_F32, DRAFT_F32, (int64_t)words, from,
                       (struct draft_cuda_gradient){to, false});
}

/* Within overlapping ranges a copy of the device has no order; so it goes in pieces no longer than the gap, or where
 * that is short, through the workspace. */
static void move(void *context, void *to, const void *from, size_t bytes)
{
    struct draft_cuda_region *region = context;
    struct draft_backend *backend = region->backend;
    char *target = to;
    const char *source = from;
    size_t gap = (size_t)(source - target);
    bool direct = gap >= DRAFT_CUDA_WORKSPACE || gap >= bytes;
    size_t most = direct ? gap : DRAFT_CUDA_WORKSPACE;
    for (size_t done = 0, n; gap > 0 && done < bytes; done += n) {
        n = bytes - done < most ? bytes - done : most;
        const char *next = source + done;
        if (!direct) {
            copy(backend, backend->workspace, next, n);
            next = backend->workspace;
        }
        copy(backend, target + done, next, n);
    }
}

static void release(void *context)
{
    struct draft_cuda_region *region = context;
    struct draft_backend *backend = region->backend;
    if (!draft_backend_is_dry(backend))
        cudaStreamSynchronize(backend->stream);
    backend->head.changes++;
    while (region->pieces != NULL) {
        struct piece *piece = region->pieces;
        region->pieces = piece->next;
        forget_piece(region, piece);
    }
    backend->driver.unreserve(region->base, region->limit);
    struct draft_cuda_region **link = &backend->regions;
    while (*link != region)
        link = &(*link)->next;
    *link = region->next;
    free(region);
}

bool draft_cuda_region_make(struct draft_backend *backend, size_t limit, struct draft_arena_region *out,
                            struct draft_error *err)
{
    size_t free_bytes, total = DRAFT_CUDA_DRY_ARENA;
    if (!draft_backend_is_dry(backend) &&
        !draft_cuda_ok(cudaMemGetInfo(&free_bytes, &total), "asking for the device's memory", err))
        return false;
    limit = limit < total ? limit : total;
    limit = (limit + GRANULARITY - 1) / GRANULARITY * GRANULARITY;
    struct draft_cuda_region *region = malloc(sizeof *region);
    if (region == NULL)
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for an arena of the device");
    *region = (struct draft_cuda_region){.next = backend->regions, .backend = backend, .limit = limit};
    if (backend->driver.reserve(&region->base, limit, 0, 0, 0) != CUDA_SUCCESS) {
        free(region);
        return draft_fail(err, DRAFT_OUT_OF_MEMORY, "the device refuses %zu bytes of address space", limit);
    }
    backend->regions = region;
    *out = (struct draft_arena_region){.base = (unsigned char *)(uintptr_t)region->base,
                                       .limit = limit,
                                       .commit = commit,
                                       .move = move,
                                       .release = release,
                                       .context = region};
    return true;
}

bool draft_cuda_is_device(const struct draft_backend *backend, const void *address)
{
    CUdeviceptr at = (CUdeviceptr)(uintptr_t)address;
    for (const struct draft_cuda_region *r = backend->regions; r != NULL; r = r->next)
        if (at >= r->base && at - r->base < r->limit)
            return true;
    return backend->lender != NULL && draft_cuda_is_device(backend->lender, address);
}
