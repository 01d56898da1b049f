/* The GPUs of tests/fixtures/gpus, by hand from published figures, in cuDNN's own JSON. */
#ifndef TESTS_ENGINE_BACKEND_CUDNN_DESCRIBED_GPUS_H
#define TESTS_ENGINE_BACKEND_CUDNN_DESCRIBED_GPUS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "backend/cuda/cudnn_plan.h"
#include "base/read_file.h"

static const char *const DESCRIBED_GPUS[] = {"a100", "rtx3090", "rtx4090", "h200", "b200", "rtx5090"};
enum { DESCRIBED_GPU_COUNT = sizeof DESCRIBED_GPUS / sizeof *DESCRIBED_GPUS };

/* `cache` NULL: no plans on disk. */
static inline struct draft_cudnn *cudnn_for(const char *gpu, const char *cache)
{
    char path[512];
    struct draft_error err = {0};
    snprintf(path, sizeof path, FIXTURES "/gpus/%s.json", gpu);
    size_t length;
    char *json = draft_read_file(path, 1 << 16, &length, &err);
    const struct draft_cudnn_options options = {.described = json, .cache = cache};
    struct draft_cudnn *cudnn = json != NULL ? draft_cudnn_create(&options, &err) : NULL;
    if (cudnn == NULL)
        fail_msg("%s: %s", gpu, err.message);
    free(json);
    return cudnn;
}

static inline const struct draft_cudnn_plan *plan_for(struct draft_cudnn *cudnn,
                                                      const struct draft_cudnn_request *request)
{
    struct draft_error err = {0};
    const struct draft_cudnn_plan *plan = draft_cudnn_plan(cudnn, request, &err);
    if (plan == NULL)
        fail_msg("%s", err.message);
    return plan;
}

#endif
