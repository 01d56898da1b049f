/* The CUDA column of every op, in the order of ops.def; each is defined in ops/<op>.cu. */
#include "backend/cuda/device.h"

const struct draft_op_column *const draft_cuda_columns[] = {
#define DRAFT_OP(name) &draft_cuda_op_##name,
#include "ops/ops.def"
#undef DRAFT_OP
};
