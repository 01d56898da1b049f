/* Which kernels this machine runs. */
#include <string.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/kernels/tables.h"

#if defined(__x86_64__)
static bool supported(const struct draft_kernels *kernels)
{
    if (kernels == &draft_kernels_x86_64_v4_bf16)
        return __builtin_cpu_supports("x86-64-v4") && __builtin_cpu_supports("avx512bf16") &&
               __builtin_cpu_supports("avx512vnni"); /* all that have the one have the other */
    if (kernels == &draft_kernels_x86_64_v4)
        return __builtin_cpu_supports("x86-64-v4");
    if (kernels == &draft_kernels_x86_64_v3)
        return __builtin_cpu_supports("x86-64-v3");
    return true;
}
/* Every machine has the last but one: the bf16 table, less exact, is never taken unasked. */
static const struct draft_kernels *const best_first[] = {&draft_kernels_x86_64_v4, &draft_kernels_x86_64_v3,
                                                         &draft_kernels_x86_64, &draft_kernels_x86_64_v4_bf16};
static const char *const names = "\"x86-64\", \"x86-64-v3\", \"x86-64-v4\" or \"x86-64-v4-bf16\"";
#else /* one table: nothing to choose */
static bool supported(const struct draft_kernels *kernels)
{
    (void)kernels;
    return true;
}
#if defined(__aarch64__)
static const struct draft_kernels *const best_first[] = {&draft_kernels_armv8_a};
static const char *const names = "\"armv8-a\"";
#else
static const struct draft_kernels *const best_first[] = {&draft_kernels_generic};
static const char *const names = "\"generic\"";
#endif
#endif

enum { TABLES = sizeof(best_first) / sizeof(best_first[0]) };

const struct draft_kernels *draft_kernels_find(const char *isa, bool bf16, struct draft_error *err)
{
    static const char bf16_isa[] = "x86-64-v4-bf16";
    if (bf16) {
        if (isa && strcmp(isa, "auto") != 0 && strcmp(isa, bf16_isa) != 0) {
            draft_fail(err, DRAFT_INVALID_ARGUMENT,
                       "bf16 products need the instruction set \"%s\", not \"%s\"; use \"auto\"", bf16_isa, isa);
            return NULL;
        }
        for (int i = 0; i < TABLES; i++)
            if (strcmp(best_first[i]->isa, bf16_isa) == 0 && supported(best_first[i]))
                return best_first[i];
        draft_fail(
            err, DRAFT_FAILED_PRECONDITION,
            "this processor has no bf16 products (AVX512_BF16), and emulated they would be slower than fp32; use "
            "precision fp32");
        return NULL;
    }
    bool any = !isa || strcmp(isa, "auto") == 0;
    for (int i = 0; i < TABLES; i++) {
        if (!any && strcmp(isa, best_first[i]->isa) != 0)
            continue;
        if (supported(best_first[i]))
            return best_first[i];
        if (!any) {
            draft_fail(err, DRAFT_FAILED_PRECONDITION,
                       "this processor does not have the instruction set \"%s\"; use \"auto\" or a lower one of %s",
                       isa, names);
            return NULL;
        }
    }
    draft_fail(err, DRAFT_INVALID_ARGUMENT, "no kernels for the instruction set \"%s\"; use \"auto\", %s", isa, names);
    return NULL;
}
