/*
 * What of cuDNN cannot be had without a GPU, by -Wl,--wrap: a handle, the look at the device (which becomes one of
 * tests/fixtures/gpus), and execution. Plans are real ones, and what they execute is read from their own JSON: the
 * graph's operations are done one by one on the host, in F32, tensors that live inside the kernel included, each
 * rounded to its type. So a wrong stride, padding or operand is a wrong number here as there.
 *
 * The environment's FAKE_CUDNN says which cuDNN is found: old | cuda-12; nothing set: the one linked.
 */
#include <cudnn.h>
#include <dlfcn.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "products.h"
#include "runtime.h"
#include "tensor/half.h"

cudnnStatus_t __real_cudnnBackendSetAttribute(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                                              cudnnBackendAttributeType_t type, int64_t count, const void *values);
cudnnStatus_t __wrap_cudnnBackendSetAttribute(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                                              cudnnBackendAttributeType_t type, int64_t count, const void *values);
size_t __real_cudnnGetVersion(void);
size_t __wrap_cudnnGetVersion(void);
size_t __real_cudnnGetCudartVersion(void);
size_t __wrap_cudnnGetCudartVersion(void);
cudnnStatus_t __wrap_cudnnCreate(cudnnHandle_t *handle);
cudnnStatus_t __wrap_cudnnDestroy(cudnnHandle_t handle);
cudnnStatus_t __wrap_cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream);
cudnnStatus_t __wrap_cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                         cudnnBackendDescriptor_t pack);

/* --- The library, a handle, the device
 * --------------------------------------------------------------------------------
 */

static bool found(const char *which)
{
    const char *said = getenv("FAKE_CUDNN");
    return said != NULL && strcmp(said, which) == 0;
}

size_t __wrap_cudnnGetVersion(void)
{
    return found("old") ? 90100 : __real_cudnnGetVersion();
}

size_t __wrap_cudnnGetCudartVersion(void)
{
    return found("cuda-12") ? 12090 : __real_cudnnGetCudartVersion();
}

/* A handle; a process may hold several engines, each with a stream of its own. */
struct cudnnContext {
    cudaStream_t stream;
};

/* The compiler of run-time compiled plans is opened and closed with each of them. To a leak checker the memory of what
 * is gone is nobody's, so it stays; where it is not found, no such plan is made either. */
static void keep_compiler(void)
{
    dlopen("libnvrtc.so.13", RTLD_LAZY | RTLD_NODELETE);
    dlopen("libnvrtc-builtins.so.13.0", RTLD_LAZY | RTLD_NODELETE);
}

cudnnStatus_t __wrap_cudnnCreate(cudnnHandle_t *handle)
{
    keep_compiler();
    *handle = calloc(1, sizeof **handle);
    return *handle != NULL ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_ALLOC_FAILED;
}

cudnnStatus_t __wrap_cudnnDestroy(cudnnHandle_t handle)
{
    free(handle);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t __wrap_cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream)
{
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

/* What the last variant pack binds: cuDNN does not give it out again. */
enum { BOUND = 32 };
static struct {
    cudnnBackendDescriptor_t pack;
    int64_t ids, pointers, id[BOUND];
    void *memory[BOUND];
} bound;

static cudnnStatus_t set_device(cudnnBackendDescriptor_t d)
{
    char json[4096];
    FILE *file = fopen(FAKE_GPU, "r");
    size_t size = file != NULL ? fread(json, 1, sizeof json, file) : 0;
    if (file != NULL)
        fclose(file);
    return __real_cudnnBackendSetAttribute(d, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)size,
                                           json);
}

cudnnStatus_t __wrap_cudnnBackendSetAttribute(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                                              cudnnBackendAttributeType_t type, int64_t count, const void *values)
{
    if (name == CUDNN_ATTR_DEVICEPROP_HANDLE)
        return set_device(d);
    if (name == CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS && count <= BOUND) {
        memcpy(bound.id, values, (size_t)count * sizeof *bound.id);
        bound.ids = count;
        bound.pack = d;
    }
    if (name == CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS && count <= BOUND) {
        memcpy(bound.memory, values, (size_t)count * sizeof *bound.memory);
        bound.pointers = bound.pack == d ? count : 0;
    }
    return __real_cudnnBackendSetAttribute(d, name, type, count, values);
}

/* --- Tensors
 * ----------------------------------------------------------------------------------------------------------
 */

enum { TENSORS = 64, RANK = 4 };

struct tensor {
    long id;
    bool bf16, inside, by_value, ready;
    int64_t dim[RANK], stride[RANK], size; /* size: elements from the first to the last */
    float *values;                         /* as strides have them */
    float value;                           /* of a number by value, as it was when the plan was executed */
    void *memory;                          /* NULL: inside the kernel */
};

/* One execution with all it reads, so that a captured graph can repeat it. */
struct execution {
    json_t *plan;
    struct tensor tensor[TENSORS];
    int tensors;
};

static int64_t whole(const json_t *number)
{
    return (int64_t)json_number_value(number);
}

static void read_four(const json_t *array, int64_t four[RANK])
{
    for (size_t i = 0; i < RANK; i++)
        four[i] = whole(json_array_get(array, i));
}

static struct tensor *find(struct execution *e, const char *name)
{
    for (int i = 0; name != NULL && i < e->tensors; i++)
        if (e->tensor[i].id == atol(name))
            return &e->tensor[i];
    return NULL;
}

static bool read_tensor(struct execution *e, const json_t *json)
{
    if (e->tensors == TENSORS || json_array_size(json_object_get(json, "dim")) != RANK)
        return false;
    const char *type = json_string_value(json_object_get(json, "dataType"));
    struct tensor *t = &e->tensor[e->tensors++];
    *t = (struct tensor){.id = atol(json_string_value(json_object_get(json, "name"))),
                         .bf16 = strcmp(type, "CUDNN_DATA_BFLOAT16") == 0,
                         .inside = json_is_true(json_object_get(json, "isVirtual")),
                         .by_value = json_is_true(json_object_get(json, "isByValue")),
                         .size = 1};
    read_four(json_object_get(json, "dim"), t->dim);
    read_four(json_object_get(json, "stride"), t->stride);
    for (int i = 0; i < RANK; i++)
        t->size += (t->dim[i] - 1) * t->stride[i];
    return t->bf16 || strcmp(type, "CUDNN_DATA_FLOAT") == 0;
}

/* Whatever the tensor does not hold stays as the memory has it. */
static void load(struct tensor *t)
{
    t->values = malloc((size_t)t->size * sizeof *t->values);
    if (t->values == NULL)
        abort();
    for (int64_t i = 0; i < t->size; i++)
        t->values[i] = t->by_value         ? t->value
                       : t->memory == NULL ? NAN
                       : t->bf16           ? draft_bf16_to_f32(((const uint16_t *)t->memory)[i])
                                           : ((const float *)t->memory)[i];
}

/* Rounds to the tensor's type; into memory where it has some. */
static void settle(struct tensor *t)
{
    int64_t i[RANK];
    for (i[0] = 0; i[0] < t->dim[0]; i[0]++)
        for (i[1] = 0; i[1] < t->dim[1]; i[1]++)
            for (i[2] = 0; i[2] < t->dim[2]; i[2]++)
                for (i[3] = 0; i[3] < t->dim[3]; i[3]++) {
                    int64_t at = 0;
                    for (int k = 0; k < RANK; k++)
                        at += i[k] * t->stride[k];
                    uint16_t half = draft_f32_to_bf16(t->values[at]);
                    if (t->bf16)
                        t->values[at] = draft_bf16_to_f32(half);
                    if (t->memory != NULL && t->bf16)
                        ((uint16_t *)t->memory)[at] = half;
                    else if (t->memory != NULL)
                        ((float *)t->memory)[at] = t->values[at];
                }
    t->ready = true;
}

/* Where y's element at i is in x; x's dimensions of 1 are repeated. */
static int64_t at(const struct tensor *x, const int64_t i[RANK])
{
    int64_t where = 0;
    for (int k = 0; k < RANK; k++)
        where += x->dim[k] == 1 ? 0 : i[k] * x->stride[k];
    return where;
}

/* The elements of t, one after another: i from zeros; false at the end. */
static bool next(const struct tensor *t, int64_t i[RANK])
{
    for (int k = RANK - 1; k >= 0; k--) {
        if (++i[k] < t->dim[k])
            return true;
        i[k] = 0;
    }
    return false;
}

/* --- Operations
 * -------------------------------------------------------------------------------------------------------
 */

/* A convolution as a matrix product: a row of `patches` is what a pixel of y sees of x, [taps, channels]. */
struct geometry {
    int64_t pad[2], stride[2];
    struct tensor *x, *w, *y;
    int64_t pixels, wide; /* rows and columns of the patches */
};

/* Calls visit for each element of each patch that falls into x, with its place there. */
__attribute__((always_inline)) static inline void each_element(const struct geometry *g, float *patches,
                                                               void (*visit)(float *of_x, float *of_patch))
{
    const int64_t *xs = g->x->stride, channels = g->w->dim[1];
    float *patch = patches;
    for (int64_t n = 0; n < g->y->dim[0]; n++)
        for (int64_t i = 0; i < g->y->dim[2]; i++)
            for (int64_t j = 0; j < g->y->dim[3]; j++)
                for (int64_t p = 0; p < g->w->dim[2]; p++)
                    for (int64_t q = 0; q < g->w->dim[3]; q++, patch += channels) {
                        int64_t row = i * g->stride[0] + p - g->pad[0], column = j * g->stride[1] + q - g->pad[1];
                        float *from = g->x->values + n * xs[0] + row * xs[2] + column * xs[3];
                        if (row >= 0 && row < g->x->dim[2] && column >= 0 && column < g->x->dim[3])
                            for (int64_t c = 0; c < channels; c++)
                                visit(from + c * xs[1], patch + c);
                    }
}

static void gather(float *of_x, float *of_patch)
{
    *of_patch = *of_x;
}

static void scatter(float *of_x, float *of_patch)
{
    *of_x += *of_patch;
}

/* The weights [o, taps, channels] and y [pixels, o], between their own strides and rows without gaps. */
static void each_weight(const struct geometry *g, float *rows, bool out)
{
    const int64_t *ws = g->w->stride, *wd = g->w->dim;
    for (int64_t o = 0; o < wd[0]; o++)
        for (int64_t p = 0; p < wd[2]; p++)
            for (int64_t q = 0; q < wd[3]; q++)
                for (int64_t c = 0; c < wd[1]; c++, rows++) {
                    float *w = &g->w->values[o * ws[0] + p * ws[2] + q * ws[3] + c * ws[1]];
                    *(out ? w : rows) = out ? *w + *rows : *w;
                }
}

static void each_output(const struct geometry *g, float *rows, bool out)
{
    const int64_t *ys = g->y->stride, *yd = g->y->dim;
    for (int64_t n = 0; n < yd[0]; n++)
        for (int64_t i = 0; i < yd[2]; i++)
            for (int64_t j = 0; j < yd[3]; j++)
                for (int64_t o = 0; o < yd[1]; o++, rows++) {
                    float *y = &g->y->values[n * ys[0] + i * ys[2] + j * ys[3] + o * ys[1]];
                    *(out ? y : rows) = out ? *y + *rows : *y;
                }
}

static void product(int64_t m, int64_t n, int64_t k, struct fake_matrix a, struct fake_matrix b, float *c)
{
    double *sum = malloc((size_t)(m * n) * sizeof *sum);
    if (sum == NULL)
        abort();
    fake_multiply(m, n, k, a, b, sum);
    for (int64_t i = 0; i < m * n; i++)
        c[i] = (float)sum[i];
    free(sum);
}

static const char *text_of(const json_t *node, const char *key)
{
    const char *text = json_string_value(json_object_get(node, key));
    return text != NULL ? text : "";
}

/* The operand under any of the names that cuDNN has for it. NULL: there is none, or not yet. */
static struct tensor *operand(struct execution *e, const json_t *node, const char *const *names)
{
    struct tensor *t = NULL;
    for (; t == NULL && *names != NULL; names++)
        t = find(e, json_string_value(json_object_get(node, *names)));
    return t;
}

static struct tensor *result_of(struct execution *e, const json_t *node)
{
    const char *kind = text_of(node, "operation");
    if (strstr(kind, "BACKWARD_DATA") != NULL)
        return operand(e, node, (const char *const[]){"dX", "X", NULL});
    if (strstr(kind, "BACKWARD_FILTER") != NULL)
        return operand(e, node, (const char *const[]){"dW", "W", NULL});
    return operand(e, node, (const char *const[]){"Y", "matC", NULL});
}

static void convolve(struct execution *e, const json_t *node, struct tensor *result)
{
    const char *kind = text_of(node, "operation");
    struct geometry g = {.x = operand(e, node, (const char *const[]){"X", "dX", NULL}),
                         .w = operand(e, node, (const char *const[]){"W", "dW", NULL}),
                         .y = operand(e, node, (const char *const[]){"Y", "dY", NULL})};
    const float beta = (float)json_number_value(json_object_get(node, "beta"));
    for (size_t k = 0; k < 2; k++) {
        const json_t *even = json_object_get(node, "pad");
        g.pad[k] = whole(json_array_get(even != NULL ? even : json_object_get(node, "pad_lower"), k));
        g.stride[k] = whole(json_array_get(json_object_get(node, "stride"), k));
    }
    for (int64_t i = 0; i < result->size; i++)
        result->values[i] = beta != 0 ? beta * result->values[i] : 0;
    const int64_t outputs = g.w->dim[0];
    g.pixels = g.y->dim[0] * g.y->dim[2] * g.y->dim[3];
    g.wide = g.w->dim[2] * g.w->dim[3] * g.w->dim[1];
    float *patches = calloc((size_t)(g.pixels * g.wide), sizeof *patches);
    float *w = calloc((size_t)(outputs * g.wide), sizeof *w), *y = calloc((size_t)(g.pixels * outputs), sizeof *y);
    if (patches == NULL || w == NULL || y == NULL)
        abort();
    if (strstr(kind, "FORWARD") != NULL) {
        each_element(&g, patches, gather);
        each_weight(&g, w, false);
        product(g.pixels, outputs, g.wide, (struct fake_matrix){patches, g.wide, 1}, (struct fake_matrix){w, 1, g.wide},
                y);
        each_output(&g, y, true);
    } else if (strstr(kind, "BACKWARD_DATA") != NULL) {
        each_output(&g, y, false);
        each_weight(&g, w, false);
        product(g.pixels, g.wide, outputs, (struct fake_matrix){y, outputs, 1}, (struct fake_matrix){w, g.wide, 1},
                patches);
        each_element(&g, patches, scatter);
    } else {
        each_output(&g, y, false);
        each_element(&g, patches, gather);
        product(outputs, g.wide, g.pixels, (struct fake_matrix){y, 1, outputs},
                (struct fake_matrix){patches, g.wide, 1}, w);
        each_weight(&g, w, true);
    }
    free(patches);
    free(w);
    free(y);
}

static float compute(const char *mode, float x, float b, bool *known)
{
    *known = true;
    if (strcmp(mode, "ADD") == 0)
        return x + b;
    if (strcmp(mode, "SUB") == 0)
        return x - b;
    if (strcmp(mode, "MUL") == 0)
        return x * b;
    if (strcmp(mode, "DIV") == 0)
        return x / b;
    if (strcmp(mode, "EXP") == 0)
        return expf(x);
    if (strcmp(mode, "LOG") == 0)
        return logf(x);
    *known = strcmp(mode, "IDENTITY") == 0;
    return x;
}

static bool pointwise(struct execution *e, const json_t *node, struct tensor *y)
{
    const struct tensor *x = operand(e, node, (const char *const[]){"X", NULL});
    const struct tensor *b = operand(e, node, (const char *const[]){"B", NULL});
    const char *mode = text_of(node, "pointwiseMode") + strlen("CUDNN_POINTWISE_");
    int64_t i[RANK] = {0};
    bool known;
    do
        y->values[at(y, i)] = compute(mode, x->values[at(x, i)], b != NULL ? b->values[at(b, i)] : 0, &known);
    while (known && next(y, i));
    return known;
}

static void reduce(struct execution *e, const json_t *node, struct tensor *y)
{
    const struct tensor *x = operand(e, node, (const char *const[]){"X", NULL});
    const bool largest = strcmp(text_of(node, "reductionOp"), "CUDNN_REDUCE_TENSOR_MAX") == 0;
    int64_t i[RANK] = {0};
    for (int64_t k = 0; k < y->size; k++)
        y->values[k] = largest ? -INFINITY : 0;
    do {
        float *to = &y->values[at(y, i)], v = x->values[at(x, i)];
        *to = largest ? fmaxf(*to, v) : *to + v;
    } while (next(x, i));
}

static void multiply(struct execution *e, const json_t *node, struct tensor *c)
{
    const struct tensor *a = operand(e, node, (const char *const[]){"matA", NULL});
    const struct tensor *b = operand(e, node, (const char *const[]){"matB", NULL});
    const int64_t m = c->dim[2], n = c->dim[3];
    float *out = malloc((size_t)(m * n) * sizeof *out);
    if (out == NULL)
        abort();
    for (int64_t i = 0; i < c->dim[0]; i++)
        for (int64_t j = 0; j < c->dim[1]; j++) {
            const int64_t first[RANK] = {i, j, 0, 0};
            product(m, n, a->dim[3], (struct fake_matrix){a->values + at(a, first), a->stride[2], a->stride[3]},
                    (struct fake_matrix){b->values + at(b, first), b->stride[2], b->stride[3]}, out);
            for (int64_t k = 0; k < m * n; k++)
                c->values[at(c, first) + k / n * c->stride[2] + k % n * c->stride[3]] = out[k];
        }
    free(out);
}

static bool compute_node(struct execution *e, const json_t *node, struct tensor *result)
{
    const char *kind = text_of(node, "operation");
    if (strstr(kind, "CONVOLUTION") != NULL)
        convolve(e, node, result);
    else if (strstr(kind, "POINTWISE") != NULL)
        return pointwise(e, node, result);
    else if (strstr(kind, "REDUCTION") != NULL)
        reduce(e, node, result);
    else if (strstr(kind, "MATMUL") != NULL)
        multiply(e, node, result);
    else if (strstr(kind, "RESHAPE") != NULL) { /* the same memory, seen through other strides */
        const struct tensor *x = operand(e, node, (const char *const[]){"X", NULL});
        memcpy(result->values, x->values, (size_t)(x->size < result->size ? x->size : result->size) * sizeof(float));
    } else
        return false;
    return true;
}

/* Whether everything that the node reads is there. */
static bool can_run(struct execution *e, const json_t *node, const struct tensor *result)
{
    static const char *const OPERANDS[] = {"X", "W", "Y", "B", "dX", "dW", "dY", "matA", "matB"};
    for (size_t i = 0; i < sizeof OPERANDS / sizeof *OPERANDS; i++) {
        const struct tensor *t = find(e, json_string_value(json_object_get(node, OPERANDS[i])));
        if (t != NULL && t != result && !t->ready)
            return false;
    }
    return true;
}

/* --- Execution
 * --------------------------------------------------------------------------------------------------------
 */

static void complain(const char *what, const char *which)
{
    fprintf(stderr, "fake cuDNN: %s %s\n", what, which);
    abort();
}

static void run(void *context)
{
    struct execution *e = context;
    const json_t *nodes = json_object_get(json_object_get(e->plan, "operationGraph"), "nodes");
    size_t count = json_array_size(nodes), done = 0, before;
    bool finished[TENSORS] = {false};
    for (int i = 0; i < e->tensors; i++) {
        load(&e->tensor[i]);
        e->tensor[i].ready = !e->tensor[i].inside;
    }
    for (size_t i = 0; i < count; i++) {
        struct tensor *result = result_of(e, json_array_get(nodes, i));
        if (result == NULL)
            complain("no result of", text_of(json_array_get(nodes, i), "operation"));
        result->ready = false;
    }
    do {
        before = done;
        for (size_t i = 0; i < count && i < TENSORS; i++) {
            const json_t *node = json_array_get(nodes, i);
            struct tensor *result = result_of(e, node);
            if (finished[i] || !can_run(e, node, result))
                continue;
            if (!compute_node(e, node, result))
                complain("does not know", text_of(node, "operation"));
            settle(result);
            finished[i] = true;
            done++;
        }
    } while (done > before);
    if (done < count)
        complain("cannot order", "the operations");
    for (int i = 0; i < e->tensors; i++)
        free(e->tensor[i].values);
}

static void release(void *context)
{
    struct execution *e = context;
    json_decref(e->plan);
    free(e);
}

static json_t *read_plan(cudnnBackendDescriptor_t plan)
{
    int64_t size = 0;
    const cudnnBackendAttributeName_t name = CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION;
    if (cudnnBackendGetAttribute(plan, name, CUDNN_TYPE_CHAR, 0, &size, NULL) != CUDNN_STATUS_SUCCESS)
        return NULL;
    char *text = calloc(1, (size_t)size + 1);
    if (text == NULL)
        return NULL;
    json_t *json = NULL;
    if (cudnnBackendGetAttribute(plan, name, CUDNN_TYPE_CHAR, size, &size, text) == CUDNN_STATUS_SUCCESS)
        json = json_loads(text, JSON_DECODE_INT_AS_REAL, NULL); /* kernels' parameters may exceed 63 bits */
    free(text);
    return json;
}

/* Gives each tensor of the graph that is no inner one its memory. */
static bool bind(struct execution *e, cudnnBackendDescriptor_t pack)
{
    if (bound.pack != pack || bound.ids != bound.pointers)
        return false;
    for (int i = 0; i < e->tensors; i++) {
        struct tensor *t = &e->tensor[i];
        for (int64_t k = 0; k < bound.ids; k++)
            if (bound.id[k] == t->id)
                t->memory = bound.memory[k];
        if (t->inside != (t->memory == NULL))
            return false;
        if (t->by_value) {
            memcpy(&t->value, t->memory, sizeof t->value);
            t->memory = NULL;
        }
    }
    return true;
}

/* cuDNN closes its parts at the end. Their memory is then nobody's to a leak checker, unless they stay. */
static void keep_libraries(void)
{
    static const char *const PARTS[] = {"libcudnn_graph.so.9", "libcudnn_heuristic.so.9",
                                        "libcudnn_engines_precompiled.so.9", "libcudnn_engines_runtime_compiled.so.9",
                                        "libcublasLt.so.13"};
    for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS; i++)
        dlopen(PARTS[i], RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

cudnnStatus_t __wrap_cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                         cudnnBackendDescriptor_t pack)
{
    keep_libraries();
    struct execution *e = calloc(1, sizeof *e);
    if (e == NULL)
        return CUDNN_STATUS_ALLOC_FAILED;
    e->plan = read_plan(plan);
    const json_t *tensors = json_object_get(json_object_get(e->plan, "operationGraph"), "tensors");
    bool ok = json_array_size(tensors) > 0;
    for (size_t i = 0; ok && i < json_array_size(tensors); i++)
        ok = read_tensor(e, json_array_get(tensors, i));
    if (!ok || !bind(e, pack)) {
        release(e);
        return CUDNN_STATUS_BAD_PARAM;
    }
    fake_submit(handle->stream, run, e, release);
    return CUDNN_STATUS_SUCCESS;
}
