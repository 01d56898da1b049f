/*
 * A dry backend: the ops' columns run as they are, ask for the same memory in the same order, and what they put into
 * the stream is left undone. No function of CUDA is called that needs a device; addresses are reserved of the host and
 * never touched. So a job's need is known where no GPU is, and beside a job that has it.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "backend/cuda/state.h"

/* --- What memory.c asks of the driver -------------------------------------------------------------------------------
 */

static CUresult CUDAAPI reserve(CUdeviceptr *base, size_t bytes, size_t alignment, CUdeviceptr wish,
                                unsigned long long flags)
{
    (void)alignment, (void)wish, (void)flags;
    void *map = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    *base = (CUdeviceptr)(uintptr_t)map;
    return map == MAP_FAILED ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

static CUresult CUDAAPI unreserve(CUdeviceptr base, size_t bytes)
{
    munmap((void *)(uintptr_t)base, bytes);
    return CUDA_SUCCESS;
}

static CUresult CUDAAPI create(CUmemGenericAllocationHandle *handle, size_t bytes, const CUmemAllocationProp *prop,
                               unsigned long long flags)
{
    (void)bytes, (void)prop, (void)flags;
    *handle = 0;
    return CUDA_SUCCESS;
}

static CUresult CUDAAPI release(CUmemGenericAllocationHandle handle)
{
    (void)handle;
    return CUDA_SUCCESS;
}

static CUresult CUDAAPI map(CUdeviceptr at, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                            unsigned long long flags)
{
    (void)at, (void)bytes, (void)offset, (void)handle, (void)flags;
    return CUDA_SUCCESS;
}

static CUresult CUDAAPI unmap(CUdeviceptr at, size_t bytes)
{
    (void)at, (void)bytes;
    return CUDA_SUCCESS;
}

static CUresult CUDAAPI allow(CUdeviceptr at, size_t bytes, const CUmemAccessDesc *desc, size_t count)
{
    (void)at, (void)bytes, (void)desc, (void)count;
    return CUDA_SUCCESS;
}

/* --- What a backend does --------------------------------------------------------------------------------------------
 */

/* An address of its own, which nobody reads or writes. */
static void *alloc(struct draft_backend *backend, size_t bytes, struct draft_error *err)
{
    enum { ALIGNED = 256 };
    void *at = aligned_alloc(ALIGNED, ALIGNED);
    if (at == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory to count the GPU's with");
        return NULL;
    }
    if (draft_cuda_block_taken(backend, at, bytes, err))
        return at;
    free(at);
    return NULL;
}

static void give_back(struct draft_backend *backend, void *memory)
{
    draft_cuda_block_given(backend, memory);
    free(memory);
}

static bool upload(struct draft_backend *backend, void *to, const void *from, size_t bytes, struct draft_error *err)
{
    (void)backend, (void)to, (void)from, (void)bytes, (void)err;
    return true;
}

static bool download(struct draft_backend *backend, void *to, const void *from, size_t bytes, struct draft_error *err)
{
    (void)backend, (void)from, (void)err;
    memset(to, 0, bytes);
    return true;
}

static bool fill(struct draft_backend *backend, float *at, int64_t n, float value, struct draft_error *err)
{
    (void)backend, (void)at, (void)n, (void)value, (void)err;
    return true;
}

static bool axpby(struct draft_backend *backend, enum draft_dtype type, int64_t n, float alpha, const void *a, void *y,
                  bool accumulate, struct draft_error *err)
{
    (void)backend, (void)type, (void)n, (void)alpha, (void)a, (void)y, (void)accumulate, (void)err;
    return true;
}

static bool approach(struct draft_backend *backend, int64_t n, float rate, const float *target, float *x,
                     struct draft_error *err)
{
    (void)backend, (void)n, (void)rate, (void)target, (void)x, (void)err;
    return true;
}

static bool exchange(struct draft_backend *backend, int64_t n, float *a, float *b, struct draft_error *err)
{
    (void)backend, (void)n, (void)a, (void)b, (void)err;
    return true;
}

static bool lap(struct draft_backend *backend, double *last, double *sum, struct draft_error *err)
{
    (void)backend, (void)last, (void)sum, (void)err;
    return true;
}

static void destroy(struct draft_backend *backend)
{
    draft_cuda_products_destroy(backend->products);
    draft_cuda_constants_destroy(backend);
    draft_cuda_weights_destroy(backend);
    if (backend->lender == NULL)
        give_back(backend, backend->workspace);
    free(backend->blocks);
    free(backend);
}

struct draft_backend *draft_cuda_create_dry(struct draft_backend *lender, const struct draft_services *services,
                                            struct draft_error *err)
{
    static const struct draft_backend_kind DRY = {.name = "cuda",
                                                  .ops = draft_cuda_columns,
                                                  .destroy = destroy,
                                                  .region = draft_cuda_region_make,
                                                  .alloc = alloc,
                                                  .free = give_back,
                                                  .upload = upload,
                                                  .download = download,
                                                  .fill = fill,
                                                  .axpby = axpby,
                                                  .approach = approach,
                                                  .exchange = exchange,
                                                  .folds = draft_cuda_folds,
                                                  .forget = draft_cuda_weight_forget,
                                                  .forget_all = draft_cuda_weights_forget,
                                                  .prepared_bytes = draft_cuda_weight_bytes,
                                                  .lap = lap,
                                                  .mark = draft_cuda_mark,
                                                  .between = draft_cuda_between,
                                                  .launches = draft_cuda_launch_count};
    struct draft_backend *backend = calloc(1, sizeof *backend);
    if (backend == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the CUDA backend");
        return NULL;
    }
    backend->head.kind = &DRY;
    backend->head.dry = true;
    backend->lender = lender;
    backend->services = services;
    backend->stream = DRAFT_CUDA_DRY_STREAM;
    backend->driver = (struct draft_cuda_driver){.reserve = reserve,
                                                 .unreserve = unreserve,
                                                 .create = create,
                                                 .release = release,
                                                 .map = map,
                                                 .unmap = unmap,
                                                 .access = allow};
    if ((backend->weights = draft_cuda_weights_create(err)) != NULL &&
        (backend->constants = draft_cuda_constants_create(err)) != NULL &&
        (backend->products = draft_cuda_products_create(err)) != NULL &&
        (backend->workspace = lender != NULL ? lender->workspace : alloc(backend, DRAFT_CUDA_WORKSPACE, err)) != NULL)
        return backend;
    destroy(backend);
    return NULL;
}
