/* reshape moves no numbers: reshape.c serves every backend (draft_op.anywhere). Its place in the table of columns. */
#include "backend/cuda/op.h"

const struct draft_op_column draft_cuda_op_reshape = {nullptr, nullptr};
