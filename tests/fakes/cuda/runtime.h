/*
 * A CUDA runtime for machines without a GPU, linked into libdraft_cuda_host.so in place of cudart and the driver.
 * Device memory is host memory between guard pages; streams run what they are given at once; a capture records it
 * instead, and a graph's launch replays the record. What the real one refuses during a capture, allocating, freeing and
 * waiting, is refused here with 900, and spoils the capture (901).
 *
 * The environment says what machine this is:
 *   FAKE_CUDA=no-driver | old-driver | stub | no-device | no-code | dies     nothing set: one healthy GPU
 *   FAKE_CUDA_MEMORY=<bytes>                                                 8 GiB
 */
#ifndef TESTS_FAKES_CUDA_RUNTIME_H
#define TESTS_FAKES_CUDA_RUNTIME_H

#include <cuda_runtime_api.h>

/* For fakes of libraries: run(context) now, or whenever the graph that is being captured is launched; release(context)
 * when it is not needed any more. */
void fake_submit(cudaStream_t stream, void (*run)(void *context), void *context, void (*release)(void *context));

/* Bytes allocated at most since the last question. libdraft_cuda_host.so exports it, for tests. */
size_t fake_cuda_memory_peak(void);

#endif
