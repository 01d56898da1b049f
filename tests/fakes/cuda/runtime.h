/*
 * A CUDA runtime for machines without a GPU, linked into libdraft_cuda_host.so in place of cudart and the driver.
 * Device memory is host memory between guard pages; streams run what they are given at once; a capture records it
 * instead, and a graph's launch replays the record. What the real one refuses during a capture is refused here, and
 * spoils the capture (901): allocating, freeing and waiting with 900, the legacy stream with 906, an event of the
 * capture asked from outside with 907; a stream that was forked and not joined ends it with 904.
 *
 * The environment says what machine this is:
 *   FAKE_CUDA=no-driver | old-driver | stub | no-device | no-code | dies     nothing set: one healthy GPU
 *   FAKE_CUDA=no-broadcast  cuBLASLt has no algorithm for a batch that reads one matrix again and again
 *   FAKE_CUDA_MEMORY=<bytes>                                                 8 GiB
 *   FAKE_CUDA_LATE=1        work is done when somebody waits, no earlier: who reads or writes too soon is found out
 */
#ifndef TESTS_FAKES_CUDA_RUNTIME_H
#define TESTS_FAKES_CUDA_RUNTIME_H

#include <cuda_runtime_api.h>
#include <stdbool.h>

#include "counts.h"

/* For fakes of libraries: run(context) now, or whenever the graph that is being captured is launched; release(context)
 * when it is not needed any more. */
void fake_submit(cudaStream_t stream, void (*run)(void *context), void *context, void (*release)(void *context));

/* Bytes allocated at most since the last question. libdraft_cuda_host.so exports it, for tests. */
size_t fake_cuda_memory_peak(void);
/* Within the runtime: is it this machine; the status as it is answered, after sticky errors; what may not happen while
 * a graph is captured, which spoils the capture; a wait of the host, counted. */
fake_counts_entry fake_cuda_counts;
bool fake_machine(const char *what);
cudaError_t fake_answer(cudaError_t status);
void fake_sticky(cudaError_t status);
bool fake_refused(void);
void fake_wait(void);

#endif
