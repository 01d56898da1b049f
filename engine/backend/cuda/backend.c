/*
 * libdraft_cuda.so's door: which devices there are, and a backend on one of them. Nothing here touches CUDA before it
 * is asked: the library loads on a machine without a driver, and says so in a sentence.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cudnn_cache.h"
#include "backend/cuda/cudnn_plan.h"
#include "backend/cuda/state.h"

/* --- Failures -------------------------------------------------------------------------------------------------------
 */

/* After these the process's context is gone for good (CUDA's documentation of cudaError_t). */
static bool is_sticky(cudaError_t status)
{
    switch (status) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorECCUncorrectable:
    case cudaErrorUnknown:
        return true;
    default:
        return false;
    }
}

static bool no_driver(struct draft_error *err)
{
    int version = 0;
    cudaDriverGetVersion(&version);
    if (version == 0)
        return draft_fail(err, DRAFT_FAILED_PRECONDITION,
                          "no NVIDIA driver is installed; install version 580 or newer, or use --device cpu");
    return draft_fail(err, DRAFT_FAILED_PRECONDITION,
                      "the NVIDIA driver is too old: it knows CUDA %d.%d, this program needs %d.%d; install a newer "
                      "driver, or use --device cpu",
                      version / 1000, version % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
}

bool draft_cuda_ok(cudaError_t status, const char *doing, struct draft_error *err)
{
    if (status == cudaSuccess)
        return true;
    (void)cudaGetLastError(); /* reported here, it must not be found again behind the next launch */
    switch (status) {
    case cudaErrorInsufficientDriver:
        return no_driver(err);
    case cudaErrorStubLibrary:
        return draft_fail(
            err, DRAFT_FAILED_PRECONDITION,
            "a stub libcuda.so was found in place of the NVIDIA driver's; take the toolkit's stubs folder "
            "out of LD_LIBRARY_PATH");
    case cudaErrorNoDevice:
        return draft_fail(err, DRAFT_FAILED_PRECONDITION,
                          "no CUDA device: the driver is there, but it shows no GPU (look at nvidia-smi and "
                          "CUDA_VISIBLE_DEVICES), or use --device cpu");
    case cudaErrorNoKernelImageForDevice:
        return draft_fail(err, DRAFT_FAILED_PRECONDITION,
                          "libdraft_cuda.so holds no code for this GPU; it needs compute capability 8.0 or newer");
    case cudaErrorMemoryAllocation:
        return draft_fail(err, DRAFT_OUT_OF_MEMORY,
                          "out of GPU memory %s; use a smaller picture, a smaller micro batch or recompute", doing);
    default:
        if (is_sticky(status))
            return draft_fail(err, DRAFT_DEVICE_LOST,
                              "%s: %s (%s); the GPU's work in this process is lost, it must be started again", doing,
                              cudaGetErrorString(status), cudaGetErrorName(status));
        return draft_fail(err, DRAFT_INTERNAL, "%s: %s (%s)", doing, cudaGetErrorString(status),
                          cudaGetErrorName(status));
    }
}

bool draft_cuda_launched(const char *doing, struct draft_error *err)
{
    return draft_cuda_ok(cudaGetLastError(), doing, err);
}

draft_cuda_stream draft_cuda_stream_of(const struct draft_backend *backend)
{
    return backend->stream;
}

const struct draft_services *draft_cuda_services_of(const struct draft_backend *backend)
{
    return backend->services;
}

struct draft_cudnn *draft_cuda_cudnn(struct draft_backend *backend, struct draft_error *err)
{
    char folder[PATH_MAX];
    if (backend->cudnn == NULL) {
        const struct draft_cudnn_options options = {
            .stream = backend->stream, .cache = draft_cudnn_cache_folder(folder, sizeof folder) ? folder : NULL};
        backend->cudnn = draft_cudnn_create(&options, err);
    }
    return backend->cudnn;
}

/* --- What a backend does --------------------------------------------------------------------------------------------
 */

static void *alloc(struct draft_backend *backend, size_t bytes, struct draft_error *err)
{
    void *memory = NULL;
    if (!draft_cuda_ok(cudaMalloc(&memory, bytes > 0 ? bytes : 1), "allocating", err))
        return NULL;
    if (draft_cuda_block_taken(backend, memory, bytes, err))
        return memory;
    cudaFree(memory);
    return NULL;
}

/* cudaFree waits until the device is done with it. */
static void give_back(struct draft_backend *backend, void *memory)
{
    draft_cuda_block_given(backend, memory);
    backend->head.changes++;
    cudaFree(memory);
}

static void destroy(struct draft_backend *backend)
{
    draft_cuda_clock_close(backend);
    draft_cuda_products_destroy(backend->products);
    draft_cuda_constants_destroy(backend);
    draft_cuda_weights_destroy(backend);
    draft_cudnn_destroy(backend->cudnn);
    if (backend->cublas != NULL)
        cublasLtDestroy(backend->cublas);
    give_back(backend, backend->workspace);
    draft_cuda_staging_close(&backend->staging);
    free(backend->blocks);
    if (backend->stream != NULL)
        cudaStreamDestroy(backend->stream);
    free(backend);
}

static bool settle(struct draft_backend *backend, struct draft_error *err)
{
    return draft_cuda_ok(cudaStreamSynchronize(backend->stream), "waiting for the GPU", err);
}

static bool download(struct draft_backend *backend, void *to, const void *from, size_t bytes, struct draft_error *err)
{
    return draft_cuda_ok(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, backend->stream),
                         "copying from the GPU", err) &&
           settle(backend, err);
}

static bool fill(struct draft_backend *backend, float *at, int64_t n, float value, struct draft_error *err)
{
    draft_cuda_fill(backend->stream, DRAFT_F32, n, value, at);
    return draft_cuda_launched("filling", err);
}

static bool axpby(struct draft_backend *backend, enum draft_dtype type, int64_t n, float alpha, const void *a, void *y,
                  bool accumulate, struct draft_error *err)
{
    draft_cuda_axpby(backend->stream, type, n, alpha, a, 0, NULL, (struct draft_cuda_gradient){y, accumulate});
    return draft_cuda_launched("handing on a gradient", err);
}

static bool approach(struct draft_backend *backend, int64_t n, float rate, const float *target, float *x,
                     struct draft_error *err)
{
    draft_cuda_approach(backend->stream, n, rate, target, x);
    return draft_cuda_launched("averaging the parameters", err);
}

static bool exchange(struct draft_backend *backend, int64_t n, float *a, float *b, struct draft_error *err)
{
    draft_cuda_exchange(backend->stream, n, a, b);
    return draft_cuda_launched("exchanging parameters and averages", err);
}

static bool lap(struct draft_backend *backend, double *last, double *sum, struct draft_error *err)
{
    draft_cuda_lap(backend->stream, last, sum);
    return draft_cuda_launched("reading the device's clock", err);
}

static const struct draft_backend_kind CUDA = {.name = "cuda",
                                               .ops = draft_cuda_columns,
                                               .destroy = destroy,
                                               .region = draft_cuda_region_make,
                                               .alloc = alloc,
                                               .free = give_back,
                                               .upload = draft_cuda_send,
                                               .download = download,
                                               .fill = fill,
                                               .axpby = axpby,
                                               .gradient_norm = draft_cuda_measure_gradient,
                                               .adamw_numbers = draft_cuda_update_numbers,
                                               .adamw = draft_cuda_update,
                                               .approach = approach,
                                               .exchange = exchange,
                                               .folds = draft_cuda_folds,
                                               .forget = draft_cuda_weight_forget,
                                               .forget_all = draft_cuda_weights_forget,
                                               .prepared_bytes = draft_cuda_weight_bytes,
                                               .lap = lap,
                                               .mark = draft_cuda_mark,
                                               .between = draft_cuda_between,
                                               .launches = draft_cuda_launch_count,
                                               .wait = settle,
                                               .record = draft_cuda_record,
                                               .recorded = draft_cuda_recorded,
                                               .launch = draft_cuda_launch,
                                               .drop = draft_cuda_drop};

/* --- The door -------------------------------------------------------------------------------------------------------
 */

static bool memory(struct draft_backend *backend, size_t *free_bytes, size_t *total, struct draft_error *err)
{
    (void)backend; /* the one device that this process has taken */
    return draft_cuda_ok(cudaMemGetInfo(free_bytes, total), "asking for the device's memory", err);
}

static void usage(const struct draft_backend *backend, size_t *used, size_t *peak)
{
    *used = backend->used;
    *peak = backend->peak;
}

static int devices(struct draft_device *list, int room, struct draft_error *err)
{
    int count = 0, driver = 0;
    if (!draft_cudnn_usable(err) || !draft_cuda_ok(cudaGetDeviceCount(&count), "looking for GPUs", err))
        return -1;
    if (room > 0 && !draft_cuda_ok(cudaDriverGetVersion(&driver), "asking for the driver's version", err))
        return -1;
    for (int i = 0; i < count && i < room; i++) {
        struct cudaDeviceProp prop;
        if (!draft_cuda_ok(cudaGetDeviceProperties(&prop, i), "looking at a GPU", err))
            return -1;
        list[i] = (struct draft_device){
            .major = prop.major, .minor = prop.minor, .driver = driver, .memory = prop.totalGlobalMem};
        snprintf(list[i].name, sizeof list[i].name, "%.127s", prop.name);
    }
    return count;
}

static bool open_device(struct draft_backend *backend, struct draft_error *err)
{
    return draft_cuda_ok(cudaSetDevice(backend->device), "taking the GPU", err) &&
           draft_cuda_driver_find(&backend->driver, err) &&
           draft_cuda_ok(cudaStreamCreateWithFlags(&backend->stream, cudaStreamNonBlocking), "making a stream", err) &&
           (backend->workspace = alloc(backend, DRAFT_CUDA_WORKSPACE, err)) != NULL &&
           draft_cuda_staging_open(&backend->staging, err);
}

/* For finding faults: DRAFT_CUDA_EAGER=1 records nothing, DRAFT_CUDA_SYNC=1 waits for each op as well. */
static bool asked_for(const char *variable)
{
    const char *said = getenv(variable);
    return said != NULL && said[0] != '\0' && strcmp(said, "0") != 0;
}

static struct draft_backend *create(int device, const struct draft_services *services, struct draft_error *err)
{
    int count = devices(NULL, 0, err);
    if (count < 0)
        return NULL;
    if (device < 0 || device >= count) {
        draft_fail(err, DRAFT_NOT_FOUND, "there is no cuda:%d; the last of this machine's GPUs is cuda:%d", device,
                   count - 1);
        return NULL;
    }
    struct draft_backend *backend = calloc(1, sizeof *backend);
    if (backend == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the CUDA backend");
        return NULL;
    }
    backend->head.kind = &CUDA;
    backend->head.eager = asked_for("DRAFT_CUDA_EAGER");
    backend->head.settle = asked_for("DRAFT_CUDA_SYNC");
    backend->services = services;
    backend->device = device;
    bool ok = open_device(backend, err) && (backend->weights = draft_cuda_weights_create(err)) != NULL &&
              (backend->constants = draft_cuda_constants_create(err)) != NULL &&
              (backend->products = draft_cuda_products_create(err)) != NULL;
    if (ok && cublasLtCreate(&backend->cublas) != CUBLAS_STATUS_SUCCESS)
        ok = draft_fail(err, DRAFT_FAILED_PRECONDITION, "cuBLASLt does not start on cuda:%d; is there memory left?",
                        device);
    if (ok)
        return backend;
    destroy(backend);
    return NULL;
}

__attribute__((visibility("default"))) draft_plugin_entry draft_backend;

const struct draft_plugin *draft_backend(const char *version)
{
    static const struct draft_plugin PLUGIN = {
        .devices = devices, .memory = memory, .usage = usage, .create = create, .create_dry = draft_cuda_create_dry};
    return strcmp(version, DRAFT_PLUGIN_VERSION) == 0 ? &PLUGIN : NULL;
}
