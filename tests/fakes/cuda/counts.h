/* What has happened in libdraft_cuda_host.so, for tests: dlsym(library, "fake_cuda_counts"). */
#ifndef TESTS_FAKES_CUDA_COUNTS_H
#define TESTS_FAKES_CUDA_COUNTS_H

#include <stdint.h>

struct fake_counts {
    int64_t launches;       /* kernels and copies put into a stream one by one */
    int64_t graph_launches; /* whole graphs */
    int64_t captures;
    int64_t graphs; /* executable ones, now */
    int64_t waits;  /* of the host for the device */
    int64_t allocations;
};
typedef struct fake_counts *fake_counts_entry(void);

/* "fake_cuda_misuse": in a capture does what the runtime answers with 904 (a stream that joined and never came back) or
 * 906 (work on the legacy stream); otherwise nothing. */
typedef void fake_misuse_entry(int error);

#endif
