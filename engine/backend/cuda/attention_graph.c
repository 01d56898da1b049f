#include "backend/cuda/attention_graph.h"

enum { BACKWARD, N, HEADS, S, T, D, OUT_ROW };

/* --- Tensors --------------------------------------------------------------------------------------------------------
 */

/* [n, rows, heads d] as cuDNN sees it: n, heads, rows, d. Only the result's rows may have room behind them. */
static draft_cudnn_descriptor heads(struct draft_cudnn_graph *graph, const int64_t *k, int64_t id, int64_t rows)
{
    const int64_t c = id == DRAFT_ATTENTION_O && k[OUT_ROW] > 0 ? k[OUT_ROW] : k[HEADS] * k[D];
    return draft_cudnn_tensor(graph, &(struct draft_cudnn_tensor){.id = id,
                                                                  .type = CUDNN_DATA_BFLOAT16,
                                                                  .dim = {k[N], k[HEADS], rows, k[D]},
                                                                  .stride = {rows * c, k[D], c, 1}});
}

/* The same memory with rows and d exchanged. */
static draft_cudnn_descriptor turned_heads(struct draft_cudnn_graph *graph, const int64_t *k, int64_t id, int64_t rows)
{
    const int64_t c = k[HEADS] * k[D];
    return draft_cudnn_tensor(graph, &(struct draft_cudnn_tensor){.id = id,
                                                                  .type = CUDNN_DATA_BFLOAT16,
                                                                  .dim = {k[N], k[HEADS], k[D], rows},
                                                                  .stride = {rows * c, k[D], 1, c}});
}

/* n, heads, s, t: inside the kernel. */
static draft_cudnn_descriptor scores(struct draft_cudnn_graph *graph, const int64_t *k, cudnnDataType_t type)
{
    return draft_cudnn_tensor(graph,
                              &(struct draft_cudnn_tensor){.type = type,
                                                           .dim = {k[N], k[HEADS], k[S], k[T]},
                                                           .stride = {k[HEADS] * k[S] * k[T], k[S] * k[T], k[T], 1}});
}

static draft_cudnn_descriptor turned_scores(struct draft_cudnn_graph *graph, const int64_t *k, draft_cudnn_descriptor x)
{
    draft_cudnn_descriptor y = draft_cudnn_tensor(
        graph, &(struct draft_cudnn_tensor){.type = CUDNN_DATA_BFLOAT16,
                                            .dim = {k[N], k[HEADS], k[T], k[S]},
                                            .stride = {k[HEADS] * k[S] * k[T], k[S] * k[T], 1, k[T]}});
    draft_cudnn_reshape(graph, x, y);
    return y;
}

/* One number a row, [n, heads, s]. */
static draft_cudnn_descriptor rows(struct draft_cudnn_graph *graph, const int64_t *k, int64_t id)
{
    return draft_cudnn_tensor(graph, &(struct draft_cudnn_tensor){.id = id,
                                                                  .type = CUDNN_DATA_FLOAT,
                                                                  .dim = {k[N], k[HEADS], k[S], 1},
                                                                  .stride = {k[HEADS] * k[S], k[S], 1, 1}});
}

/* --- Operations that give their result -------------------------------------------------------------------------------
 */

static draft_cudnn_descriptor scores_by(struct draft_cudnn_graph *graph, const int64_t *k, cudnnPointwiseMode_t mode,
                                        draft_cudnn_descriptor x, draft_cudnn_descriptor b, cudnnDataType_t type)
{
    draft_cudnn_descriptor y = scores(graph, k, type);
    draft_cudnn_pointwise(graph, mode, x, b, y);
    return y;
}

static draft_cudnn_descriptor rows_by(struct draft_cudnn_graph *graph, const int64_t *k, cudnnReduceTensorOp_t how,
                                      draft_cudnn_descriptor x)
{
    draft_cudnn_descriptor y = rows(graph, k, 0);
    draft_cudnn_reduce(graph, how, x, y);
    return y;
}

static draft_cudnn_descriptor score_product(struct draft_cudnn_graph *graph, const int64_t *k, draft_cudnn_descriptor a,
                                            draft_cudnn_descriptor b)
{
    draft_cudnn_descriptor c = scores(graph, k, CUDNN_DATA_FLOAT);
    draft_cudnn_matmul(graph, a, b, c);
    return c;
}

/* --- Graphs ---------------------------------------------------------------------------------------------------------
 */

static void forward(struct draft_cudnn_graph *graph, const int64_t *k)
{
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    draft_cudnn_descriptor products = score_product(graph, k, heads(graph, k, DRAFT_ATTENTION_Q, k[S]),
                                                    turned_heads(graph, k, DRAFT_ATTENTION_K, k[T]));
    draft_cudnn_descriptor x =
        scores_by(graph, k, CUDNN_POINTWISE_MUL, products, draft_cudnn_scalar(graph, DRAFT_ATTENTION_SCALE), f32);
    draft_cudnn_descriptor most = rows_by(graph, k, CUDNN_REDUCE_TENSOR_MAX, x);
    draft_cudnn_descriptor below = scores_by(graph, k, CUDNN_POINTWISE_SUB, x, most, f32);
    draft_cudnn_descriptor e = scores_by(graph, k, CUDNN_POINTWISE_EXP, below, NULL, f32);
    draft_cudnn_descriptor sum = rows_by(graph, k, CUDNN_REDUCE_TENSOR_ADD, e);
    draft_cudnn_descriptor log = rows(graph, k, 0);
    draft_cudnn_pointwise(graph, CUDNN_POINTWISE_LOG, sum, NULL, log);
    draft_cudnn_pointwise(graph, CUDNN_POINTWISE_ADD, most, log, rows(graph, k, DRAFT_ATTENTION_LOG_SUM));
    draft_cudnn_descriptor p = scores_by(graph, k, CUDNN_POINTWISE_DIV, e, sum, CUDNN_DATA_BFLOAT16);
    draft_cudnn_matmul(graph, p, heads(graph, k, DRAFT_ATTENTION_V, k[T]), heads(graph, k, DRAFT_ATTENTION_O, k[S]));
}

/* sum over d of do o, for every row */
static draft_cudnn_descriptor row_sums(struct draft_cudnn_graph *graph, const int64_t *k, draft_cudnn_descriptor d_o)
{
    draft_cudnn_descriptor product = draft_cudnn_tensor(
        graph, &(struct draft_cudnn_tensor){.type = CUDNN_DATA_FLOAT,
                                            .dim = {k[N], k[HEADS], k[S], k[D]},
                                            .stride = {k[HEADS] * k[S] * k[D], k[S] * k[D], k[D], 1}});
    draft_cudnn_pointwise(graph, CUDNN_POINTWISE_MUL, d_o, heads(graph, k, DRAFT_ATTENTION_O, k[S]), product);
    draft_cudnn_descriptor sum = rows_by(graph, k, CUDNN_REDUCE_TENSOR_ADD, product);
    draft_cudnn_descriptor kept = rows(graph, k, DRAFT_ATTENTION_ROW_SUM);
    draft_cudnn_pointwise(graph, CUDNN_POINTWISE_MUL, sum, draft_cudnn_scalar(graph, DRAFT_ATTENTION_ONE), kept);
    return kept;
}

static void backward(struct draft_cudnn_graph *graph, const int64_t *k)
{
    const cudnnDataType_t f32 = CUDNN_DATA_FLOAT;
    draft_cudnn_descriptor q = heads(graph, k, DRAFT_ATTENTION_Q, k[S]),
                           turned_k = turned_heads(graph, k, DRAFT_ATTENTION_K, k[T]),
                           d_o = heads(graph, k, DRAFT_ATTENTION_DO, k[S]),
                           scale = draft_cudnn_scalar(graph, DRAFT_ATTENTION_SCALE);
    draft_cudnn_descriptor sum = row_sums(graph, k, d_o);
    /* p = exp(scale q k^T - log of the row's sum); dv = p^T do */
    draft_cudnn_descriptor x =
        scores_by(graph, k, CUDNN_POINTWISE_MUL, score_product(graph, k, q, turned_k), scale, f32);
    draft_cudnn_descriptor below =
        scores_by(graph, k, CUDNN_POINTWISE_SUB, x, rows(graph, k, DRAFT_ATTENTION_LOG_SUM), f32);
    draft_cudnn_descriptor p = scores_by(graph, k, CUDNN_POINTWISE_EXP, below, NULL, f32);
    draft_cudnn_matmul(graph, turned_scores(graph, k, p), d_o, heads(graph, k, DRAFT_ATTENTION_DV, k[T]));
    /* ds = scale p (do v^T - sum); dk = ds^T q; dq = ds k */
    draft_cudnn_descriptor dp = score_product(graph, k, d_o, turned_heads(graph, k, DRAFT_ATTENTION_V, k[T]));
    draft_cudnn_descriptor centred = scores_by(graph, k, CUDNN_POINTWISE_SUB, dp, sum, f32);
    draft_cudnn_descriptor unscaled = scores_by(graph, k, CUDNN_POINTWISE_MUL, centred, p, f32);
    draft_cudnn_descriptor ds = scores_by(graph, k, CUDNN_POINTWISE_MUL, unscaled, scale, CUDNN_DATA_BFLOAT16);
    draft_cudnn_matmul(graph, turned_scores(graph, k, ds), q, heads(graph, k, DRAFT_ATTENTION_DK, k[T]));
    draft_cudnn_descriptor straight_k = heads(graph, k, 0, k[T]);
    draft_cudnn_reshape(graph, turned_k, straight_k);
    draft_cudnn_matmul(graph, ds, straight_k, heads(graph, k, DRAFT_ATTENTION_DQ, k[S]));
}

static void describe(struct draft_cudnn_graph *graph, const int64_t *number)
{
    if (number[BACKWARD])
        backward(graph, number);
    else
        forward(graph, number);
}

bool draft_attention_request(const struct draft_attention_shape *s, bool back, size_t most_workspace,
                             struct draft_cudnn_request *request)
{
    enum { WIDEST = 256, WIDTHS = 8 }; /* cuDNN's documentation: heads of at most 256 numbers, in steps of 8 */
    if (s->causal || s->d > WIDEST || s->d % WIDTHS != 0)
        return false;
    *request = (struct draft_cudnn_request){
        .what = "attention",
        .number = {[BACKWARD] = back,
                   [N] = s->n,
                   [HEADS] = s->heads,
                   [S] = s->s,
                   [T] = s->t,
                   [D] = s->d,
                   [OUT_ROW] = s->out_row},
        .describe = describe,
        .compiled = true, /* there are no others */
        .most_workspace = most_workspace,
    };
    return true;
}
