#include "tensor/tensor.h"

#include <assert.h>
#include <stdio.h>

size_t draft_dtype_size(enum draft_dtype dtype)
{
    switch (dtype) {
    case DRAFT_F16:
    case DRAFT_BF16:
        return 2;
    case DRAFT_F32:
    case DRAFT_I32:
        return 4;
    case DRAFT_I64:
    case DRAFT_F64:
        return 8;
    }
    assert(false && "no such dtype");
    return 0;
}

const char *draft_dtype_name(enum draft_dtype dtype)
{
    static const char *const names[] = {"F32", "F16", "BF16", "I32", "I64", "F64"};
    assert((unsigned)dtype < sizeof names / sizeof *names);
    return names[dtype];
}

const char *draft_shape_text(int rank, const int64_t *dim, char *buffer, size_t size)
{
    assert(size >= 8);
    size_t used = (size_t)snprintf(buffer, size, "[");
    for (int i = 0; i < rank && used < size; i++)
        used += (size_t)snprintf(buffer + used, size - used, "%s%lld", i > 0 ? ", " : "", (long long)dim[i]);
    if (used + 2 > size) {
        snprintf(buffer + size - 5, 5, "...]");
        return buffer;
    }
    snprintf(buffer + used, size - used, "]");
    return buffer;
}
