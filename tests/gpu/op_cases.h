/*
 * What `gpu_check ops` compares: calls of every op of ops.def, on inputs that are a function of the call alone. Small
 * calls have odd sizes and edges; large ones are those of Stable Diffusion 1.5 and CLIP-H, where other kernels, tiles
 * and plans are taken.
 */
#ifndef TESTS_GPU_OP_CASES_H
#define TESTS_GPU_OP_CASES_H

#include "autograd/graph.h"
#include "ops/ops.h"

enum op_input_kind {
    OP_ABSENT,
    OP_ACTIVATION, /* differentiable */
    OP_WEIGHT,     /* frozen, on the host, and once more trained, where the backend computes */
    OP_ADAPTER,    /* trained always */
    OP_FROZEN,     /* a weight that is never trained */
    OP_GIVEN       /* an activation whose gradient nobody wants */
};

struct op_input {
    enum op_input_kind kind;
    int rank;
    int64_t dim[DRAFT_MAX_RANK];
    float scale, shift; /* values: shift + scale * uniform in [-1, 1); scale 0: 1 */
};

enum { OP_INPUTS = 5 };

struct op_call {
    const char *op, *what; /* "linear", "[15, 7] -> 3, bias, LoRA" */
    bool large;
    struct op_input in[OP_INPUTS];
    struct draft_tensor *(*run)(struct draft_graph *g, struct draft_tensor *const *in, const void *context);
    const void *context;
    double bound;   /* of relative L2 errors in fp32; 0: 1e-5 */
    bool fp32_only; /* it takes no BF16, or rounding its inputs to that changes the question */
};

extern const struct op_call op_calls[];
extern const int op_call_count;

#endif
