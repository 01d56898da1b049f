/* The tables that table.c makes, one per instruction set it was compiled for. */
#ifndef DRAFT_BACKEND_CPU_KERNELS_TABLES_H
#define DRAFT_BACKEND_CPU_KERNELS_TABLES_H

#include "backend/cpu/kernels.h"

#if defined(__x86_64__)
extern const struct draft_kernels draft_kernels_x86_64, draft_kernels_x86_64_v3, draft_kernels_x86_64_v4,
    draft_kernels_x86_64_v4_bf16;
#elif defined(__aarch64__)
extern const struct draft_kernels draft_kernels_armv8_a;
#else
extern const struct draft_kernels draft_kernels_generic;
#endif

#endif
