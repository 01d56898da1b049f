/* Kernels that try the emulated device: emulation_kernels.cu. */
#ifndef TESTS_ENGINE_BACKEND_CUDA_EMULATION_KERNELS_H
#define TESTS_ENGINE_BACKEND_CUDA_EMULATION_KERNELS_H

#ifdef __cplusplus
extern "C" {
#endif

/* Runs the kernel of that name on `out`; what it should leave there is said in emulation_kernels.cu. */
void launch_kernel(const char *name, float *out);

#ifdef __cplusplus
}
#endif

#endif
