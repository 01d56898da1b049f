/* What has happened in the fakes below the CUDA backend (tests/fakes/cuda/counts.h), where that is what is loaded. */
#ifndef TESTS_ENGINE_BACKEND_CUDA_FAKE_COUNTS_H
#define TESTS_ENGINE_BACKEND_CUDA_FAKE_COUNTS_H

#include <dlfcn.h>
#include <stdlib.h>

#include "fakes/cuda/counts.h"

static inline void *fake_entry(const char *name)
{
    void *library = dlopen(getenv("DRAFT_CUDA_PLUGIN"), RTLD_NOW | RTLD_LOCAL);
    assert_non_null(library);
    void *entry = dlsym(library, name);
    assert_non_null(entry);
    return entry;
}

static inline struct fake_counts *fake_counts(void)
{
    static fake_counts_entry *entry;
    if (!entry)
        *(void **)&entry = fake_entry("fake_cuda_counts");
    return entry();
}

static inline void fake_misuse(int error)
{
    fake_misuse_entry *entry;
    *(void **)&entry = fake_entry("fake_cuda_misuse");
    entry(error);
}

#endif
