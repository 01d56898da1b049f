/*
 * Inside of the CUDA backend, for the C files in this folder; ops' columns see device.h. One device, one stream; every
 * call puts work into that stream and returns, and only draft_backend_download waits; and, by CUDA's own rules, what
 * allocates and frees.
 *
 * Memory: arenas are reserved address space that is committed as it is used (memory.c), so that addresses never change
 * and captured graphs stay valid. Frozen weights are host tensors; their copy on the device is made at first use and
 * kept until forgotten (weights.c). Small arrays of the host that kernels read (token ids, resize tables) are
 * constants: one copy for each content, kept until the end.
 */
#ifndef DRAFT_BACKEND_CUDA_STATE_H
#define DRAFT_BACKEND_CUDA_STATE_H

#include <cublasLt.h>
#include <cuda.h>
#include <cuda_runtime_api.h>

#include "backend/cuda/device.h"
#include "backend/plugin.h"

struct draft_cuda_region;  /* an arena's memory: memory.c */
struct draft_cuda_weights; /* weights.c */
struct draft_cuda_constants;
struct draft_cuda_products; /* product.c */

/* The driver's functions, asked of the runtime: the plugin does not link libcuda. */
struct draft_cuda_driver {
    CUresult(CUDAAPI *reserve)(CUdeviceptr *base, size_t bytes, size_t alignment, CUdeviceptr wish, unsigned long long);
    CUresult(CUDAAPI *unreserve)(CUdeviceptr base, size_t bytes);
    CUresult(CUDAAPI *create)(CUmemGenericAllocationHandle *handle, size_t bytes, const CUmemAllocationProp *prop,
                              unsigned long long);
    CUresult(CUDAAPI *release)(CUmemGenericAllocationHandle handle);
    CUresult(CUDAAPI *map)(CUdeviceptr at, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                           unsigned long long);
    CUresult(CUDAAPI *unmap)(CUdeviceptr at, size_t bytes);
    CUresult(CUDAAPI *access)(CUdeviceptr at, size_t bytes, const CUmemAccessDesc *desc, size_t count);
};

/* Pinned memory that work sent to the device passes through (staging.c). */
struct draft_cuda_staging {
    unsigned char *buffer; /* two halves */
    cudaEvent_t fetched[2];
    bool used[2]; /* its event has been recorded */
    int half;     /* that is being filled */
    size_t filled;
};

struct draft_backend {
    struct draft_backend_head head;
    const struct draft_backend *lender; /* of a dry backend: whose arenas hold values too; else NULL */
    size_t used, peak;                  /* bytes of the device, of allocations and arenas */
    struct draft_cuda_block *blocks;    /* the allocations */
    size_t block_count, block_room;
    const struct draft_services *services;
    int device;
    cudaStream_t stream;
    struct draft_cuda_driver driver;
    struct draft_cuda_region *regions; /* list */
    struct draft_cuda_weights *weights;
    struct draft_cuda_slab *slabs; /* list: the weights' memory */
    struct draft_cuda_constants *constants;
    cublasLtHandle_t cublas;
    struct draft_cuda_products *products;
    struct draft_cuda_staging staging;
    struct draft_cudnn *cudnn; /* cudnn_plan.h; NULL until it is needed */
    void *workspace;           /* cuBLASLt's and cuDNN's, of DRAFT_CUDA_WORKSPACE bytes */
    cudaEvent_t *events;       /* [DRAFT_MARKS], a profile's; NULL until one asks */
};

enum { DRAFT_CUDA_WORKSPACE = 32 << 20 };
/* Addresses of a dry arena: more than any device has memory. */
#define DRAFT_CUDA_DRY_ARENA ((size_t)1 << 38)

/* True when status is success; else err says what was being done and why it failed, with the remedy where there is one.
 * After a sticky error it says that the process cannot go on. */
bool draft_cuda_ok(cudaError_t status, const char *doing, struct draft_error *err);

/* The backend's cuDNN, started at first use: a job in F32 needs none. NULL: err is set. */
struct draft_cudnn *draft_cuda_cudnn(struct draft_backend *backend, struct draft_error *err);

/* --- memory.c -------------------------------------------------------------------------------------------------------
 */

bool draft_cuda_driver_find(struct draft_cuda_driver *driver, struct draft_error *err);
/* Allocations are counted as the driver serves them: from 1 MiB on in pages of 2 MiB, smaller ones within shared pages.
 * False: no memory for the list, err is set. */
bool draft_cuda_block_taken(struct draft_backend *backend, void *at, size_t bytes, struct draft_error *err);
void draft_cuda_block_given(struct draft_backend *backend, const void *at); /* NULL is fine */
bool draft_cuda_region_make(struct draft_backend *backend, size_t limit, struct draft_arena_region *out,
                            struct draft_error *err);

/* --- weights.c ------------------------------------------------------------------------------------------------------
 */

struct draft_cuda_weights *draft_cuda_weights_create(struct draft_error *err);
void draft_cuda_weights_destroy(struct draft_backend *backend);
void draft_cuda_weight_forget(struct draft_backend *backend, struct draft_tensor *w);
void draft_cuda_weights_forget(struct draft_backend *backend, struct draft_tensor *const *w, int count);
size_t draft_cuda_weight_bytes(const struct draft_backend *backend);

/* weight_memory.c */
struct draft_cuda_piece {
    void *values; /* NULL: none */
    struct draft_cuda_slab *slab;
};
/* Aligned to 256 bytes; contents undefined. False: err is set, and the piece is as it was. */
bool draft_cuda_weight_take(struct draft_backend *backend, size_t bytes, struct draft_cuda_piece *piece,
                            struct draft_error *err);
void draft_cuda_weight_give(struct draft_backend *backend, struct draft_cuda_piece *piece); /* becomes none */

struct draft_cuda_constants *draft_cuda_constants_create(struct draft_error *err);
void draft_cuda_constants_destroy(struct draft_backend *backend);

/* --- optimizer.c ----------------------------------------------------------------------------------------------------
 */

bool draft_cuda_measure_gradient(struct draft_backend *backend, int64_t n, const float *gradient, double *norm,
                                 struct draft_error *err);
bool draft_cuda_update_numbers(struct draft_backend *backend, const struct draft_update *update,
                               struct draft_error *err);
bool draft_cuda_update(struct draft_backend *backend, int64_t n, const float *gradient, float *parameter, float *m,
                       float *v, const struct draft_guard *guard, struct draft_error *err);

/* --- staging.c ------------------------------------------------------------------------------------------------------
 */

bool draft_cuda_staging_open(struct draft_cuda_staging *staging, struct draft_error *err);
void draft_cuda_staging_close(struct draft_cuda_staging *staging);
/* draft_backend_upload */
bool draft_cuda_send(struct draft_backend *backend, void *to, const void *from, size_t bytes, struct draft_error *err);

/* --- recording.c ----------------------------------------------------------------------------------------------------
 */

bool draft_cuda_record(struct draft_backend *backend, struct draft_error *err);
void *draft_cuda_recorded(struct draft_backend *backend, bool wanted, struct draft_error *err);
bool draft_cuda_launch(struct draft_backend *backend, void *recording, struct draft_error *err);
void draft_cuda_drop(struct draft_backend *backend, void *recording);

/* --- clock.c --------------------------------------------------------------------------------------------------------
 */

bool draft_cuda_mark(struct draft_backend *backend, int i, struct draft_error *err);
bool draft_cuda_between(struct draft_backend *backend, int i, int j, double *seconds, struct draft_error *err);
uint64_t draft_cuda_launch_count(const struct draft_backend *backend);
void draft_cuda_clock_close(struct draft_backend *backend);

/* --- dry.c ----------------------------------------------------------------------------------------------------------
 */

/* A backend that counts and does nothing (plugin.h). */
struct draft_backend *draft_cuda_create_dry(struct draft_backend *lender, const struct draft_services *services,
                                            struct draft_error *err);

/* --- product.c ------------------------------------------------------------------------------------------------------
 */

struct draft_cuda_products *draft_cuda_products_create(struct draft_error *err);
void draft_cuda_products_destroy(struct draft_cuda_products *products);

#endif
