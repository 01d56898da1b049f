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

#endif
