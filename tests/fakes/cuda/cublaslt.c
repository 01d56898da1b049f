/*
 * The part of cuBLASLt that the backend uses, on the host: F32, BF16 and BF16 into F32, both transposes, batches, beta,
 * the bias epilogue. Sums in double, results rounded to nearest even. What it does not know it refuses.
 * Linked in place of libcublasLt.
 */
#include <cublasLt.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "products.h"
#include "runtime.h"
#include "tensor/half.h"

struct product {
    int32_t trans_a, trans_b;
    uint32_t epilogue;
    const void *bias;
};

struct layout {
    uint64_t rows, columns;
    int64_t ld, stride;
    int32_t batch;
    cudaDataType type;
};

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_SUCCESS ? "fine" : "refused by the fake cuBLASLt";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    static char one;
    *handle = (cublasLtHandle_t)(void *)&one;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    (void)handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute, cudaDataType_t scale)
{
    struct product *p = calloc(1, sizeof *p);
    *desc = (cublasLtMatmulDesc_t)(void *)p;
    if (p == NULL)
        return CUBLAS_STATUS_ALLOC_FAILED;
    p->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    return compute == CUBLAS_COMPUTE_32F && scale == CUDA_R_32F ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    free(desc);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t name,
                                              const void *value, size_t size)
{
    struct product *p = (struct product *)(void *)desc;
    void *to = name == CUBLASLT_MATMUL_DESC_TRANSA         ? (void *)&p->trans_a
               : name == CUBLASLT_MATMUL_DESC_TRANSB       ? (void *)&p->trans_b
               : name == CUBLASLT_MATMUL_DESC_EPILOGUE     ? (void *)&p->epilogue
               : name == CUBLASLT_MATMUL_DESC_BIAS_POINTER ? (void *)&p->bias
                                                           : NULL;
    if (to == NULL || size != (name == CUBLASLT_MATMUL_DESC_BIAS_POINTER ? 8 : 4))
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, size);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t ld)
{
    struct layout *l = malloc(sizeof *l);
    *out = (cublasLtMatrixLayout_t)(void *)l;
    if (l == NULL)
        return CUBLAS_STATUS_ALLOC_FAILED;
    *l = (struct layout){.rows = rows, .columns = columns, .ld = ld, .batch = 1, .type = type};
    return (type == CUDA_R_32F || type == CUDA_R_16BF) && (uint64_t)ld >= rows ? CUBLAS_STATUS_SUCCESS
                                                                               : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    free(layout);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t name,
                                                const void *value, size_t size)
{
    struct layout *l = (struct layout *)(void *)layout;
    if (name == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT && size == sizeof l->batch)
        memcpy(&l->batch, value, size);
    else if (name == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET && size == sizeof l->stride)
        memcpy(&l->stride, value, size);
    else
        return CUBLAS_STATUS_INVALID_VALUE;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference = malloc(1);
    return *preference != NULL ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_ALLOC_FAILED;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    free(preference);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t name, const void *value,
                                                    size_t size)
{
    (void)preference, (void)name, (void)value, (void)size;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t *results, int *found)
{
    const struct layout *first = (const struct layout *)(void *)a, *second = (const struct layout *)(void *)b;
    (void)handle, (void)desc, (void)c, (void)d, (void)preference;
    memset(results, 0, sizeof *results * (size_t)wanted);
    const bool is_again = first->batch > 1 && (first->stride == 0 || second->stride == 0);
    *found = is_again && fake_machine("no-broadcast") ? 0 : 1;
    return CUBLAS_STATUS_SUCCESS;
}

/* One call with all it will read, so that a captured graph can repeat it. */
struct call {
    struct product p;
    struct layout a_layout, b_layout, c_layout;
    const char *a, *b, *c;
    char *d;
    float alpha, beta;
};

static int64_t size_of(const struct layout *l)
{
    return l->type == CUDA_R_16BF ? 2 : 4;
}

static float get(const void *values, cudaDataType type, int64_t i)
{
    return type == CUDA_R_16BF ? draft_bf16_to_f32(((const uint16_t *)values)[i]) : ((const float *)values)[i];
}

static void put(void *values, cudaDataType type, int64_t i, float value)
{
    if (type == CUDA_R_16BF)
        ((uint16_t *)values)[i] = draft_f32_to_bf16(value);
    else
        ((float *)values)[i] = value;
}

/* The values as floats: as they are, or widened into memory that the caller frees. */
static const float *as_floats(const void *values, const struct layout *l, float **widened)
{
    const int64_t count = ((int64_t)l->columns - 1) * l->ld + (int64_t)l->rows;
    *widened = NULL;
    if (l->type != CUDA_R_16BF)
        return values;
    *widened = malloc((size_t)count * sizeof **widened);
    if (*widened == NULL)
        abort();
    for (int64_t i = 0; i < count; i++)
        (*widened)[i] = draft_bf16_to_f32(((const uint16_t *)values)[i]);
    return *widened;
}

static void multiply(const struct call *call, const void *a, const void *b, const void *c, void *d)
{
    const struct layout *la = &call->a_layout, *lb = &call->b_layout, *lc = &call->c_layout;
    int64_t m = (int64_t)lc->rows, n = (int64_t)lc->columns, k = (int64_t)(call->p.trans_a ? la->rows : la->columns);
    if (m == 0 || n == 0)
        return;
    float *widened[2];
    struct fake_matrix left = {as_floats(a, la, &widened[0]), call->p.trans_a ? la->ld : 1,
                               call->p.trans_a ? 1 : la->ld};
    struct fake_matrix right = {as_floats(b, lb, &widened[1]), call->p.trans_b ? lb->ld : 1,
                                call->p.trans_b ? 1 : lb->ld};
    double *sum = malloc((size_t)(m * n) * sizeof *sum);
    if (sum == NULL)
        abort();
    fake_multiply(m, n, k, left, right, sum);
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < m; i++) {
            int64_t at = i + j * lc->ld;
            float out = call->alpha * (float)sum[i * n + j];
            if (call->beta != 0)
                out += call->beta * get(c, lc->type, at);
            if (call->p.epilogue == CUBLASLT_EPILOGUE_BIAS)
                out += get(call->p.bias, la->type, i);
            put(d, lc->type, at, out);
        }
    free(sum);
    free(widened[0]);
    free(widened[1]);
}

static void run(void *context)
{
    const struct call *call = context;
    for (int64_t i = 0; i < call->c_layout.batch; i++)
        multiply(call, call->a + i * call->a_layout.stride * size_of(&call->a_layout),
                 call->b + i * call->b_layout.stride * size_of(&call->b_layout),
                 call->c + i * call->c_layout.stride * size_of(&call->c_layout),
                 call->d + i * call->c_layout.stride * size_of(&call->c_layout));
}

static bool fits(const struct call *call)
{
    const struct layout *a = &call->a_layout, *b = &call->b_layout, *c = &call->c_layout;
    uint64_t k = call->p.trans_a ? a->rows : a->columns;
    return (call->p.trans_a ? a->columns : a->rows) == c->rows && (call->p.trans_b ? b->columns : b->rows) == k &&
           (call->p.trans_b ? b->rows : b->columns) == c->columns && a->batch == c->batch && b->batch == c->batch &&
           a->type == b->type && (c->type == a->type || c->type == CUDA_R_32F) &&
           (call->p.epilogue == CUBLASLT_EPILOGUE_DEFAULT ||
            (call->p.epilogue == CUBLASLT_EPILOGUE_BIAS && call->p.bias != NULL && c->type == a->type));
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algorithm, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream)
{
    (void)handle, (void)algorithm, (void)workspace, (void)workspace_bytes;
    struct call *call = malloc(sizeof *call);
    if (call == NULL)
        return CUBLAS_STATUS_ALLOC_FAILED;
    *call = (struct call){.p = *(const struct product *)(const void *)desc,
                          .a_layout = *(const struct layout *)(const void *)a_layout,
                          .b_layout = *(const struct layout *)(const void *)b_layout,
                          .c_layout = *(const struct layout *)(const void *)c_layout,
                          .a = a,
                          .b = b,
                          .c = c,
                          .d = d,
                          .alpha = *(const float *)alpha,
                          .beta = *(const float *)beta};
    if (c_layout != d_layout || !fits(call)) {
        free(call);
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    fake_submit(stream, run, call, free);
    return CUBLAS_STATUS_SUCCESS;
}
