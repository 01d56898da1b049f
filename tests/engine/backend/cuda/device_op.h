/* An op on the emulated device against the CPU engine's: forward, gradients overwritten, gradients added to. */
#ifndef TESTS_ENGINE_BACKEND_CUDA_DEVICE_OP_H
#define TESTS_ENGINE_BACKEND_CUDA_DEVICE_OP_H

#include "engine/backend/cuda/cpu_reference.h"

struct device_op {
    const char *name;
    cpu_op cpu; /* its context is this struct */
    void (*forward)(enum draft_dtype type, const struct device_op *op, void *const *in, void *y);
    /* d[i]: of in[i]. NULL: an op without gradient. */
    void (*backward)(enum draft_dtype type, const struct device_op *op, void *const *in, const void *dy,
                     const struct draft_cuda_gradient *d);
    int inputs;
    int rank[MOST_INPUTS];
    int64_t dim[MOST_INPUTS][4];
    double mean, scale; /* of the inputs; scale 0: 1 */
    bool f32_output;    /* a loss: y and dy in F32 */
    int64_t number[6];  /* the op's own, as its functions read them */
    float real[4];
};

static inline void run_device_op(enum draft_dtype type, const void *context)
{
    const struct device_op *op = context;
    const enum draft_dtype y_type = op->f32_output ? DRAFT_F32 : type;
    struct draft_tensor in[MOST_INPUTS];
    void *d_in[MOST_INPUTS];
    for (int i = 0; i < op->inputs; i++) {
        in[i] = input(DRAFT_F32, op->rank[i], op->dim[i], NULL);
        in[i].needs_grad = op->backward != NULL;
        int64_t n = draft_tensor_count(&in[i]);
        in[i].data = numbers(type, n, op->scale > 0 ? op->scale : 1, op->mean);
        d_in[i] = device(type, n, in[i].data);
    }
    struct cpu_result want = on_cpu(op->cpu, op, in, op->inputs, NULL);
    void *y = device(y_type, want.count, NULL);
    op->forward(type, op, d_in, y);
    check("y", y_type, want.count, y, want.y, BOUND[type]);
    if (!op->backward)
        return;
    float *dy = numbers(y_type, want.count, 1, 0);
    want = on_cpu(op->cpu, op, in, op->inputs, dy);
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        struct draft_cuda_gradient d[MOST_INPUTS] = {{NULL, false}};
        float *sum[MOST_INPUTS];
        for (int i = 0; i < op->inputs; i++) {
            int64_t n = draft_tensor_count(&in[i]);
            float *before = accumulate ? numbers(type, n, mean_square_root(n, want.gradient[i]), 0) : NULL;
            sum[i] = accumulate ? added(n, before, want.gradient[i]) : want.gradient[i];
            d[i] = (struct draft_cuda_gradient){device(type, n, before), accumulate};
        }
        op->backward(type, op, d_in, device(y_type, want.count, dy), d);
        for (int i = 0; i < op->inputs; i++)
            check(accumulate ? "gradient added to" : "gradient", type, draft_tensor_count(&in[i]), d[i].to, sum[i],
                  BOUND[type]);
    }
}

static inline void run_device_ops(const struct device_op *ops, size_t count)
{
    for (size_t i = 0; i < count; i++)
        in_every_way(ops[i].name, run_device_op, &ops[i]);
}

#endif
