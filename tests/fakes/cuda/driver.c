/*
 * A libcuda.so.1 for machines without a driver: just enough for cuDNN to compile and finish plans. Loading a compiled
 * kernel "works"; everything that would need a device answers CUDA_ERROR_STUB_LIBRARY.
 */
enum { STUB = 34, VERSION = 13000 };
static int token; /* what handles point to */

#define GIVES(name, type, value)                                                                                       \
    int name(type *out);                                                                                               \
    int name(type *out)                                                                                                \
    {                                                                                                                  \
        *out = value;                                                                                                  \
        return 0;                                                                                                      \
    }
GIVES(cuDriverGetVersion, int, VERSION)
GIVES(cuLibraryLoadData, void *, &token)
GIVES(cuLibraryGetKernel, void *, &token)
GIVES(cuKernelGetFunction, void *, &token)
GIVES(cuModuleLoadData, void *, &token)
GIVES(cuModuleLoadDataEx, void *, &token)
GIVES(cuModuleLoadFatBinary, void *, &token)
GIVES(cuModuleGetFunction, void *, &token)
GIVES(cuFuncGetAttribute, int, 0)
GIVES(cuKernelGetAttribute, int, 0)

#define SAYS(name, words)                                                                                              \
    int name(int error, const char **text);                                                                            \
    int name(int error, const char **text)                                                                             \
    {                                                                                                                  \
        (void)error;                                                                                                   \
        *text = words;                                                                                                 \
        return 0;                                                                                                      \
    }
SAYS(cuGetErrorName, "NO_DRIVER")
SAYS(cuGetErrorString, "there is no driver here")

#define ANSWERS(name, status)                                                                                          \
    int name(void);                                                                                                    \
    int name(void)                                                                                                     \
    {                                                                                                                  \
        return status;                                                                                                 \
    }
ANSWERS(cuLibraryUnload, 0)
ANSWERS(cuModuleUnload, 0)
ANSWERS(cuFuncSetAttribute, 0)
ANSWERS(cuKernelSetAttribute, 0)
ANSWERS(cuInit, STUB)
ANSWERS(cuDeviceGet, STUB)
ANSWERS(cuDeviceGetCount, STUB)
ANSWERS(cuDeviceGetAttribute, STUB)
ANSWERS(cuDevicePrimaryCtxRetain, STUB)
ANSWERS(cuDevicePrimaryCtxRelease, STUB)
ANSWERS(cuDevicePrimaryCtxReset, STUB)
ANSWERS(cuCtxGetCurrent, STUB)
ANSWERS(cuCtxGetDevice, STUB)
ANSWERS(cuCtxGetLimit, STUB)
ANSWERS(cuCtxPushCurrent, STUB)
ANSWERS(cuCtxPopCurrent, STUB)
ANSWERS(cuStreamGetCtx, STUB)
ANSWERS(cuStreamSynchronize, STUB)
ANSWERS(cuMemcpyDtoH_v2, STUB)
ANSWERS(cuModuleGetGlobal_v2, STUB)
ANSWERS(cuLibraryLoadFromFile, STUB)
ANSWERS(cuLinkCreate, STUB)
ANSWERS(cuLinkCreate_v2, STUB)
ANSWERS(cuLinkAddData, STUB)
ANSWERS(cuLinkAddData_v2, STUB)
ANSWERS(cuLinkAddFile_v2, STUB)
ANSWERS(cuLinkComplete, STUB)
ANSWERS(cuLinkDestroy, STUB)
ANSWERS(cuLaunchKernel, STUB)
ANSWERS(cuLaunchKernelEx, STUB)
ANSWERS(cuLaunchCooperativeKernel, STUB)
ANSWERS(cuOccupancyMaxPotentialClusterSize, STUB)
ANSWERS(cuOccupancyMaxActiveBlocksPerMultiprocessor, STUB)
ANSWERS(cuTensorMapEncodeTiled, STUB)
ANSWERS(cuGetProcAddress_v2, STUB)
ANSWERS(cuGetExportTable, STUB)
