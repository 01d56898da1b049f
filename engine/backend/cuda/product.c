/*
 * Matrix products by cuBLASLt. It thinks in columns: our row-major [rows, columns] matrix is, unchanged, its
 * column-major [columns, rows], so each product is asked for transposed, c^T = op(b)^T op(a)^T, and its bias, which
 * runs along the rows of its result, runs along our columns. Sums are F32,
 * without TF32, whether F32 or BF16 is multiplied.
 *
 * What a product of some shape needs (descriptors, the algorithm that the heuristics name) is worked out once and kept:
 * a captured graph repeats exactly that call. The workspace is ours, so results are the same bits every run.
 */
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/state.h"

enum { BUCKETS = 1024 };

/* What a plan is found by: the product without its pointers and factors. */
struct key {
    int64_t number[18];
};

struct plan {
    struct plan *next;
    struct key key;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c; /* as cuBLASLt sees them: its a is our b */
    cublasLtMatmulAlgo_t algorithm;
};

struct draft_cuda_products {
    struct plan *bucket[BUCKETS];
};

struct draft_cuda_products *draft_cuda_products_create(struct draft_error *err)
{
    struct draft_cuda_products *products = calloc(1, sizeof *products);
    if (products == NULL)
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the plans of products");
    return products;
}

static void free_plan(struct plan *plan)
{
    if (plan->product != NULL)
        cublasLtMatmulDescDestroy(plan->product);
    cublasLtMatrixLayout_t layout[] = {plan->a, plan->b, plan->c};
    for (int i = 0; i < 3; i++)
        if (layout[i] != NULL)
            cublasLtMatrixLayoutDestroy(layout[i]);
    free(plan);
}

void draft_cuda_products_destroy(struct draft_cuda_products *products)
{
    for (int i = 0; products != NULL && i < BUCKETS; i++)
        while (products->bucket[i] != NULL) {
            struct plan *plan = products->bucket[i];
            products->bucket[i] = plan->next;
            free_plan(plan);
        }
    free(products);
}

static bool done(cublasStatus_t status, const char *doing, struct draft_error *err)
{
    if (status == CUBLAS_STATUS_SUCCESS)
        return true;
    return draft_fail(err, DRAFT_INTERNAL, "cuBLASLt, %s: %s", doing, cublasLtGetStatusString(status));
}

static bool set(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t name, const void *value, size_t size,
                struct draft_error *err)
{
    return done(cublasLtMatmulDescSetAttribute(product, name, value, size), "describing a product", err);
}

static cudaDataType type_of(enum draft_dtype type)
{
    return type == DRAFT_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

static bool layout(cublasLtMatrixLayout_t *out, enum draft_dtype type, int64_t rows, int64_t columns, int64_t ld,
                   int64_t batch, int64_t stride, struct draft_error *err)
{
    int32_t count = (int32_t)batch;
    return done(cublasLtMatrixLayoutCreate(out, type_of(type), (uint64_t)rows, (uint64_t)columns, ld), "a matrix",
                err) &&
           (batch == 1 ||
            (done(cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count),
                  "a batch", err) &&
             done(cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                                   sizeof stride),
                  "a batch", err)));
}

static bool describe(struct plan *plan, const struct draft_cuda_product *p, struct draft_error *err)
{
    int32_t trans_b = p->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N, trans_a = p->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = p->bias != NULL ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    return done(cublasLtMatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "a product", err) &&
           set(plan->product, CUBLASLT_MATMUL_DESC_TRANSA, &trans_b, sizeof trans_b, err) &&
           set(plan->product, CUBLASLT_MATMUL_DESC_TRANSB, &trans_a, sizeof trans_a, err) &&
           set(plan->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue, err) &&
           (p->bias == NULL || set(plan->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias, err)) &&
           layout(&plan->a, p->type, p->trans_b ? p->k : p->n, p->trans_b ? p->n : p->k, p->ldb, p->batch, p->stride_b,
                  err) &&
           layout(&plan->b, p->type, p->trans_a ? p->m : p->k, p->trans_a ? p->k : p->m, p->lda, p->batch, p->stride_a,
                  err) &&
           layout(&plan->c, p->c_type, p->n, p->m, p->ldc, p->batch, p->stride_c, err);
}

/* Bytes that every row of every matrix begins at a multiple of, as far as kernels ask: 16 at most. */
static uint32_t alignment_of(const void *values, enum draft_dtype type, int64_t ld, int64_t stride)
{
    uint64_t size = type == DRAFT_BF16 ? 2 : 4;
    uint64_t bits = (uint64_t)(uintptr_t)values | (uint64_t)ld * size | (uint64_t)stride * size | 16;
    return (uint32_t)(bits & (~bits + 1));
}

static uint32_t alignment_of_result(const struct draft_cuda_product *p)
{
    const uint32_t c = alignment_of(p->c, p->c_type, p->ldc, p->stride_c);
    const uint32_t onto = alignment_of(p->onto, p->c_type, p->ldc, p->stride_c); /* NULL is aligned to anything */
    return c < onto ? c : onto;
}

static bool prefer(cublasLtMatmulPreference_t wish, const struct draft_cuda_product *p, struct draft_error *err)
{
    const uint64_t workspace = DRAFT_CUDA_WORKSPACE;
    bool ok = done(cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                        sizeof workspace),
                   "its workspace", err);
    /* Parts of a sum over k are added up in F32: the other schemes go through the result's type. */
    const uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    ok = ok && done(cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction,
                                                         sizeof reduction),
                    "its sums", err);
    /* The default assumes 256 bytes, which a head inside rows does not have. */
    const uint32_t c = alignment_of_result(p);
    const struct {
        cublasLtMatmulPreferenceAttributes_t of;
        uint32_t bytes;
    } alignment[] = {{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(p->b, p->type, p->ldb, p->stride_b)},
                     {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(p->a, p->type, p->lda, p->stride_a)},
                     {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c},
                     {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, c}};
    for (int i = 0; i < 4; i++)
        ok = ok && done(cublasLtMatmulPreferenceSetAttribute(wish, alignment[i].of, &alignment[i].bytes,
                                                             sizeof alignment[i].bytes),
                        "its alignment", err);
    return ok;
}

static bool choose(struct draft_backend *backend, struct plan *plan, const struct draft_cuda_product *p,
                   struct draft_error *err)
{
    cublasLtMatmulPreference_t wish;
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    if (!done(cublasLtMatmulPreferenceCreate(&wish), "a preference", err))
        return false;
    bool ok =
        prefer(wish, p, err) && done(cublasLtMatmulAlgoGetHeuristic(backend->cublas, plan->product, plan->a, plan->b,
                                                                    plan->c, plan->c, wish, 1, &found, &count),
                                     "choosing an algorithm", err);
    cublasLtMatmulPreferenceDestroy(wish);
    if (ok && count == 0)
        ok = draft_fail(err, DRAFT_INTERNAL, "cuBLASLt has no algorithm for this product");
    if (ok)
        plan->algorithm = found.algo;
    return ok;
}

static struct plan *find(struct draft_backend *backend, const struct draft_cuda_product *p, struct draft_error *err)
{
    struct key key = {{p->batch, p->m, p->n, p->k, p->trans_a, p->trans_b, p->lda, p->ldb, p->ldc, p->stride_a,
                       p->stride_b, p->stride_c, p->bias != NULL, p->type, p->c_type,
                       alignment_of(p->a, p->type, p->lda, p->stride_a),
                       alignment_of(p->b, p->type, p->ldb, p->stride_b), alignment_of_result(p)}};
    uint64_t hash = 0;
    for (size_t i = 0; i < sizeof key.number / sizeof *key.number; i++)
        hash = (hash ^ (uint64_t)key.number[i]) * UINT64_C(0x9e3779b97f4a7c15);
    struct plan **bucket = &backend->products->bucket[hash >> 54];
    for (struct plan *plan = *bucket; plan != NULL; plan = plan->next)
        if (memcmp(&plan->key, &key, sizeof key) == 0)
            return plan;
    struct plan *plan = calloc(1, sizeof *plan);
    if (plan == NULL) {
        draft_fail(err, DRAFT_OUT_OF_MEMORY, "no memory for the plan of a product");
        return NULL;
    }
    plan->key = key;
    if (!describe(plan, p, err) || !choose(backend, plan, p, err)) {
        free_plan(plan);
        return NULL;
    }
    plan->next = *bucket;
    return *bucket = plan;
}

bool draft_cuda_multiply(struct draft_backend *backend, const struct draft_cuda_product *p, struct draft_error *err)
{
    if (p->batch == 0 || p->m == 0 || p->n == 0)
        return true;
    draft_cuda_launches++;
    if (draft_backend_is_dry(backend))
        return true;
    struct plan *plan = find(backend, p, err);
    if (plan == NULL)
        return false;
    if (p->bias != NULL && !set(plan->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p->bias, sizeof p->bias, err))
        return false;
    return done(cublasLtMatmul(backend->cublas, plan->product, &p->alpha, p->b, plan->a, p->a, plan->b, &p->beta,
                               p->onto != NULL ? p->onto : p->c, plan->c, p->c, plan->c, &plan->algorithm,
                               backend->workspace, DRAFT_CUDA_WORKSPACE, backend->stream),
                "multiplying", err);
}
